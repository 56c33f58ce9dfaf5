"""lxdpyd: order of start and stop, in one TaskGroup.

Start: files and keys, the log (Raft), the API on the local socket and the network, then this host in line
with the state; a cluster without quorum still answers what it knows. Stop: another member leads, so that
writes go on there; no new work, operations end, the log is closed. Containers live on through all of it.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import click

from cluster.errors import Error
from cluster.ids import new_member_id
from cluster.membership import identity as identities
from cluster.membership.identity import Identity
from cluster.raft.frames import Damaged, write_synced
from cluster.raft.store import Identity as RaftIdentity
from cluster.raft.store import Store
from cluster.tls.certificates import KeyPair, ensure
from cluster.tls.contexts import Contexts
from cluster.tls.openssl import Adapter
from lxdpy import VERSION
from lxdpy.daemon import heap, logs
from lxdpy.daemon.beat import Beat
from lxdpy.daemon.context import Daemon
from lxdpy.daemon.hub import Hub
from lxdpy.daemon.instance_states import InstanceStates
from lxdpy.daemon.introductions import Introductions
from lxdpy.daemon.membership import Membership
from lxdpy.daemon.metrics_port import MetricsPort
from lxdpy.daemon.work import Work, open_log
from lxdpy.host.devices.gpu_mig import GpuMig
from lxdpy.host.devices.gpu_physical import GpuPhysical
from lxdpy.host.devices.registry import devices
from lxdpy.host.gpu.fake import FakeGpus
from lxdpy.host.images import ImageStore
from lxdpy.host.lock import only_one
from lxdpy.host.lxc.runtime import Runtime
from lxdpy.host.network.registry import networks
from lxdpy.host.paths import HostRoot, lxd_dir, tag_of, under
from lxdpy.resources.cluster.tokens import Tokens
from lxdpy.resources.gpu_queue.turns import Turns
from lxdpy.resources.gpus.actions import GpuWatch
from lxdpy.resources.guest.sockets import Guests
from lxdpy.resources.instances.consoles import Consoles
from lxdpy.resources.instances.file_sessions import FileSessions
from lxdpy.resources.instances.rendered import Rendered
from lxdpy.resources.networks.actions import Bridges
from lxdpy.resources.operations.registry import Operations
from lxdpy.resources.routes import ROUTES
from lxdpy.resources.server import origins
from lxdpy.resources.storage_pools.actions import Pools
from lxdpy.resources.tables import new_machine
from lxdpy.rest.app import Api
from lxdpy.rest.crowd import Loop
from lxdpy.rest.forward import Forwarder
from lxdpy.rest.listener import Listener

log = logging.getLogger(__name__)

MOST_FILES = 1 << 20  # descriptors; as LXD's unit allows it
FATAL = 3  # exit status when this member must not take part any more


class Options:
    """What the command line says."""

    def __init__(self, group: str | None, fake_gpus: Path | None, hardware: Path | None = None) -> None:
        self.group = group
        self.fake_gpus = fake_gpus
        self.hardware = hardware


def identity_of(root: Path) -> Identity:
    """This member's identity; that of a server of its own at its first start."""
    known = identities.load(root)
    if known is not None:
        return known
    identity = identities.new_identity(new_member_id())
    identities.save(root, identity)
    return identity


def host_id_of(root: Path, keys: KeyPair) -> str:
    """Names cards that have no id of their own; for good, so not after a certificate that is renewed."""
    path = root / "host-id"
    if not path.exists():
        write_synced(path, keys.fingerprint()[:12].encode())
    return path.read_text()


