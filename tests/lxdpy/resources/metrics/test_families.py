import pytest
from prometheus_client.parser import text_string_to_metric_families

from lxdpy.resources.metrics.families import MEMORY, Families, text_of


def test_what_prometheus_reads_is_what_was_added() -> None:
    families = Families()
    labels = {"name": "c1", "project": "default", "type": "container"}
    families.add("lxd_procs_total", 7, labels)
    families.add("lxd_cpu_seconds_total", 1.5, {"cpu": "0", "mode": "user", **labels})
    families.add("lxd_memory_MemFree_bytes", 4096, labels)
    text = text_of(families.metrics()).decode()
    lines = [line for line in text.splitlines() if not line.startswith("# HELP")]
    shown = 'name="c1",project="default",type="container"'
    assert lines == [
        "# TYPE lxd_cpu_seconds_total counter",
        f'lxd_cpu_seconds_total{{cpu="0",mode="user",{shown}}} 1.5',
        "# TYPE lxd_memory_MemFree_bytes gauge",
        f"lxd_memory_MemFree_bytes{{{shown}}} 4096.0",
        "# TYPE lxd_procs_total gauge",
        f"lxd_procs_total{{{shown}}} 7.0",
    ]
    assert len(list(text_string_to_metric_families(text))) == 3


def test_a_name_without_description_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Families().add("lxd_nonsense_total", 1)


def test_all_of_memory_that_lxd_tells_of_containers_has_its_name() -> None:
    assert set(MEMORY) == {
        "Active_anon", "Active_file", "Active", "Cached", "Dirty", "Inactive_anon", "Inactive_file",
        "Inactive", "Mapped", "MemAvailable", "MemFree", "MemTotal", "RSS", "Shmem", "Swap",
        "Unevictable", "Writeback",
    }  # fmt: skip
