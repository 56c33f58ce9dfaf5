"""What a project may have: limits and restrictions, at every change. Texts are those LXD 5.0.2 gave."""

from typing import Any

import pytest

from cluster.errors import Error
from cluster.state.command import Command
from lxdpy.resources.gpus.commands import Grant, ReportGpus
from lxdpy.resources.gpus.model import GPUS, GpuRow
from lxdpy.resources.instances.commands import CreateInstance, StartInstance, UpdateInstance
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.networks.commands import CreateNetwork
from lxdpy.resources.networks.model import Network, NetworkMember
from lxdpy.resources.profiles.commands import CreateProfile, UpdateProfile
from lxdpy.resources.profiles.model import Profile
from lxdpy.resources.projects.commands import CreateProject, UpdateProject
from lxdpy.resources.projects.limits import instances_of, usage
from lxdpy.resources.projects.model import PROJECTS, Project
from lxdpy.resources.projects.permitted import check_target
from lxdpy.resources.server.commands import CreateDefaults
from lxdpy.resources.storage_pools.model import POOLS, Pool
from tests.lxdpy.fakes import MEMBER_ID, LocalStore

ROOT = {"root": {"type": "disk", "path": "/", "pool": "default"}}
OWN = {"features.profiles": "true"}
Config = dict[str, str]


class Scene:
    """A project `q`, with profiles of its own, and a member with two GPUs."""

    def __init__(self, **config: str) -> None:
        self.store = LocalStore()
        self.store.run(CreateDefaults())
        self.store.put(POOLS, "default", Pool("default", "dir", status="Created"))
        cards = tuple(GpuRow(f"g{n}", MEMBER_ID, "nvidia", "A100", 40 << 30) for n in (1, 2))
        self.store.run(ReportGpus(MEMBER_ID, cards))
        self.store.run(CreateProject(Project("q", config=OWN | dotted(config))))

    def create(self, name: str, *gpus: str, project: str = "q", **config: str) -> None:
        row = Instance(project, name, name, MEMBER_ID, config=dotted(config), devices=ROOT, pool="default")
        grants = tuple(Grant("gpu", uuid) for uuid in gpus)
        self.store.run(CreateInstance(row, grants))

    def configure(self, **config: str) -> None:
        self.store.run(UpdateProject("q", "", OWN | dotted(config)))

    def refused(self, command: Command) -> str:
        """Why; nothing is changed then."""
        before = self.store.state.tables
        with pytest.raises(Error) as refusal:
            self.store.run(command)
        assert self.store.state.tables == before
        assert refusal.value.kind == "forbidden"
        return refusal.value.message


def dotted(config: dict[str, Any]) -> Config:
    return {key.replace("_", "."): value for key, value in config.items()}


def instance(name: str, project: str = "q", **config: str) -> CreateInstance:
    return CreateInstance(
        Instance(project, name, name, MEMBER_ID, config=dotted(config), devices=ROOT, pool="default")
    )


def update(config: Config, devices: dict[str, Config] | None = None) -> UpdateInstance:
    return UpdateInstance("q/c1", "", config, ROOT | (devices or {}), (), False)


def test_instances_are_counted() -> None:
    scene = Scene(limits_instances="1")
    scene.create("c1")
    assert scene.refused(instance("c2")) == 'Reached maximum number of instances in project "q"'
    scene.create("c2", project="default")
    scene.configure(limits_containers="1")
    why = 'Reached maximum number of instances of type "container" in project "q"'
    assert scene.refused(instance("c2")) == why
    said = scene.refused(UpdateProject("q", "", OWN | {"limits.instances": "0"}))
    assert said == (
        'Can\'t change limits.instances in project "q": "limits.instances" is too low: '
        'there currently are 1 total instances in project "q"'
    )


@pytest.mark.parametrize(
    ("key", "most", "half", "more", "shown"),
    [
        ("limits.memory", "1GiB", "512MiB", "513MiB", "1.00GiB"),
        ("limits.cpu", "4", "2", "3", "4"),
        ("limits.processes", "100", "50", "51", "100"),
    ],
)
def test_sums_are_kept_and_everybody_has_to_say_its_part(
    key: str, most: str, half: str, more: str, shown: str
) -> None:
    scene = Scene()
    limited = UpdateProject("q", "", OWN | {key: most})
    scene.create("c0")
    why = f'Instance "c0" in project "q" has no "{key}" config, either directly or via a profile'
    assert scene.refused(limited) == why
    scene.store.run(UpdateInstance("q/c0", "", {key: half}, ROOT, (), False))
    scene.store.run(limited)
    over = f'Reached maximum aggregate value "{most}" for "{key}" in project "q"'
    assert scene.refused(instance("c1", **{key: more})) == over
    scene.create("c1", **{key: half})
    assert scene.refused(update({key: more})) == over
    low = scene.refused(UpdateProject("q", "", OWN | {key: half}))
    assert f'is too low: current total is "{shown}"' in low


