"""What may happen to a cluster. An act lasts as long as its `with` block, and is over after it."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from lxdpy.dev.faults.scene import Scene
from lxdpy.dev.members import Member

Act = Callable[[Scene, Member], AbstractContextManager[None]]

CRASHES = {"journal.write": 400, "journal.sync": 400, "journal.rename": 2, "snapshot.rename": 2}  # visits
REFUSES_WITHIN = 15.0  # seconds for a daemon that cannot start to say so
JUMPS = (-86_400, -3600, -60, 60, 3600, 86_400)  # seconds


@contextmanager
def killed(scene: Scene, victim: Member) -> Iterator[None]:
    scene.kill(victim)
    yield
    scene.start(victim, wait=scene.dice.random() < 0.5)


@contextmanager
def killed_twice(scene: Scene, victim: Member) -> Iterator[None]:
    """The second time at any moment of its start."""
    scene.kill(victim)
    scene.start(victim)
    time.sleep(scene.dice.uniform(0, 2))
    scene.kill(victim)
    yield
    scene.start(victim)


@contextmanager
def all_killed(scene: Scene, victim: Member) -> Iterator[None]:
    for member in scene.dice.sample(scene.members, len(scene.members)):
        scene.kill(member)
    yield
    for member in scene.members:
        scene.start(member)


@contextmanager
def crashed(scene: Scene, victim: Member) -> Iterator[None]:
    """Killed at a chosen place of its code, if it comes there."""
    place = scene.dice.choice(list(CRASHES))
    scene.kill(victim)
    scene.start(victim, f"{place}=crash@{scene.dice.randint(1, CRASHES[place])}")
    yield
    if victim.pid() is None:
        scene.kills += 1
        scene.done[f"  at {place}"] += 1
    scene.kill(victim)
    scene.start(victim)


@contextmanager
def stopped(scene: Scene, victim: Member) -> Iterator[None]:
    scene.stop(victim)
    yield
    scene.start(victim)


@contextmanager
def frozen(scene: Scene, victim: Member) -> Iterator[None]:
    if victim.pid() is None:
        yield
        return
    victim.freeze()
    yield
    if victim.pid() is not None:
        victim.thaw()


# Links


@contextmanager
def isolated(scene: Scene, victim: Member) -> Iterator[None]:
    scene.links.part([victim.name], scene.others(victim))
    yield
    scene.links.heal()


@contextmanager
def deaf(scene: Scene, victim: Member) -> Iterator[None]:
    scene.links.deafen(victim.name, scene.others(victim))
    yield
    scene.links.heal()


@contextmanager
def mute(scene: Scene, victim: Member) -> Iterator[None]:
    for other in scene.others(victim):
        scene.links.deafen(other, [victim.name])
    yield
    scene.links.heal()


@contextmanager
def halved(scene: Scene, victim: Member) -> Iterator[None]:
    """The victim and some more on one side; with three members that is a majority or one."""
    others = scene.others(victim)
    with_it = scene.dice.sample(others, scene.dice.randint(0, len(others) - 1))
    scene.links.part([victim.name, *with_it], [name for name in others if name not in with_it])
    yield
    scene.links.heal()


@contextmanager
def bridged(scene: Scene, victim: Member) -> Iterator[None]:
    """Only the victim hears all; the others hear nobody but it."""
    others = scene.others(victim)
    for name in others:
        scene.links.deafen(name, [other for other in others if other != name])
    yield
    scene.links.heal()


@contextmanager
def lossy(scene: Scene, victim: Member) -> Iterator[None]:
    percent = scene.dice.choice((5, 20, 40))
    for other in scene.others(victim):
        scene.links.deafen(other, [victim.name], percent)
    scene.links.deafen(victim.name, scene.others(victim), percent)
    yield
    scene.links.heal()


@contextmanager
def slow(scene: Scene, victim: Member) -> Iterator[None]:
    scene.links.slow(victim.name, scene.dice.choice((200, 1000, 4000)))
    yield
    scene.links.heal()


# Disks and clocks


@contextmanager
def powerless(scene: Scene, victim: Member) -> Iterator[None]:
    scene.cut_power(victim)
    yield
    scene.start(victim)


@contextmanager
def all_powerless(scene: Scene, victim: Member) -> Iterator[None]:
    """Only what is on disks is left, whoever said that it was."""
    for member in scene.dice.sample(scene.members, len(scene.members)):
        scene.cut_power(member)
    yield
    for member in scene.members:
        scene.start(member)


@contextmanager
def torn(scene: Scene, victim: Member) -> Iterator[None]:
    scene.kill(victim)
    scene.disks[victim.name].do("tear", str(scene.dice.random()))
    yield
    scene.start(victim)


@contextmanager
def full(scene: Scene, victim: Member) -> Iterator[None]:
    """It ends when its log grows, and at the latest its next start is refused; with room again it goes on."""
    disk = scene.disks[victim.name]
    disk.do("fill")
    scene.excuse(victim)
    yield
    refused(scene, victim, "No space left")
    disk.do("free")
    scene.start(victim)


@contextmanager
def readonly(scene: Scene, victim: Member) -> Iterator[None]:
    """The file system finds an error in itself: like `full`, until it is repaired."""
    disk = scene.disks[victim.name]
    disk.do("spoil")
    scene.excuse(victim)
    yield
    refused(scene, victim, "Read-only file system")
    disk.repair()
    scene.start(victim)


def refused(scene: Scene, victim: Member, reason: str) -> None:
    """Its next start must end with the reason in its log."""
    scene.kill(victim)
    scene.start(victim)
    scene.excuse(victim)
    deadline = time.monotonic() + REFUSES_WITHIN
    while victim.pid() is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    if victim.pid() is not None or reason not in victim.tail(5):
        scene.surprises.append(f"{victim.name} started in spite of: {reason}\n{victim.tail(15)}")
        scene.kill(victim)


@contextmanager
def unsyncable(scene: Scene, victim: Member) -> Iterator[None]:
    """A sync fails: it must end, and what it had not promised may be there or not."""
    scene.kill(victim)
    error = scene.dice.choice(("EIO", "ENOSPC", "EROFS"))
    scene.start(victim, f"journal.sync=errno:{error}@{scene.dice.randint(1, 300)}")
    yield
    scene.kill(victim)
    scene.start(victim)


@contextmanager
def sluggish(scene: Scene, victim: Member) -> Iterator[None]:
    scene.kill(victim)
    scene.start(victim, f"journal.sync=delay:{scene.dice.choice((0.02, 0.1, 0.4))}")
    yield
    scene.kill(victim)
    scene.start(victim)


@contextmanager
def mistimed(scene: Scene, victim: Member) -> Iterator[None]:
    scene.clock(victim, scene.dice.choice(JUMPS))
    yield
    scene.clock(victim, 0)


# By weight: kills most of all, as they are what happens.
ACTS: dict[Act, int] = {
    killed: 12, killed_twice: 4, all_killed: 4, crashed: 5, stopped: 3, frozen: 4,
    isolated: 5, deaf: 3, mute: 3, halved: 3, bridged: 2, lossy: 3, slow: 3,
    powerless: 4, all_powerless: 3, torn: 3, full: 2, readonly: 2, unsyncable: 2, sluggish: 2, mistimed: 2,
}  # fmt: skip
KILLS: dict[Act, int] = {killed: 6, killed_twice: 2, all_killed: 1, crashed: 2, powerless: 1}
# May leave no majority that hears each other.
WIDE: frozenset[Act] = frozenset({all_killed, all_powerless, halved, bridged})
