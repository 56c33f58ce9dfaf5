"""One run: a cluster, clients, random trouble, peace, and the verdict."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from lxdpy.dev.api import Refused
from lxdpy.dev.faults.acts import ACTS, WIDE, Act, all_killed, all_powerless
from lxdpy.dev.faults.client import Client, Notes
from lxdpy.dev.faults.load import Load
from lxdpy.dev.faults.pulse import Pulse, Trouble
from lxdpy.dev.faults.scene import Scene
from lxdpy.dev.faults.verdict import Verdict, judge
from lxdpy.dev.history import Call
from lxdpy.dev.members import Cluster, Member

LASTS = (0.2, 4.0)  # seconds of an act
PEACE = (0.0, 2.5)  # seconds between acts
AT_LEADER = 0.5  # of the acts
AT_ONCE = 0.25  # share of acts that a second one joins
HEALS_WITHIN = 60.0  # seconds from the last act until the cluster answers and all members are equal
PAUSE = 0.2  # seconds between looks

Say = Callable[[str], None]


@contextmanager
def scene(state: Path, members: int, seed: str) -> Iterator[Scene]:
    """A cluster that is up, and taken away again."""
    dice = random.Random(seed)  # noqa: S311  # must be repeatable
    made = Scene(Cluster(state.name.removeprefix("lxdpy-"), state, members), dice)
    try:
        made.up()
        yield made
    finally:
        made.down()


def trouble(
    stage: Scene, seconds: float, seed: str, acts: Mapping[Act, int] = ACTS, say: Say = print
) -> Verdict:
    """Clients and acts for so long, then heal and judge. Raises NotReady if it does not heal."""
    sockets = {member.name: member.socket for member in stage.members}
    load, pulse = Load(sockets, seed), Pulse(sockets)
    began = time.monotonic()
    load.start()
    pulse.start()
    try:
        while time.monotonic() - began < seconds:
            act(stage, acts, say)
            time.sleep(stage.dice.uniform(*PEACE))
            stage.look()
        stage.heal()
        settled(stage)
    finally:
        pulse.stop()
        load.stop()
    lasted = time.monotonic() - began
    last_reads(stage, load)
    finals = {book.name: description(stage.members[0], book.name) for book in load.ledgers.all}
    verdict = judge(stage, load, pulse, seed, lasted, finals)
    verdict.unequal.extend(unequal(stage))
    return verdict


def act(stage: Scene, acts: Mapping[Act, int], say: Say) -> None:
    """One act, or two at once."""
    dice = stage.dice
    victims: list[Member] = []
    begun: list[tuple[str, frozenset[str], float]] = []
    with ExitStack() as together:
        for number in range(2 if dice.random() < AT_ONCE else 1):
            [chosen] = dice.choices(list(acts), list(acts.values()))
            if number and chosen in (all_killed, all_powerless):
                continue
            leader = stage.leader() if dice.random() < AT_LEADER else None
            victim = leader or dice.choice(stage.members)
            if victim in victims:
                continue
            victims.append(victim)
            name = chosen.__name__
            say(f"{time.strftime('%X')} {victim.name}{' (leader)' if leader else ''} {name}")
            stage.done[name] += 1
            hurt = stage.members if chosen in WIDE else [victim]
            begun.append((name, frozenset(member.name for member in hurt), time.time()))
            together.enter_context(chosen(stage, victim))
        time.sleep(dice.uniform(*LASTS))
    stage.troubles += [Trouble(*trouble, time.time()) for trouble in begun]


def settled(stage: Scene) -> None:
    """Wait until changes are made through every member again. Raises TimeoutError."""
    for member in stage.members:
        patiently(partial(changed, member))


def changed(member: Member) -> bool:
    """Raises Refused."""
    body = {"description": f"as seen by {member.name} at {time.monotonic()}"}
    member.ask("PATCH", "/1.0/profiles/default", body, timeout=5)
    return True


def last_reads(stage: Scene, load: Load) -> None:
    """Read all registers at all members: the last values count as well."""
    for book in load.registers.all:
        for member in stage.members:
            began = time.monotonic()
            value = description(member, book.name)
            load.calls.append(Call(book.name, "read", value, began, time.monotonic(), member=member.name))


def description(member: Member, name: str) -> str:
    """As of now, everywhere."""
    client = Client({member.name: member.socket}, Notes(), "last")
    deadline = time.monotonic() + HEALS_WITHIN
    while time.monotonic() < deadline:
        answer = client.read(name, linearizable=True)
        if answer is not None and answer.outcome == "applied":
            return answer.value
    raise TimeoutError(f"{name} cannot be read at {member.name}")


def unequal(stage: Scene) -> list[str]:
    """Digests of all members at one index, unless they are one; what they are if they never meet at one."""
    deadline = time.monotonic() + HEALS_WITHIN
    while True:
        found = [member.ask("GET", "/internal/1.0/cluster/digest") for member in stage.members]
        digests = {row["digest"] for row in found}
        met = len({row["index"] for row in found}) == 1
        if met and len(digests) == 1:
            return []
        if met or time.monotonic() > deadline:
            return [str(row) for row in found]
        time.sleep(PAUSE)


def patiently(ask: Callable[[], bool]) -> None:
    """Ask until it is true and no failure. Raises TimeoutError after HEALS_WITHIN."""
    deadline = time.monotonic() + HEALS_WITHIN
    while time.monotonic() < deadline:
        with suppress(OSError, Refused, ValueError):
            if ask():
                return
        time.sleep(PAUSE)
    raise TimeoutError("the cluster did not heal")