def test_a_share_of_the_host_is_no_amount() -> None:
    scene = Scene(limits_memory="1GiB")
    why = scene.refused(instance("c1", limits_memory="50%"))
    assert why.startswith('Failed parsing "limits.memory" for instance "c1" in project "q"')


def test_a_limited_disk_takes_a_size_of_the_root_disk() -> None:
    scene = Scene(limits_disk="10GiB")
    why = scene.refused(instance("c1"))
    assert why == (
        'Instance "c1" in project "q" has no "size" config set on the root device either directly or '
        "via a profile"
    )
    row = Instance(
        "q", "c1", "c1", MEMBER_ID, devices={"root": ROOT["root"] | {"size": "6GiB"}}, pool="default"
    )
    scene.store.run(CreateInstance(row))
    assert usage(scene.store.state, "q", instances_of(scene.store.state, "q"))["disk"] == 6 << 30


def test_what_profiles_say_counts() -> None:
    scene = Scene(limits_memory="1GiB")
    scene.store.run(UpdateProfile("q/default", "", {"limits.memory": "600MiB"}, {}))
    row = Instance("q", "c1", "c1", MEMBER_ID, devices=ROOT, profiles=("default",), pool="default")
    scene.store.run(CreateInstance(row))
    why = scene.refused(UpdateProfile("q/default", "", {"limits.memory": "2GiB"}, {}))
    assert why == 'Reached maximum aggregate value "1GiB" for "limits.memory" in project "q"'


def test_profiles_of_the_default_project_count_where_they_are_used() -> None:
    scene = Scene()
    scene.store.put(PROJECTS, "r", Project("r", config={"restricted": "true"}))
    row = Instance("r", "c1", "c1", MEMBER_ID, devices=ROOT, profiles=("default",), pool="default")
    scene.store.run(CreateInstance(row))
    why = scene.refused(UpdateProfile("default/default", "", {"security.nesting": "true"}, {}))
    assert why == (
        'Invalid value "true" for config "security.nesting" on container "c1" of project "r": '
        "Container nesting is forbidden"
    )


def test_gpus_are_counted_as_they_are_granted() -> None:
    scene = Scene(limits_gpu="1")
    scene.create("c1", "g1")
    over = 'Reached maximum aggregate value "1" for "limits.gpu" in project "q"'
    row = Instance("q", "c2", "c2", MEMBER_ID, devices=ROOT, pool="default")
    assert scene.refused(CreateInstance(row, (Grant("gpu", "g2"),))) == over
    scene.store.run(CreateInstance(row))
    assert scene.refused(StartInstance("q/c2", MEMBER_ID, (Grant("gpu", "g2"),))) == over
    assert not scene.store.state.get(GPUS, "g2").holders


def test_networks_are_counted() -> None:
    scene = Scene(limits_networks="0", features_networks="true")
    new = Network("q", "br0", members={MEMBER_ID: NetworkMember()})
    assert scene.refused(CreateNetwork(new)) == "Networks limit has been reached for project"


REFUSED_CONFIG = {
    ("security.nesting", "true"): "Container nesting is forbidden",
    ("security.privileged", "true"): "Privileged containers are forbidden",
    ("security.syscalls.intercept.mknod", "true"): "Container syscall interception is forbidden",
    ("security.syscalls.intercept.mount", "true"): "Container syscall interception is forbidden",
    ("security.syscalls.intercept.bpf", "true"): "Container syscall interception is forbidden",
    ("security.syscalls.intercept.bpf.devices", "true"): "Container syscall interception is forbidden",
    ("security.syscalls.intercept.mount.fuse", "ext4=fuse2fs"): "Container syscall interception is forbidden",
}


def test_a_restricted_projects_containers_stay_what_they_are() -> None:
    scene = Scene(restricted="true")
    scene.create("c1")
    for (key, value), why in REFUSED_CONFIG.items():
        said = scene.refused(update({key: value}))
        assert said == f'Invalid value "{value}" for config "{key}" on container "c1" of project "q": {why}'
        scene.store.run(update({key: "" if "=" in value else "false"}))
    for key in (
        "raw.lxc", "raw.seccomp", "boot.host_shutdown_timeout", "linux.kernel_modules", "security.idmap.base",
        "security.syscalls.intercept.mount.allowed",
    ):  # fmt: skip
        said = scene.refused(update({key: "1"}))
        assert said == f'Use of low-level config "{key}" on container "c1" of project "q" is forbidden'
    for key in ("limits.memory", "security.syscalls.deny", "user.a", "security.idmap.isolated"):
        scene.store.run(update({key: "1"}))


