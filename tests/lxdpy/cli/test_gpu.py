import json

from tests.lxdpy.cli.server import Cli

HOLDER = {"project": "default", "instance": "c1", "device": "gpu", "sharing": "exclusive", "memory": 0}


def _gpu(uuid: str, *holders: dict[str, object]) -> dict[str, object]:
    return {
        "uuid": uuid, "member": "n1", "model": "NVIDIA A100", "memory": 40 << 30, "health": "ok",
        "pci_address": "0000:07:00.0", "state": "exclusive" if holders else "free", "holders": list(holders),
        "mig": [],
    }  # fmt: skip


def test_a_table_shows_who_holds_what_and_uncut_uuids(lxdpy: Cli) -> None:
    long = "GPU-11111111-1111-1111-1111-111111111111"
    others = {**HOLDER, "project": "lab", "instance": "c2", "memory": 8 << 30, "sharing": "shared"}
    hidden = {**HOLDER, "project": "", "instance": ""}
    lxdpy.server.answers["GET /1.0/gpus"] = [_gpu(long, HOLDER, others, hidden), _gpu("GPU-2")]
    printed = lxdpy.ok("gpu", "list")
    for word in (long, "40GiB", "EXCLUSIVE", "FREE", " c1 ", "lab/c2 (8GiB)", "(another project)"):
        assert word in printed


def test_mig_devices_stand_below_their_card(lxdpy: Cli) -> None:
    part = {
        "uuid": "MIG-1", "profile": "1g.5gb", "gi": 7, "ci": 0, "memory": 5 << 30, "state": "exclusive",
        "holders": [HOLDER],
    }  # fmt: skip
    lxdpy.server.answers["GET /1.0/gpus"] = [_gpu("GPU-1") | {"mig": [part], "state": "partitioned"}]
    lines = lxdpy.ok("gpu", "list").splitlines()
    assert [
        any("PARTITIONED" in line for line in lines),
        any("1g.5gb (gi 7, ci 0)" in line for line in lines),
    ]
    assert lxdpy.ok("gpu", "drain", "MIG") == "GPU MIG-1 is drained\n"