async def serve(root: Path, options: Options) -> None:
    """Run until told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as tasks:
        daemon, api = await assemble(root, options, tasks)
        daemon.stopping = stop

        def power_fails() -> None:
            daemon.host_stops = True
            stop.set()

        loop.add_signal_handler(signal.SIGPWR, power_fails)
        work = Work(daemon, api, options.group)
        work.garbage.begin()
        async with work.running():
            await stop.wait()
            log.info("stopping")
        raise Stopped


class Stopped(Exception):
    """The daemon has been told to stop and is in order."""


async def assemble(root: Path, options: Options, tasks: asyncio.TaskGroup) -> tuple[Daemon, Api]:
    """All parts, none of them started but the log."""
    identity = identity_of(root)
    keys = ensure(root, "server", [socket.gethostname()])
    host_id = host_id_of(root, keys)
    contexts, tls = Contexts(keys), Adapter(keys)
    listener = Listener(tasks)
    membership = Membership(root, identity, contexts, listener, tls)
    store = Store(
        root / "cluster" / "raft",
        RaftIdentity(identity.cluster_id, identity.member_id),
        new_machine(),
        addresses=lambda: membership.identity.addresses(),
        voters=identity.voters,
        contexts=contexts,
        fresh=identity.fresh,
        on_fatal=die,
        on_dismissed=membership.dismissed,
    )
    fake = FakeGpus(options.fake_gpus, root / "fake-gpus", host_id) if options.fake_gpus else None
    gpu_host = fake.root if fake else HostRoot()
    hardware = under(options.hardware) if options.hardware else HostRoot()
    bridges, pools, states = Bridges(), Pools(), InstanceStates()
    files, consoles, guests = FileSessions(), Consoles(), Guests()
    drivers = networks(root)
    hub, beat, introductions = Hub(store), Beat(store), Introductions(store)
    store.on_cast(states.heard)  # what others tell, they tell as soon as there is a link
    await open_log(store, membership)
    daemon = Daemon(
        root=root,
        host=HostRoot(),
        gpu_host=gpu_host,
        keys=keys,
        tasks=tasks,
        store=store,
        beat=beat,
        introductions=introductions,
        hub=hub,
        operations=Operations(store, hub, tasks),
        forwarder=Forwarder(store, keys, beat.online),
        runtime=Runtime(root, tag=tag_of(root), sysfs=hardware.sys),
        devices=devices(
            drivers.driver_for("bridge"),
            GpuPhysical(gpu_host, host_id),
            GpuMig(gpu_host, host_id),
            root=hardware,
        ),
        networks=drivers,
        bridges=bridges,
        images=ImageStore(root),
        pools=pools,
        states=states,
        rendered=Rendered(),
        files=files,
        consoles=consoles,
        guests=guests,
        membership=membership,
    )
    for part in (bridges, pools, states, files, consoles, guests, membership):
        part.daemon = daemon
    daemon.metrics = MetricsPort(daemon)
    daemon.gpus = GpuWatch(daemon, gpu_host, fake, host_id)
    daemon.operations.replicated = Tokens(daemon)
    daemon.operations.queued = Turns(daemon)
    api = Api(daemon, ROUTES, origins.headers_for)
    membership.server = api.server()
    return daemon, api


def die(reason: str) -> None:
    """This member may have lost or diverged: it must not go on. Called once, from the API loop."""
    log.critical("this member must stop: %s", reason)
    logging.shutdown()
    os._exit(FATAL)


async def main(root: Path, options: Options) -> None:
    """Raises what ended it, if that was not an operator: an Error or OSError alone, without its group."""
    try:
        await serve(root, options)
    except ExceptionGroup as group:
        _, failed = group.split(Stopped)
        if failed is None:
            log.info("stopped")
            return
        log.debug("ended", exc_info=group)
        raise cause_of(failed) from None


def cause_of(group: ExceptionGroup) -> Exception:
    """What can be said to an operator in one line; the group itself, if there is more to it."""
    cause: Exception = group
    while isinstance(cause, ExceptionGroup):
        if len(cause.exceptions) > 1:
            return group
        cause = cause.exceptions[0]
    return cause if isinstance(cause, Error | OSError) else group


def allow_many_files() -> None:
    """An attached program takes eight descriptors, and what a shell or systemd allows is often 1024.

    What containers are allowed is inherited from us; it is not to be without any bound, as some programs go
    through all.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def new_loop() -> asyncio.AbstractEventLoop:
    loop = Loop()
    if sys.version_info < (3, 12):  # else a thread waits for each child; later ones do so by themselves
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(loop)
        asyncio.set_child_watcher(watcher)
    return loop


@click.command()
@click.option("--logfile", type=click.Path(path_type=Path), help="Also write the log to this file.")
@click.option("--group", help="Group that may use the local socket.")
@click.option("--verbose", "-v", is_flag=True, help="Log what an operator would tell a colleague.")
@click.option("--debug", "-d", is_flag=True, help="Log everything.")
@click.option(
    "--fake-gpus",
    type=click.Path(path_type=Path),
    envvar="LXDPY_FAKE_GPUS",
    help="Made-up GPUs, from this YAML file, instead of the host's.",
)
@click.option(
    "--hardware",
    type=click.Path(path_type=Path),
    envvar="LXDPY_HARDWARE",
    help="Folder with sys and dev, in which USB devices are looked for instead of the host's; for tests.",
)
@click.version_option(VERSION)
def cli(
    logfile: Path | None,
    group: str | None,
    verbose: bool,
    debug: bool,
    fake_gpus: Path | None,
    hardware: Path | None,
) -> None:
    """The lxdpy daemon: stays in the foreground; state is below $LXD_DIR."""
    logs.set_up(file=logfile, verbose=verbose, debug=debug)
    root = lxd_dir()
    try:
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        lock = only_one(root)
        allow_many_files()
        heap.tidy()
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main(root, Options(group, fake_gpus, hardware)))
        os.close(lock)
    except (Error, OSError) as failure:
        print(f"Error: {failure}", file=sys.stderr)
        if isinstance(failure, Damaged):
            print("While the others go on, `lxdpy cluster rejoin` begins anew.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    cli()
