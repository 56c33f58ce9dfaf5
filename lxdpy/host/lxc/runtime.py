"""The async face of containers: start, stop, freeze, programs inside, mounts, limits, what they use.

It knows names, specs and folders; who may do what, and what an instance is, is decided above. Calls for one
container must not overlap, but for `exec`, `kill_container` and those that only look (the caller holds the
instance's lock). Containers live on when the daemon ends in any way: see `reattach`.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from cluster.errors import Conflict, Error, Unavailable, Unsupported
from lxdpy.host.cgroups import Cgroups, Usage
from lxdpy.host.lxc import files, inside, prepare
from lxdpy.host.lxc.client import ExecRequest, ExecSession, HelperClient, HelperFailed
from lxdpy.host.lxc.helper_mounts import HelperMounts
from lxdpy.host.lxc.limits import all_items
from lxdpy.host.lxc.monitor import Event, Living, Monitors
from lxdpy.host.lxc.spec import ContainerSpec, DeviceNode, Limits
from lxdpy.host.paths import InstancePaths
from lxdpy.host.run import run, to_its_end
from lxdpy.host.throttle import Throttle
from lxdpy.host.undo import Undo

NO_SEARCH = "/nonexistent"  # as PATH: with newuidmap in reach, liblxc starts two shells instead of a write
START_WITHIN = 120.0  # seconds; 10 to 20 ms on a quiet host, but hooks and a loaded host take their time
KILL_WITHIN = 10.0  # seconds for the kernel to end all processes; a big one may have memory to give back
HALT_AGAIN = 1.0  # seconds; an init that is not listening yet loses the signal
FREEZE_WITHIN = 10.0  # seconds; 10 to 20 ms
FREEZE_PAUSE = 0.002  # seconds between looks
ENTERING = 2  # processes that a program from outside takes at first: LXC's own, and the program
ASKED_AT_ONCE = 100  # containers in one request for networks: others wait 20 ms for the helper at most


class StartFailed(Error):
    """LXC could not start the container; the message ends with what its log says."""


class ContainerState(msgspec.Struct, frozen=True):
    status: Literal["Running", "Stopped", "Frozen"]
    init_pid: int = 0
    """On the host; 0 while stopped, or in the moment a reboot takes."""


STOPPED = ContainerState("Stopped")


class Runtime:
    """The containers of one daemon. `root` is $LXD_DIR; `tag` tells this daemon from others on the host.

    The daemon must stay in the network namespace it was started in: LXC's sockets belong to it.
    """

    def __init__(self, root: Path, *, tag: str, sysfs: Path = Path("/sys")) -> None:
        self._root = root.absolute()
        self._sysfs = sysfs
        self.helper = HelperClient()
        self.mounts = HelperMounts(self.helper)
        self.cgroups = Cgroups(f"lxdpy.{tag}")
        self._monitors = Monitors(self._lxc_path, self._clean, self._tell)
        self._listeners: list[Callable[[str, Event], None]] = []
        self._starting: set[str] = set()
        self._finding = asyncio.Lock()

    @property
    def _lxc_path(self) -> Path:
        return self._root / "run"

    def paths(self, name: str) -> InstancePaths:
        return InstancePaths(self._root, name)

    async def start(self) -> None:
        self._lxc_path.mkdir(mode=0o711, parents=True, exist_ok=True)
        await self.helper.start()

    async def stop(self) -> None:
        """The helper ends; containers, and the programs in them, live on."""
        self._monitors.close()
        await self.helper.stop()
        await asyncio.to_thread(self.cgroups.tidy)

    def on_event(self, callback: Callable[[str, Event], None]) -> Callable[[], None]:
        """Have `callback(name, event)` called on the loop; returns how to end that.

        "stopped" comes when nothing of the container is left, so that it may be started at once.
        """
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    async def reattach(self, names: Iterable[str]) -> dict[str, ContainerState]:
        """Find containers that a daemon before us started; what died without one is cleaned up.

        Fine for containers we know. Tells no events: compare with what was believed.
        """
        names = [*names]
        async with self._finding:
            unknown = [n for n in names if n not in self._starting and not self._monitors.get(n)]
            found = await asyncio.to_thread(self._find, unknown)
            gone = [n for n, pids in found.items() if not any(self._monitors.add(n, pid) for pid in pids)]
            await asyncio.to_thread(self._clean, *gone)
        return {name: self.state(name) for name in names}

    def _find(self, names: list[str]) -> dict[str, list[int]]:
        """Which processes may be the monitors. If the pid file is lost, the control group knows."""
        return {
            name: [*filter(None, [prepare.read_pid(self.paths(name).pid_file)])]
            or self.cgroups.processes(name, "monitor")
            for name in names
        }

    def monitor_pid(self, name: str) -> int:
        """Of LXC's process that waits for it; 0 while it does not run."""
        return living.monitor if (living := self._monitors.get(name)) else 0

    def state(self, name: str) -> ContainerState:
        """As it is now; a few µs, one small file is read."""
        if not (living := self._monitors.get(name)):
            return STOPPED
        init = living.init if living.init_fd >= 0 else 0
        return ContainerState("Frozen" if self.cgroups.is_frozen(name) else "Running", init)

    async def start_container(self, spec: ContainerSpec) -> int:
        """Start it; returns the pid of its first process. Event "started".

        Raises StartFailed, with nothing left behind but its logs; Conflict if it runs.
        """
        name = spec.name
        async with self._finding:  # which takes what is half made for what a crash left
            if name in self._starting or self._monitors.get(name):
                raise Conflict("The instance is already running")
            self._starting.add(name)
        try:
            async with Undo() as undo:
                undo.push(asyncio.to_thread, self._abandon, name)
                await to_its_end(self._launch(spec), KILL_WITHIN)  # cut short, it would leave a monitor
                living = await self._appear(name)
        finally:
            self._starting.remove(name)
        self._tell(name, "started")
        return living.init

    def _prepare(self, spec: ContainerSpec) -> None:
        self.cgroups.remove(spec.name)
        self.cgroups.delegate()
        prepare.prepare(spec, self.paths(spec.name), self.cgroups, self._sysfs)

    def _abandon(self, name: str) -> None:
        """A start that failed, or whose caller was cancelled: the monitor may be there without us knowing."""
        if not self._monitors.get(name):
            self.cgroups.kill(name)
            self._clean(name)

    async def _launch(self, spec: ContainerSpec) -> None:
        name, paths = spec.name, self.paths(spec.name)
        await asyncio.to_thread(self._prepare, spec)
        try:
            try:
                await run(
                    *prepare.starter(paths), "-n", name, "-P", self._lxc_path, "-f", paths.config,
                    "-d", "-p", paths.pid_file, env={"PATH": NO_SEARCH}, timeout=START_WITHIN,
                )  # fmt: skip
            except Unsupported:
                await self.helper.call(
                    "start", timeout=START_WITHIN, search=NO_SEARCH,
                    pid_file=str(paths.pid_file), **self._names(name),
                )  # fmt: skip
        except Error as error:
            raise await self._start_failed(name, error.message) from None

    async def _appear(self, name: str) -> Living:
        pid = prepare.read_pid(self.paths(name).pid_file)  # just written: no disk is read
        living = self._monitors.add(name, pid) if pid else None
        if living is None or not living.init:
            if living:
                await self._wait_gone(living, KILL_WITHIN)
            raise await self._start_failed(name, "its first process ended at once")
        return living

    async def _start_failed(self, name: str, reason: str) -> StartFailed:
        errors = await asyncio.to_thread(prepare.errors_of, self.paths(name).log)
        return StartFailed(f"The instance could not be started: {errors or reason}")

    def _names(self, name: str) -> dict[str, Any]:
        """What LXC needs to know a container by."""
        return {"name": name, "path": str(self._lxc_path), "config": str(self.paths(name).config)}

    def _clean(self, *names: str) -> None:
        """Remove what is only of use to running containers."""
        for name in names:
            try:
                self.cgroups.remove(name)
            finally:
                prepare.clean(self.paths(name))

    def _tell(self, name: str, event: Event) -> None:
        for listener in [*self._listeners]:
            listener(name, event)

    async def kill_container(self, name: str) -> None:
        """End it by force; returns when nothing of it is left. Fine if it does not run."""
        if not (living := self._monitors.get(name)):
            return
        for _ in range(int(KILL_WITHIN / HALT_AGAIN)):
            alive = living.init_fd >= 0
            living.signal(signal.SIGKILL)
            with contextlib.suppress(OSError):
                self.cgroups.set_frozen(name, False)  # a frozen process cannot die
            # Again each second: a reboot may have put another first process in place.
            if await self._wait_gone(living, HALT_AGAIN):
                return
            if not alive and living.init_fd < 0:
                break  # the monitor hangs, as liblxc's does when its child dies while it prepares a reboot
        living.end_monitor()
        if not await self._wait_gone(living, KILL_WITHIN):
            raise Unavailable("The processes of the instance do not end")

    async def shutdown_container(self, name: str, timeout: float) -> None:
        """Ask its init to shut down; returns when nothing is left of it. Fine if it does not run.

        Raises Conflict when it is frozen, or still runs after `timeout` seconds.
        """
        if not (living := self._monitors.get(name)):
            return
        if self.cgroups.is_frozen(name):
            raise Conflict("The instance is frozen and cannot shut down")
        number = await asyncio.to_thread(prepare.halt_signal, self.paths(name).config)
        deadline = asyncio.get_running_loop().time() + timeout
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            living.signal(number or prepare.usual_halt_signal(living.init))
            if await self._wait_gone(living, min(HALT_AGAIN, left)):
                return
        raise Conflict(f"The instance did not shut down within {timeout:g} s")

    async def _wait_gone(self, living: Living, timeout: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await living.gone.wait()
        return living.gone.is_set()

    async def freeze(self, name: str) -> None:
        """Stop all its processes where they are; returns when they stand. Fine if they do."""
        await self._freeze(name, frozen=True)

    async def unfreeze(self, name: str) -> None:
        await self._freeze(name, frozen=False)

    async def _freeze(self, name: str, *, frozen: bool) -> None:
        self._running(name)
        try:
            async with asyncio.timeout(FREEZE_WITHIN):
                while True:
                    # v1 may have to be told again: a process that forks meanwhile escapes.
                    self.cgroups.set_frozen(name, frozen)
                    if self.cgroups.is_frozen(name) == frozen:
                        return
                    await asyncio.sleep(FREEZE_PAUSE)
        except TimeoutError:
            raise Unavailable("The kernel could not freeze the instance") from None
        except FileNotFoundError:
            raise Conflict("The instance is not running") from None

    def _running(self, name: str) -> Living:
        living = self._monitors.get(name)
        if living is None or living.init_fd < 0:
            raise Conflict("The instance is not running")
        return living

    async def exec(self, name: str, request: ExecRequest, fds: Sequence[int]) -> ExecSession:
        """Start a program inside, with `fds` as its 0, 1 and 2 (they stay the caller's; close them after).

        Raises Conflict when the container does not run, is frozen or full. Sessions end with the helper, not
        the programs.
        """
        names = self._names(name) | inside.passed(self.paths(name), self._ready(name).init)
        with self._explained(name):
            return await inside.attach(self.helper, names, request, fds)

    async def exec_on_terminal(
        self, name: str, request: ExecRequest, size: tuple[int, int]
    ) -> tuple[ExecSession, int]:
        """As `exec`, on a new terminal of so many rows and columns (0: unknown) whose master is returned."""
        init = self._ready(name).init
        names = self._names(name) | inside.passed(self.paths(name), init)
        with self._explained(name):
            return await inside.attach_on_terminal(self.helper, names, request, init, size)

    async def open_console(self, name: str) -> inside.ConsoleEnd:
        """The console, for one at a time. Raises Conflict when another program has it."""
        return await inside.open_console(self.helper, self._names(name), self._ready(name).init)

    async def serve_files(self, name: str) -> files.FileServer:
        """A file server in a running container, frozen or not. See `lxdpy.host.lxc.files`."""
        return await files.serve(self.helper, self._running(name).init_fd, running=True)

    def _ready(self, name: str) -> Living:
        living = self._running(name)
        if self.cgroups.is_frozen(name):
            raise Conflict("The instance is frozen")
        return living

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except HelperFailed:
            self._check_room(name)
            raise

    def _check_room(self, name: str) -> None:
        """Raises Conflict if the container has too many processes to be entered: LXC does not tell why."""
        limit, there = self.cgroups.process_limit(name), self.cgroups.usage(name).processes
        if limit and there + ENTERING > limit:
            raise Conflict(
                f"The instance has {there} of the {limit} processes that limits.processes allows; "
                f"starting another from outside takes {ENTERING}",
                key="limits.processes", value=str(limit),
            )  # fmt: skip

    def usage(self, name: str) -> Usage:
        """What it uses now; six small files, about 0.1 ms."""
        return self.cgroups.usage(name)

    async def networks(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Interfaces of running containers, by container and name, as LXD's instance state has them."""
        known = {name: living for name in names if (living := self._monitors.get(name))}
        pids = {living.init: name for name, living in known.items() if living.init_fd >= 0}
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(pids), ASKED_AT_ONCE):
            asked = [*pids][start : start + ASKED_AT_ONCE]
            for pid, network in (await self.helper.call("networks", pids=asked)).items():
                found[pids[int(pid)]] = network
        return found

    async def addresses(self, name: str) -> dict[str, Any]:
        """`networks` of one container; empty when it does not run."""
        return (await self.networks([name])).get(name, {})

    async def set_limits(self, name: str, limits: Limits) -> None:
        """Make these the limits of a running container, whatever they were."""
        self._running(name)
        found = all_items(limits, self.cgroups.layout, self.cgroups.all_cpus())
        await asyncio.to_thread(self.cgroups.write, name, found)

    async def throttle(self, name: str, throttles: Sequence[Throttle]) -> None:
        """Make these the limits of a running container's disks, whatever they were."""
        self._running(name)
        await asyncio.to_thread(self.cgroups.throttle, name, throttles)

    async def inject(
        self,
        name: str,
        source: Path,
        target: str,
        *,
        mapped: bool = False,
        readonly: bool = False,
        recursive: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        """Mount a file or folder of the host into a running container; `options`: see mounts.set_options."""
        init = self._running(name).init_fd
        await self.helper.call(
            "inject", [init], source=str(source), target=target, mapped=mapped, readonly=readonly,
            recursive=recursive, options=[*options],
        )  # fmt: skip

    async def eject(self, name: str, target: str) -> None:
        """The reverse of `inject`. Idempotent; what is in use inside stays usable to who has it open."""
        await self.helper.call("eject", [self._running(name).init_fd], target=target)

    async def inject_device(self, name: str, node: DeviceNode) -> None:
        """Grant a device to a running container, make its node, and say so inside. Idempotent."""
        living = self._running(name)
        words = (node, self.paths(name).devices, living.init, self._sysfs)
        staged, facts = await asyncio.to_thread(prepare.stage_for, *words)
        await self._device_rule(name, "allow", node)
        await self.eject(name, node.path)
        await self.inject(name, staged, node.path)
        await inside.say(self.helper, living.init_fd, "add", facts)

    async def eject_device(self, name: str, node: DeviceNode) -> None:
        """Take the node away and the right to open it; who has it open keeps it. Idempotent."""
        await self._device_rule(name, "deny", node)
        await self.eject(name, node.path)
        facts = await asyncio.to_thread(prepare.unstage, node, self.paths(name).devices)
        await inside.say(self.helper, self._running(name).init_fd, "remove", facts)

    async def _device_rule(self, name: str, verb: Literal["allow", "deny"], node: DeviceNode) -> None:
        if self.cgroups.layout.version("devices") == 1:
            change = self.cgroups.allow_device if verb == "allow" else self.cgroups.deny_device
            change(name, node.rule)
            return
        done = await self.helper.call("group", item=f"devices.{verb}", value=node.rule, **self._names(name))
        if not done:
            raise Unavailable("LXC could not change the device rules of the instance")
