import os
from pathlib import Path

import pytest

from cluster.errors import Error, Invalid, NotFound, Unavailable, Unsupported
from lxdpy.host.gpu.fake import FakeGpus
from lxdpy.host.gpu.fake_products import MACHINES
from lxdpy.host.gpu.fake_spec import parse
from lxdpy.host.gpu.fake_tree import Char, majors, numbered, tree
from lxdpy.host.gpu.inventory import Gpu, control_nodes, discover
from lxdpy.host.gpu.resources import resources
from tests.lxdpy.host.gpu.trees import link_to_null

GIB = 2**30


def _fake(folder: Path, written: str, member: str = "n1") -> FakeGpus:
    (folder / "gpus.yaml").write_text(written)
    return FakeGpus(folder / "gpus.yaml", folder / "fake", member, link_to_null)


def _gpus(folder: Path, written: str, member: str = "n1") -> tuple[Gpu, ...]:
    fake = _fake(folder, written, member)
    assert fake.refresh()
    return discover(fake.root, member)


def _rewrite(folder: Path, written: str) -> None:
    """With another mtime, however coarse the file system's clock."""
    path = folder / "gpus.yaml"
    before = path.stat().st_mtime_ns
    path.write_text(written)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_a_vendor_is_all_that_needs_saying(tmp_path: Path) -> None:
    found = _gpus(tmp_path, "gpus: [{vendor: nvidia, count: 2}, {vendor: amd}, {vendor: intel}]")
    assert [(gpu.vendor, gpu.model, gpu.memory // GIB, gpu.driver) for gpu in found] == [
        ("nvidia", "NVIDIA A100-SXM4-40GB", 40, "nvidia"),
        ("nvidia", "NVIDIA A100-SXM4-40GB", 40, "nvidia"),
        ("amd", "AMD Instinct MI210", 64, "amdgpu"),
        ("intel", "Intel Data Center GPU Flex 170", 16, "i915"),
    ]
    assert len({gpu.uuid for gpu in found}) == 4
    assert all(gpu.nodes and gpu.health == "ok" for gpu in found)


def test_everything_can_be_said(tmp_path: Path) -> None:
    (gpu, *_rest) = _gpus(
        tmp_path,
        """
        gpus:
          - {vendor: nvidia, model: Tesla T4, memory: 15GiB, pci: "0000:07:00.0", uuid: GPU-1, numa: 1,
             mig: [1g.5gb, 2g.10gb], links: {GPU-2: nvlink}, health: suspect, busy: 0.9}
          - {vendor: nvidia, uuid: GPU-2, xid: 79}
          - {vendor: intel, model: Max 1550, uuid: mine}
          - {vendor: amd, uuid: Not-Hex}
        """,
    )
    assert (gpu.uuid, gpu.model, gpu.memory, gpu.pci_address, gpu.numa_node, gpu.product_id) == (
        "GPU-1", "Tesla T4", 15 * GIB, "0000:07:00.0", 1, "1eb8",
    )  # fmt: skip
    assert (gpu.links, gpu.health) == ({"GPU-2": "nvlink"}, "suspect")
    assert [(part.profile, part.gi, part.memory // GIB) for part in gpu.mig] == [
        ("1g.5gb", 1, 5), ("2g.10gb", 2, 10),
    ]  # fmt: skip
    assert {other.uuid: other.health for other in _rest} == {"GPU-2": "failed", "mine": "ok", "Not-Hex": "ok"}
    assert next(other.driver for other in _rest if other.uuid == "mine") == "xe"


def test_made_up_names_are_the_same_each_time_and_never_another_members(tmp_path: Path) -> None:
    written = "gpus: [{vendor: nvidia, count: 8}, {vendor: amd, count: 8}, {vendor: intel, count: 8}]"
    names = {}
    for place, member in enumerate(("n1", "n1", "n2")):
        folder = tmp_path / str(place)
        folder.mkdir()
        names[place] = {gpu.uuid for gpu in _gpus(folder, written, member)}
    assert names[0] == names[1]
    assert len(names[0] | names[2]) == 48


def test_an_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    fake = _fake(tmp_path, "gpus: [{vendor: nvidia}]")
    assert [fake.refresh(), fake.refresh()] == [True, False]
    _rewrite(tmp_path, "gpus: [{vendor: nvidia, health: failed}]")
    assert [fake.refresh(), fake.refresh()] == [True, False]
    assert discover(fake.root, "n1")[0].health == "failed"


def test_removing_an_entry_loses_that_card_and_keeps_the_others_device_files(tmp_path: Path) -> None:
    fake = _fake(
        tmp_path, "gpus: [{vendor: nvidia, uuid: A}, {vendor: nvidia, uuid: B}, {vendor: amd, uuid: C}]"
    )
    fake.refresh()
    before = {gpu.uuid: [node.path for node in gpu.nodes] for gpu in discover(fake.root, "n1")}
    _rewrite(tmp_path, "gpus: [{vendor: nvidia, uuid: B}]")
    fake.refresh()
    after = {gpu.uuid: [node.path for node in gpu.nodes] for gpu in discover(fake.root, "n1")}
    assert after == {"B": before["B"]}
    assert not (fake.root.dev / "nvidia0").exists()
    assert not (fake.root.dev / "kfd").exists()
    assert [node.path for node in control_nodes(fake.root, frozenset({"amd"}))] == []
    _rewrite(tmp_path, "gpus: [{vendor: nvidia, uuid: B}, {vendor: nvidia, uuid: A}]  ")
    os.utime(tmp_path / "gpus.yaml", ns=(1, 1))
    fake.refresh()
    assert {gpu.uuid: [node.path for node in gpu.nodes] for gpu in discover(fake.root, "n1")} == {
        uuid: before[uuid] for uuid in "AB"
    }


def test_lowering_the_count_loses_the_last(tmp_path: Path) -> None:
    fake = _fake(tmp_path, "gpus: [{vendor: nvidia, count: 3}, {vendor: amd}]")
    fake.refresh()
    before = [gpu.uuid for gpu in discover(fake.root, "n1")]
    _rewrite(tmp_path, "gpus: [{vendor: nvidia, count: 2}, {vendor: amd}]")
    fake.refresh()
    assert [gpu.uuid for gpu in discover(fake.root, "n1")] == [*before[:2], before[3]]


def test_building_again_finds_nothing_to_do(tmp_path: Path) -> None:
    fake = _fake(tmp_path, "gpus: [{vendor: nvidia, count: 2}, {vendor: amd}]")
    fake.refresh()
    top = fake.root.sys.parent
    stamps = {
        path: path.lstat().st_mtime_ns for path in top.rglob("*") if not path.is_relative_to(fake.root.dev)
    }
    again = FakeGpus(tmp_path / "gpus.yaml", tmp_path / "fake", "n1", link_to_null)
    assert again.refresh()
    assert {path: path.lstat().st_mtime_ns for path in stamps} == stamps


def test_the_tree_is_in_lxds_resources_too(tmp_path: Path) -> None:
    fake = _fake(tmp_path, "gpus: [{vendor: nvidia}, {vendor: amd, numa: 1}]")
    fake.refresh()
    found = resources(fake.root)
    assert found["total"] == 2
    assert found["cards"][0]["nvidia"]["cuda_version"] == "12.4"
    assert found["cards"][0]["nvidia"]["architecture"] == "8.0"
    assert found["cards"][1]["numa_node"] == 1


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("gpus: [", "not YAML"),
        ("- 1", 'the key "gpus"'),
        ("gpu: []", 'the key "gpus"'),
        ("gpus: []\ncards: []", 'the key "gpus"'),
        ("gpus: []\nnvml: maybe", 'nvml: "maybe" is not true or false'),
        ("gpus: [{vendor: nvidia, profile: dgx-a100}]", "vendor is the profile's"),
        ("gpus: [{profile: dgx-9}]", 'profile: "dgx-9" is not one of dgx-a100, '),
        ("gpus: [{profile: dgx-a100, count: 2}]", "count is the profile's to say"),
        ("gpus: [{vendor: nvidia, mig: [4g.20gb, 4g.20gb]}]", "8 slices and 40GiB, a card has 7"),
        ("gpus: [{vendor: nvidia, memory: 8GiB, mig: [1g.5gb, 1g.5gb]}]", "10GiB, .* this one 8GiB"),
        ("gpus: [{vendor: nvidia, processes: [{memory: 1GiB}]}]", "processes"),
        ("gpus: [{vendor: nvidia}]\nfaults: [1]", '"faults" must be a mapping'),
        ("gpus: [{vendor: nvidia, uuid: A}]\nfaults: {B: {xid: 1}}", r'no GPU "B"; there are: .*\(A\)'),
        ("gpus: [{vendor: nvidia}]\nfaults: {0: {colour: red}}", r'faults\[0\]: unknown key "colour"'),
        ("gpus: 3", "must be a list"),
        ("gpus: [nvidia]", r"gpus\[0\]: must be a mapping"),
        ("gpus: [{count: 1}]", r"gpus\[0\]: vendor is missing"),
        ("gpus: [{vendor: matrox}]", r'gpus\[0\]: vendor: "matrox" is not one of nvidia, amd, intel'),
        (
            "gpus: [{vendor: nvidia}, {vendor: nvidia, colour: red}]",
            r'gpus\[1\]: unknown key "colour"; known',
        ),
        ("gpus: [{vendor: nvidia, count: -1}]", r'gpus\[0\]: count: "-1"'),
        ("gpus: [{vendor: nvidia, count: yes}]", r'gpus\[0\]: count: "True"'),
        ("gpus: [{vendor: nvidia, memory: lots}]", r'gpus\[0\]: memory: "lots" is not a size'),
        ("gpus: [{vendor: nvidia, memory: 0}]", r"gpus\[0\]: memory"),
        ("gpus: [{vendor: nvidia, pci: 0000:07:00.0}]", "PCI address in quotes"),
        ('gpus: [{vendor: nvidia, pci: "../../x"}]', "PCI address"),
        ("gpus: [{vendor: nvidia, uuid: a/b}]", r'gpus\[0\]: uuid: "a/b"'),
        ("gpus: [{vendor: nvidia, count: 2, uuid: x}]", "uuid names one GPU, so count must be 1, not 2"),
        ("gpus: [{vendor: nvidia, uuid: x}, {vendor: amd, uuid: x}]", "two GPUs have uuid x"),
        (
            'gpus: [{vendor: nvidia, pci: "00000000:07:00.0"}, {vendor: amd, pci: "0000:07:00.0"}]',
            "have pci 0000:07:00.0",
        ),
        ("gpus: [{vendor: nvidia, numa: left}]", r'numa: "left"'),
        ("gpus: [{vendor: nvidia, mig: 1g.5gb}]", "MIG profiles"),
        ("gpus: [{vendor: nvidia, mig: [big]}]", "MIG profiles"),
        ("gpus: [{vendor: nvidia, links: {GPU-1: rope}}]", "links"),
        ("gpus: [{vendor: nvidia, links: [GPU-1]}]", "links"),
        ("gpus: [{vendor: nvidia, health: fine}]", r'health: "fine" is not one of ok, suspect'),
        ("gpus: [{vendor: nvidia, xid: 12345}]", "xid"),
        ("gpus: [{vendor: nvidia, busy: 90}]", "busy"),
        ("gpus: [{vendor: nvidia, busy: .nan}]", "busy"),
        ("gpus: [{vendor: nvidia, count: 64}, {vendor: nvidia}]", "65 GPUs, a host has at most 64"),
    ],
)
def test_a_wrong_file_is_refused_by_entry_key_and_value(written: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        parse(written, "n1")


@pytest.mark.parametrize("written", ["", "gpus: []", "gpus: [{vendor: nvidia, count: 0}]"])
def test_a_file_may_name_no_gpus(tmp_path: Path, written: str) -> None:
    assert _gpus(tmp_path, written) == ()


def test_a_file_that_became_wrong_leaves_the_cards_there_were(tmp_path: Path) -> None:
    fake = _fake(tmp_path, "gpus: [{vendor: nvidia}]")
    fake.refresh()
    _rewrite(tmp_path, "gpus: [{vendor: none}]")
    with pytest.raises(Invalid):
        fake.refresh()
    assert fake.refresh() is False
    assert len(discover(fake.root, "n1")) == 1


def test_a_file_that_is_empty_is_about_to_be_written(tmp_path: Path) -> None:
    fake = _fake(tmp_path, "gpus: [{vendor: amd}]")
    assert fake.refresh()
    _rewrite(tmp_path, "")
    assert not fake.refresh()
    assert len(discover(fake.root, "n1")) == 1
    _rewrite(tmp_path, "gpus: []")
    assert fake.refresh()
    assert not discover(fake.root, "n1")


def test_a_file_that_is_written_again_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = _fake(tmp_path, "gpus: [{vendor: nvidia}]")
    read = Path.read_text

    def emptied(path: Path, *words: str, **more: str) -> str:
        if path.name == "gpus.yaml":
            path.write_text("")  # as whoever writes does first
        return read(path, *words, **more)

    for first in (True, False):
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(Path, "read_text", emptied)
            _rewrite(tmp_path, "gpus: [{vendor: nvidia, busy: 0.5}]")
            if first:
                with pytest.raises(Unavailable):
                    fake.refresh()
            else:
                assert not fake.refresh()
        assert fake.changed()
        _rewrite(tmp_path, "gpus: [{vendor: nvidia}]")
        assert fake.refresh()
        assert len(discover(fake.root, "n1")) == 1


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.yaml"):
        FakeGpus(tmp_path / "none.yaml", tmp_path / "fake", "n1").refresh()


def test_without_the_right_to_make_device_files_the_reason_is_given(tmp_path: Path) -> None:
    def denied(path: Path, device: Char) -> None:
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / "g.yaml").write_text("gpus: [{vendor: nvidia}]")
    with pytest.raises(Unsupported, match="device files: Operation not permitted"):
        FakeGpus(tmp_path / "g.yaml", tmp_path / "fake", "n1", denied).refresh()


