import asyncio
import subprocess
from pathlib import Path

from lxdpy.host.progress import position, reading, share


def test_how_far_a_child_is_in_a_file_is_seen_from_outside(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(10_000))
    assert position(file) == 0
    words = ["sh", "-c", f"exec 3<{file}; head -c 4000 <&3 >/dev/null; echo; cat"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert position(file) >= 4000
        child.communicate()


def test_who_waits_hears_of_it_until_it_is_done(tmp_path: Path) -> None:
    file, heard = tmp_path / "file", asyncio.Event()
    file.write_bytes(bytes(100))
    reads = f"exec 3<{file}; head -c 50 <&3 >/dev/null; cat"

    async def check() -> None:
        child = await asyncio.create_subprocess_exec("sh", "-c", reads, stdin=-1)
        try:
            async with asyncio.timeout(20), reading(file, lambda text: heard.set() if "%" in text else None):
                await heard.wait()
            async with reading(file, None):
                pass
        finally:
            await child.communicate(b"")

    asyncio.run(check())


def test_a_share_is_told_in_percent_and_never_more_than_all() -> None:
    assert share(50, 200, 1.0) == "25% (0.00MB/s)"
    assert share(3_000_000, 2_000_000, 2.0) == "100% (1.50MB/s)"
    assert share(0, 0, 0.0) == "0% (0.00MB/s)"
