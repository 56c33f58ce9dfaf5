"""Which lifecycle events a request gives rise to."""

import msgspec

from cluster.state.command import Command
from lxdpy.resources.gpus.commands import DrainGpu, ReportGpus
from lxdpy.resources.gpus.model import GpuRow
from lxdpy.resources.images.commands import AddImage, DeleteImage, HoldImage, UseImage
from lxdpy.resources.images.model import Image
from lxdpy.resources.lifecycle import all_events
from lxdpy.resources.networks.commands import CreateNetwork, SetNetworkMember
from lxdpy.resources.networks.model import Network, NetworkMember
from lxdpy.resources.profiles.commands import CreateProfile
from lxdpy.resources.profiles.model import Profile
from lxdpy.resources.projects.commands import CreateProject, DeleteProject, RenameProject, UpdateProject
from lxdpy.resources.projects.model import Project
from lxdpy.resources.server.commands import ConfigureServer, CreateDefaults
from tests.lxdpy.fakes import MEMBER_ID, LocalStore


def told(*commands: Command) -> list[tuple[str, str, str]]:
    """Action, URL and project of the events of the last command."""
    store, heard = LocalStore(), []
    store.run(CreateDefaults())
    store.watch(lambda applied: heard.append(applied.changes))
    for command in commands:
        store.run(command)
    return [(event.action, event.source, event.project) for event in all_events(heard[-1])]


def test_a_projects_events_are_its_own_and_not_its_default_profiles() -> None:
    with_own = Project("p", config={"features.profiles": "true"})
    created = CreateProject(with_own)
    assert told(created) == [("project-created", "/1.0/projects/p", "p")]
    assert told(created, UpdateProject("p", "", {})) == [("project-updated", "/1.0/projects/p", "p")]
    assert told(created, RenameProject("p", "q")) == [("project-renamed", "/1.0/projects/q", "q")]
    assert told(created, DeleteProject("p")) == [("project-deleted", "/1.0/projects/p", "p")]
    profile = CreateProfile(Profile("p", "gpus"))
    assert told(created, profile) == [("profile-created", "/1.0/profiles/gpus?project=p", "p")]


def test_a_request_that_changes_several_settings_is_told_once() -> None:
    changed = ConfigureServer({"user.a": "1", "user.b": "2"}, MEMBER_ID, {"core.https_address": ":8443"})
    assert told(changed) == [("config-updated", "/1.0", "default")]


def test_what_members_report_of_a_network_is_not_told() -> None:
    parts = {MEMBER_ID: NetworkMember()}
    created = CreateNetwork(Network("default", "br0", members=parts))
    assert told(created) == [("network-created", "/1.0/networks/br0", "default")]
    assert told(created, SetNetworkMember("default/br0", MEMBER_ID, NetworkMember(status="Created"))) == []


def test_cards_are_told_to_come_fail_and_go_but_not_who_holds_them() -> None:
    card = GpuRow("GPU-1", MEMBER_ID, "nvidia", "A100", 40 << 30)
    came = ReportGpus(MEMBER_ID, (card,))
    failed = ReportGpus(MEMBER_ID, (msgspec.structs.replace(card, health="failed", reason="XID 79"),))
    assert told(came) == [("gpu-added", "/1.0/gpus/GPU-1", "default")]
    assert told(came, failed) == [("gpu-updated", "/1.0/gpus/GPU-1", "default")]
    assert told(came, DrainGpu("GPU-1", True)) == [("gpu-updated", "/1.0/gpus/GPU-1", "default")]
    assert told(came, ReportGpus(MEMBER_ID, ())) == [("gpu-removed", "/1.0/gpus/GPU-1", "default")]
    moved = ReportGpus(MEMBER_ID, (msgspec.structs.replace(card, pci_address="0000:07:00.0"),))
    assert told(came, moved) == []


def test_who_has_an_images_files_or_uses_it_is_not_told() -> None:
    came, key = AddImage(Image("default", "f1")), "default/f1"
    assert [action for action, *_ in told(came)] == ["image-created"]
    assert told(came, HoldImage(key, MEMBER_ID)) == []
    assert told(came, UseImage(key)) == []
    assert [action for action, *_ in told(came, DeleteImage(key))] == ["image-deleted"]