def test_device_numbers_are_ones_without_a_driver() -> None:
    assert majors([])["nvidia"] == 195
    chosen = majors([1, 195, 226, 120])
    assert not {1, 195, 226, 120} & set(chosen.values())
    assert len(set(chosen.values())) == len(chosen)


def test_device_files_have_distinct_numbers() -> None:
    gpus = parse(
        "gpus: [{vendor: nvidia, count: 20, mig: [1g.5gb, 1g.5gb]}, {vendor: amd, count: 44}]", "n1"
    ).gpus
    found = tree(gpus, numbered(gpus, {}), majors([]))
    devices = [(entry.major, entry.minor) for entry in found.values() if isinstance(entry, Char)]
    assert len(devices) == len(set(devices)) > 128


def test_a_profile_is_a_whole_machine(tmp_path: Path) -> None:
    found = _gpus(tmp_path, "gpus: [{profile: dgx-a100, memory: 40GiB}]")
    assert [gpu.numa_node for gpu in found] == [3, 3, 1, 1, 7, 7, 5, 5]
    assert {gpu.memory for gpu in found} == {40 * GIB}
    everyone = {gpu.uuid for gpu in found}
    assert all(gpu.links == dict.fromkeys(everyone - {gpu.uuid}, "nvlink") for gpu in found)


