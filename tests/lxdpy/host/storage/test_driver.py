from pathlib import Path

import pytest

from cluster.errors import Invalid
from lxdpy.host.storage.driver import Pool, Volume


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "a\0b", "a\n", "x" * 256])
def test_a_name_cannot_lead_out_of_the_pool_or_hide_in_it(name: str) -> None:
    with pytest.raises(Invalid):
        Volume(name)
    with pytest.raises(Invalid):
        Pool(name, Path("/lxd"), {})
    if name:
        with pytest.raises(Invalid):
            Volume("c1", snapshot=name)


@pytest.mark.parametrize("name", ["c1", "project_c-1", "default_my.volume", "2024-01-01T10:00:00+00:00"])
def test_usual_names_are_fine(name: str) -> None:
    assert Volume(name).name == name


def test_a_snapshots_origin_is_the_volume() -> None:
    assert Volume("c1", snapshot="s", size=5).origin == Volume("c1", size=5)
