import subprocess
from pathlib import Path

from lxdpy.host.devices.driver import Attachment, Finish
from lxdpy.resources.instances.finishing import CACHE, first_of, steps


def run(script: str, *words: str, path: str) -> int:
    return subprocess.run(["/bin/sh", "-c", script, "sh", *words], env={"PATH": path}, check=False).returncode


def test_links_and_modes_are_made_and_made_again(tmp_path: Path) -> None:
    link, file = tmp_path / "new folder/libcuda.so.1", tmp_path / "file"
    file.touch(0o600)
    wanted = Finish(
        links=(("libcuda.so.550", str(link)),),
        modes=(("755", str(file)), ("755", str(tmp_path / "not there"))),
    )
    for _ in range(2):
        assert [run(script, *words, path="/usr/bin:/bin") for _, script, words in steps(wanted)] == [0, 0, 0]
    assert str(link.readlink()) == "libcuda.so.550"
    assert file.stat().st_mode & 0o777 == 0o755


def test_the_loader_is_told_of_each_folder_once_if_there_is_one(tmp_path: Path) -> None:
    file, called = tmp_path / "etc/ld.so.conf.d/cdi.conf", tmp_path / "called"
    assert run(CACHE, str(file), "/opt/one", path="/nowhere") == 0
    assert not file.exists()
    program = tmp_path / "ldconfig"
    program.write_text(f"#!/bin/sh\necho >>{called}\n")
    program.chmod(0o755)
    for folders in (("/opt/one",), ("/opt/one", "/opt/two")):
        assert run(CACHE, str(file), *folders, path=f"{tmp_path}:/usr/bin:/bin") == 0
    assert file.read_text().split() == ["/opt/one", "/opt/two"]
    assert called.read_text() == "\n\n"


def test_nothing_is_run_for_nothing() -> None:
    assert list(steps(Finish())) == []


def test_the_script_for_before_the_init_is_one_that_a_shell_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "it's here"
    script = first_of([Attachment(finish=Finish(links=((str(folder), str(tmp_path / "a b" / "link")),)))])
    assert first_of([Attachment()]) == ""
    mine = script.replace("/dev/", f"{tmp_path}/")
    assert subprocess.run(["/bin/sh", "-c", mine], check=False).returncode == 0
    assert str((tmp_path / "a b" / "link").readlink()) == str(folder)
    assert (tmp_path / ".lxdpy-finished").exists()