def test_cards_without_nvlink_are_near_in_pairs_and_by_node(tmp_path: Path) -> None:
    first, second, *rest = _gpus(tmp_path, "gpus: [{profile: pcie-l4}]")
    assert first.links == {second.uuid: "pix", rest[0].uuid: "node", rest[1].uuid: "node"}


@pytest.mark.parametrize("profile", sorted(MACHINES))
def test_every_profile_can_be_made(tmp_path: Path, profile: str) -> None:
    found = _gpus(tmp_path, f"gpus: [{{profile: {profile}}}]")
    assert len(found) == len(MACHINES[profile].seats)
    assert [gpu.health for gpu in found] == ["ok"] * len(found)


def test_a_fault_is_of_one_card_by_uuid_address_or_place(tmp_path: Path) -> None:
    fake = _fake(tmp_path, "gpus: [{profile: dgx-h100}]")
    fake.refresh()
    uuids = [gpu.uuid for gpu in discover(fake.root, "n1")]
    _rewrite(
        tmp_path,
        f"""
        gpus: [{{profile: dgx-h100}}]
        faults:
          {uuids[0]}: {{ecc: 1}}
          "0000:43:00.0": {{remapped: pending}}
          2: {{gone: true}}
          3: {{lost: true, xid: 79}}
        """,
    )
    fake.refresh()
    health = {gpu.uuid: gpu.health for gpu in discover(fake.root, "n1")}
    well = dict.fromkeys(uuids[4:], "ok")
    assert health == {uuids[0]: "failed", uuids[1]: "suspect", uuids[3]: "failed"} | well


def test_errors_are_errors_of_ours() -> None:
    with pytest.raises(Error):
        parse("gpus: [{vendor: nvidia, ? [a] : b}]", "n1")
