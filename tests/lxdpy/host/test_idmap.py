import pytest

from cluster.errors import Invalid
from lxdpy.host.idmap import Hole, Idmap, dump, load, of_process


def test_ids_are_translated_both_ways_and_only_within_the_range() -> None:
    idmap = Idmap(1_000_000, 10)
    assert (idmap.host(0), idmap.host(9), idmap.inside(1_000_009)) == (1_000_000, 1_000_009, 9)
    assert idmap.inside(1_000_010) is None
    assert idmap.inside(999_999) is None
    with pytest.raises(Invalid):
        idmap.host(10)


def test_the_text_is_lxds() -> None:
    assert dump(Idmap(1_000_000, 65_536)) == (
        '[{"Isuid":true,"Isgid":false,"Hostid":1000000,"Nsid":0,"Maprange":65536},'
        '{"Isuid":false,"Isgid":true,"Hostid":1000000,"Nsid":0,"Maprange":65536}]'
    )
    assert dump(None) == "[]"


@pytest.mark.parametrize("idmap", [None, Idmap(5), Idmap(1_000_000, 1_000_000_000)])
def test_what_was_dumped_is_loaded(idmap: Idmap | None) -> None:
    assert load(dump(idmap)) == idmap


def test_both_kinds_of_id_may_share_an_entry() -> None:
    text = '[{"Isuid":true,"Isgid":true,"Hostid":7,"Nsid":0,"Maprange":3}]'
    assert load(text) == Idmap(7, 3)
    assert load("") is None


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '[{"Isuid":true,"Isgid":false,"Hostid":7,"Nsid":0,"Maprange":3}]',
        '[{"Isuid":true,"Isgid":true,"Hostid":7,"Nsid":1,"Maprange":3}]',
        '[{"Isuid":true,"Isgid":false,"Hostid":7,"Nsid":0,"Maprange":3},'
        '{"Isuid":false,"Isgid":true,"Hostid":8,"Nsid":0,"Maprange":3}]',
    ],
)
def test_maps_we_cannot_hold_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        load(text)


HOLES = (Hole(1000, 1000, 1), Hole(0x2000, 50, 10, groups=False))


def test_ids_let_through_lie_in_holes_of_the_map() -> None:
    idmap = Idmap(1_000_000, 65_536, HOLES)
    assert idmap.users == [
        (0, 1_000_000, 1000), (1000, 1000, 1), (1001, 1_001_001, 7191), (8192, 50, 10),
        (8202, 1_008_202, 57_334),
    ]  # fmt: skip
    assert idmap.groups == [(0, 1_000_000, 1000), (1000, 1000, 1), (1001, 1_001_001, 64_535)]
    assert (idmap.host(8195), idmap.host_group(8195), idmap.host(1000)) == (53, 1_008_195, 1000)
    assert dump(idmap).count("Nsid") == 8


@pytest.mark.parametrize("idmap", [Idmap(5, 7), Idmap(1_000_000, 65_536, (Hole(1000, 1000, 1),))])
def test_the_map_of_a_process_is_read_back(idmap: Idmap) -> None:
    users, groups = (
        "".join(f"{inside:10} {host:10} {length:10}\n" for inside, host, length in lines)
        for lines in (idmap.users, idmap.groups)
    )
    found = of_process(users, groups)
    assert found is not None
    assert (found.users, found.groups) == (idmap.users, idmap.groups)
    assert of_process("0 0 4294967295\n", "0 0 4294967295\n") is None
