import json
from pathlib import Path

import pytest

from lxdpy.host.gpu import cdi
from lxdpy.host.gpu.fake_cdi import specs
from lxdpy.host.gpu.fake_spec import parse
from lxdpy.host.gpu.fake_tree import majors, numbered, tree
from lxdpy.host.gpu.inventory import discover
from lxdpy.host.paths import HostRoot, under
from tests.lxdpy.host.gpu.trees import make

CARDS = """
gpus:
- {vendor: nvidia, uuid: GPU-one, pci: "0000:01:00.0"}
- {vendor: nvidia, uuid: GPU-cut, pci: "0000:02:00.0", mig: [1g.5gb, 1g.5gb]}
- {vendor: amd, uuid: 9f3c0e1d2b4a5968, pci: "0000:83:00.0"}
- {vendor: intel, pci: "0000:84:00.0"}
cdi: true
"""


def host(folder: Path) -> HostRoot:
    """With these cards, and their vendors' specs."""
    cards = parse(CARDS, "n1").gpus
    numbers = numbered(cards, {})
    make(folder, tree(cards, numbers, majors(())) | specs(cards, numbers))
    return under(folder)


def spec(folder: Path, where: str, name: str, version: str = "0.6.0", kind: str = "nvidia.com/gpu") -> Path:
    file = folder / where
    file.parent.mkdir(parents=True, exist_ok=True)
    device = {"name": name, "containerEdits": {"env": [f"FROM={where}"], "deviceNodes": [{"path": "/dev/a"}]}}
    file.write_text(json.dumps({"cdiVersion": version, "kind": kind, "devices": [device]}))
    return file


def test_specs_of_all_vendors_are_read_in_both_forms_from_both_folders(tmp_path: Path) -> None:
    found = sorted(cdi.devices(host(tmp_path)))
    assert [name for name in found if name.startswith("nvidia")] == [
        "nvidia.com/gpu=0", "nvidia.com/gpu=1:0", "nvidia.com/gpu=1:1", "nvidia.com/gpu=GPU-one",
        "nvidia.com/gpu=all",
    ]  # fmt: skip
    assert {"amd.com/gpu=0", "amd.com/gpu=all", "intel.com/gpu=0"} < set(found)


def test_a_card_and_its_parts_go_by_the_names_that_bring_them(tmp_path: Path) -> None:
    one, cut, amd, intel = discover(host(tmp_path), "n1")
    assert one.cdi == ("nvidia.com/gpu=0", "nvidia.com/gpu=GPU-one", "nvidia.com/gpu=all")
    assert (cut.cdi, [part.cdi for part in cut.mig]) == (
        (),
        [("nvidia.com/gpu=1:0",), ("nvidia.com/gpu=1:1",)],
    )
    assert "amd.com/gpu=9f3c0e1d2b4a5968" in amd.cdi
    assert "intel.com/gpu=0" in intel.cdi


def test_the_later_folder_wins(tmp_path: Path) -> None:
    spec(tmp_path, "etc/cdi/a.json", "0")
    spec(tmp_path, "var/run/cdi/b.yaml", "0")
    assert cdi.devices(under(tmp_path))["nvidia.com/gpu=0"].env == ("FROM=var/run/cdi/b.yaml",)


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    file = spec(tmp_path, "etc/cdi/a.json", "0")
    assert list(cdi.devices(under(tmp_path))) == ["nvidia.com/gpu=0"]
    spec(tmp_path, "etc/cdi/a.json", "GPU-longer")
    assert list(cdi.devices(under(tmp_path))) == ["nvidia.com/gpu=GPU-longer"]
    file.unlink()
    assert cdi.devices(under(tmp_path)) == {}


@pytest.mark.parametrize("version", cdi.VERSIONS)
def test_all_versions_are_read_that_specs_are_written_in(tmp_path: Path, version: str) -> None:
    assert cdi.read(spec(tmp_path, "a.json", "0", version)).devices[0].name == "0"


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ('{"cdiVersion": "9.0.0", "kind": "nvidia.com/gpu"}', '"9.0.0" is not one of 0.3.0, '),
        ('{"kind": "nvidia.com/gpu"}', "missing required field `cdiVersion`"),
        ("{", "expected"),
        ("[1]", "Expected `object`"),
    ],
)
def test_a_bad_file_is_told_of_and_does_not_hide_the_others(tmp_path: Path, written: str, why: str) -> None:
    spec(tmp_path, "etc/cdi/a.json", "0")
    bad = tmp_path / "etc/cdi/b.json"
    bad.write_text(written)
    with pytest.raises(ValueError, match=why.replace("[", r"\[")):
        cdi.read(bad)
    assert list(cdi.devices(under(tmp_path))) == ["nvidia.com/gpu=0"]


def test_kinds_that_are_no_gpus_are_left_alone(tmp_path: Path) -> None:
    spec(tmp_path, "etc/cdi/a.json", "0", kind="acme.com/nic")
    assert cdi.devices(under(tmp_path)) == {}
