import asyncio
import os

from lxdpy.rest.descriptor import MOST_LEFT, Descriptor

MANY = 10_000  # reads


def test_who_always_has_something_to_read_leaves_others_their_turn() -> None:
    async def main() -> None:
        reads, told = 0, asyncio.Event()
        with Descriptor(os.open("/dev/zero", os.O_RDONLY)) as endless:

            async def read_on() -> None:
                nonlocal reads
                while reads < MANY and not told.is_set():
                    assert await endless.read(1) == b"\0"
                    reads += 1

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(read_on())
                await asyncio.sleep(0)
                told.set()
        assert reads < MANY

    asyncio.run(main())


def test_what_a_program_left_is_read_and_not_what_others_write_for_ever() -> None:
    async def main() -> int:
        size = 0
        with Descriptor(os.open("/dev/zero", os.O_RDONLY)) as endless:
            endless.finish()
            while data := await endless.read(1 << 16):
                size += len(data)
        return size

    assert asyncio.run(main()) == MOST_LEFT
