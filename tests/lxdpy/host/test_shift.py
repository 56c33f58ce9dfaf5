import struct

from lxdpy.host.shift import ACL_ENTRY, Unmap, shifted

MAP = Unmap(
    [
        {"Isuid": True, "Isgid": False, "Hostid": 100000, "Nsid": 0, "Maprange": 1000},
        {"Isuid": False, "Isgid": True, "Hostid": 200000, "Nsid": 0, "Maprange": 1000},
        {"Isuid": True, "Isgid": True, "Hostid": 5, "Nsid": 5000, "Maprange": 1},
    ]
)


def test_ids_of_the_range_become_those_inside() -> None:
    assert [MAP.uid(id) for id in (100000, 100999, 101000, 5, 0)] == [0, 999, 101000, 5000, 0]
    assert [MAP.gid(id) for id in (200010, 100000, 5)] == [10, 100000, 5000]
    assert not Unmap([])


def test_capabilities_lose_the_id_of_their_root() -> None:
    caps = struct.pack("<IIIIII", 0x03000001, 0x400, 0, 0, 0, 100000)
    assert shifted("security.capability", caps, MAP) == struct.pack("<IIIII", 0x02000001, 0x400, 0, 0, 0)
    plain = struct.pack("<IIIII", 0x02000001, 0x400, 0, 0, 0)
    assert shifted("security.capability", plain, MAP) == plain


def test_access_lists_name_those_inside() -> None:
    entries = [(0x01, 7, 0xFFFFFFFF), (0x02, 7, 100007), (0x08, 5, 200008), (0x20, 4, 0xFFFFFFFF)]
    raw = struct.pack("<I", 2) + b"".join(ACL_ENTRY.pack(*one) for one in entries)
    found = list(ACL_ENTRY.iter_unpack(shifted("system.posix_acl_access", raw, MAP)[4:]))
    assert found == [(0x01, 7, 0xFFFFFFFF), (0x02, 7, 7), (0x08, 5, 8), (0x20, 4, 0xFFFFFFFF)]