def test_only_ids_of_the_project_may_be_mapped() -> None:
    scene = Scene(restricted="true")
    scene.create("c1")
    said = 'Use of low-level "raw.idmap" element 0 on container "c1" of project "q" is forbidden'
    assert scene.refused(update({"raw.idmap": "both 1000 1000"})) == said
    scene.configure(
        **{"restricted": "true", "restricted.idmap.uid": "1000-1010", "restricted.idmap.gid": "1000"}
    )
    scene.store.run(update({"raw.idmap": "both 1000 1000\nuid 1005 5"}))
    assert scene.refused(update({"raw.idmap": "uid 1005-1020 0-15"})) == said
    assert scene.refused(update({"raw.idmap": "gid 1001 0"})) == said


@pytest.mark.parametrize(
    ("device", "key", "why"),
    [
        ({"type": "gpu"}, "devices.gpu", "GPU devices are forbidden"),
        ({"type": "unix-char"}, "devices.unix-char", "Unix character devices are forbidden"),
        ({"type": "usb"}, "devices.usb", "USB devices are forbidden"),
        ({"type": "proxy"}, "devices.proxy", "Proxy devices are forbidden"),
        ({"type": "nic", "nictype": "p2p"}, "devices.nic", "Only managed network devices are allowed"),
        ({"type": "disk", "source": "/tmp", "path": "/m"}, "devices.disk",
         "Attaching disks not backed by a pool is forbidden"),
    ],
)  # fmt: skip
def test_devices_that_reach_the_host_take_leave(device: Config, key: str, why: str) -> None:
    scene = Scene(restricted="true")
    scene.create("c1")
    said = f'Invalid device "d" on container "c1" of project "q": {why}'
    assert scene.refused(update({}, {"d": device})) == said
    scene.configure(**{"restricted": "true", f"restricted.{key}": "allow"})
    scene.store.run(update({}, {"d": device}))
    blocked = UpdateProject("q", "", OWN | {"restricted": "true", f"restricted.{key}": "block"})
    assert "forbidden" in scene.refused(blocked)


def test_disks_and_networks_may_be_told_one_by_one() -> None:
    scene = Scene(restricted="true")
    scene.create("c1")
    scene.configure(
        **{
            "restricted": "true",
            "restricted.devices.disk": "allow",
            "restricted.devices.disk.paths": "/srv,/opt/a",
        },
        **{"restricted.networks.access": "br0"},
    )
    for source in ("/srv", "/srv/x", "/opt/a/b"):
        scene.store.run(update({}, {"d": {"type": "disk", "source": source, "path": "/m"}}))
    for source in ("/srvx", "/opt", "/"):
        said = scene.refused(update({}, {"d": {"type": "disk", "source": source, "path": "/m"}}))
        assert said.endswith(f': Disk source path "{source}" not allowed')
    scene.store.run(update({}, {"n": {"type": "nic", "network": "br0"}}))
    said = scene.refused(update({}, {"n": {"type": "nic", "network": "br1"}}))
    assert said.endswith(": Network not allowed in project")


def test_profiles_of_a_restricted_project_are_looked_at_too() -> None:
    scene = Scene(restricted="true")
    said = scene.refused(CreateProfile(Profile("q", "x", devices={"g": {"type": "gpu"}})))
    assert said == 'Invalid device "g" on profile "x" of project "q": GPU devices are forbidden'


def test_who_is_restricted_chooses_a_member_only_where_that_is_allowed() -> None:
    scene = Scene(restricted="true")
    for config, target, refused in (
        ({}, "n1", True),
        ({}, "", False),
        ({"restricted.cluster.target": "allow"}, "n1", False),
        ({"restricted.cluster.groups": "gpus"}, "n1", True),
        ({"restricted.cluster.groups": "gpus"}, "@gpus", False),
        ({"restricted.cluster.groups": "gpus"}, "@others", True),
    ):
        scene.configure(**{"restricted": "true"} | config)
        if refused:
            with pytest.raises(Error, match="doesn't allow cluster member targeting"):
                check_target(scene.store.state, "q", target)
        else:
            check_target(scene.store.state, "q", target)
    check_target(scene.store.state, "default", "n1")


def test_what_is_no_limit_costs_nothing() -> None:
    scene = Scene()
    scene.create("c1", **{"security.privileged": "true"})
    assert list(scene.store.state.rows(INSTANCES)) == ["q/c1"]
