import asyncio

from lxdpy.host.lxc.turns import Turns


def test_no_more_than_allowed_are_at_it_at_once() -> None:
    async def go() -> None:
        turns, now, most = Turns(2, 60), 0, 0

        async def work() -> None:
            nonlocal now, most
            async with turns.turn():
                now += 1
                most = max(most, now)
                await asyncio.sleep(0)
                now -= 1

        await asyncio.gather(*(work() for _ in range(10)))
        assert most == 2

    asyncio.run(go())


def test_who_is_stuck_is_not_waited_for_and_gives_back_but_once() -> None:
    async def go() -> None:
        turns, go_on, all_done, done = Turns(1, 0.01), asyncio.Event(), asyncio.Event(), []

        async def stuck() -> None:
            async with turns.turn():
                await go_on.wait()

        async def work(number: int) -> None:
            async with turns.turn():
                done.append(number)
                if len(done) == 3:
                    all_done.set()

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(stuck())
            for number in range(3):
                tasks.create_task(work(number))
            await all_done.wait()
            go_on.set()
        assert done == [0, 1, 2]
        assert turns._places._value == 1

    asyncio.run(go())