def test_json_is_what_the_server_said(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0/gpus"] = [_gpu("GPU-1", HOLDER)]
    assert json.loads(lxdpy.ok("gpu", "list", "--format", "json")) == [_gpu("GPU-1", HOLDER)]


def test_no_gpus_are_an_empty_table(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0/gpus"] = []
    assert "UUID" in lxdpy.ok("gpu", "list")


def test_the_beginning_of_a_uuid_is_enough(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0/gpus"] = [_gpu("GPU-ab"), _gpu("GPU-cd")]
    assert lxdpy.ok("gpu", "drain", "GPU-c") == "GPU GPU-cd is drained\n"
    assert lxdpy.ok("gpu", "enable", "GPU-cd") == "GPU GPU-cd can be granted\n"
    assert [(one.path, one.body) for one in lxdpy.server.changes()] == [
        ("/1.0/gpus/GPU-cd", {"state": "drain"}),
        ("/1.0/gpus/GPU-cd", {"state": "enable"}),
    ]


def test_several_or_no_gpus_are_not_guessed_at(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0/gpus"] = [_gpu("GPU-ab"), _gpu("GPU-abc")]
    assert lxdpy.fails("gpu", "drain", "GPU-") == "Error: Several GPUs begin with GPU-: GPU-ab, GPU-abc"
    assert lxdpy.fails("gpu", "drain", "x") == "Error: GPU not found: x"
    assert lxdpy.server.changes() == []
    lxdpy.ok("gpu", "drain", "GPU-ab")


def test_one_gpu_is_shown_as_yaml(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0/gpus"] = [_gpu("GPU-1", HOLDER)]
    lxdpy.server.answers["GET /1.0/gpus/GPU-1"] = _gpu("GPU-1", HOLDER)
    assert "uuid: GPU-1\nmember: n1\n" in lxdpy.ok("gpu", "show", "GPU")


def test_hours_are_shown_by_project_and_instance(lxdpy: Cli) -> None:
    seconds = {"exclusive_seconds": 5400.0, "shared_seconds": 0.0, "mig_seconds": 36.0, "held": 1}
    lxdpy.server.answers["GET /1.0/gpu-usage"] = {
        "projects": [{"name": "lab", "limit": 4, **seconds}],
        "instances": [{"project": "lab", "instance": "c1", "until": "2027-01-15T08:00:00Z", **seconds}],
        "index": 7,
    }
    printed = lxdpy.ok("gpu", "usage")
    for word in ("1 of 4", "1.50", "0.01", " c1 ", "(all)", "2027"):
        assert word in printed
    assert json.loads(lxdpy.ok("gpu", "usage", "-f", "json"))["index"] == 7


ANSWER = {
    "member": "n1", "gpus": {"gpu": ["GPU-1"]}, "why_not": "", "policy": "spread", "index": 9,
    "quota": {"limit": -1, "held": 0, "wanted": 1},
    "members": [
        {"name": "n1", "why_not": "", "gpus": [
            {"uuid": "GPU-1", "pci_address": "07", "model": "A100", "state": "free", "devices": {"gpu": ""}},
            {"uuid": "GPU-2", "pci_address": "08", "model": "A100", "state": "exclusive",
             "devices": {"gpu": "GPU 08 is held exclusively by c1"}},
        ]},
        {"name": "n2", "why_not": "offline", "gpus": []},
    ],
}  # fmt: skip


def test_a_placement_is_explained_member_by_member_and_card_by_card(lxdpy: Cli) -> None:
    lxdpy.server.answers["POST /1.0/instances"] = ANSWER
    printed = lxdpy.ok("gpu", "explain", "--match", "vendor=nvidia", "--shared")
    for word in ("On n1 (policy spread)", "CHOSEN", "held exclusively by c1", "offline"):
        assert word in printed
    [asked] = lxdpy.server.changes()
    assert asked.body["config"] == {
        "limits.gpu": "1", "gpu.match": "vendor=nvidia", "gpu.sharing": "shared",
    }  # fmt: skip
    lxdpy.server.answers["POST /1.0/instances"] = {
        **ANSWER,
        "member": "",
        "gpus": {},
        "why_not": "No member fits",
    }
    assert lxdpy.ok("gpu", "explain").startswith("Nowhere: No member fits\n")


def test_what_an_instance_would_get_is_asked_with_its_own_config(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0/instances/c1"] = {
        "expanded_config": {"limits.gpu": "2", "volatile.uuid": "x"},
        "expanded_devices": {"root": {"type": "disk", "path": "/"}, "gpu": {"type": "gpu", "count": "2"}},
    }
    lxdpy.server.answers["POST /1.0/instances"] = ANSWER
    lxdpy.ok("gpu", "explain", "c1", "-n", "4")
    [asked] = lxdpy.server.changes()
    assert asked.body["config"] == {"limits.gpu": "4"}
    assert (list(asked.body["devices"]), asked.body["profiles"]) == (["root"], [])


def test_top_shows_what_is_known_of_each_card(lxdpy: Cli) -> None:
    figures = {"busy": 0.25, "memory_used": 2 << 30, "temperature": 41.0, "power": 70.4, "processes": 3}
    lxdpy.server.answers["GET /1.0/gpus"] = [
        _gpu("GPU-1", HOLDER, {**HOLDER, "project": "lab"}) | {"figures": figures},
        _gpu("GPU-2") | {"figures": None},
    ]
    printed = lxdpy.ok("gpu", "top", "--once")
    for word in ("25 %", "2GiB of 40GiB", "41 °C", "70 W", " 3 ", " c1 ", "lab/c1", "- of 40GiB"):
        assert word in printed


def test_a_running_instances_gpus_are_parked_and_had_again(lxdpy: Cli) -> None:
    for action in ("park", "unpark", "renew"):
        lxdpy.server.answers["POST /1.0/instances/c1/gpu"] = {}
        assert "c1" in lxdpy.ok("gpu", action, "c1")
