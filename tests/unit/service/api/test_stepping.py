"""A coroutine without a task: it goes on when what it waits for is there, and ends once."""

import asyncio

import pytest

from service.api.stepping import Stepping


@pytest.fixture
async def start():
    """Starts a coroutine; the second value names who has ended."""
    ended: list[Stepping] = []
    loop = asyncio.get_running_loop()
    return lambda coroutine: Stepping(loop, coroutine, ended.append), ended


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_it_begins_in_the_next_turn_and_goes_on_when_a_future_is_there(start):
    """Results and errors of what it waits for arrive inside, as with a task."""
    begin, ended = start
    first, second, seen = asyncio.get_running_loop().create_future(), asyncio.get_running_loop().create_future(), []

    async def work() -> None:
        seen.append("begun")
        seen.append(await first)
        await asyncio.sleep(0)
        try:
            await second
        except ValueError as error:
            seen.append(str(error))

    one = begin(work())
    assert seen == []
    await turns()
    assert (seen, ended) == (["begun"], [])
    first.set_result("there")
    await turns()
    second.set_exception(ValueError("broken"))
    await turns()
    assert (seen, ended) == (["begun", "there", "broken"], [one])


async def test_a_task_inside_is_waited_for(start):
    """What needs a task of its own may have one."""
    begin, ended = start

    async def work() -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(0.01)

    async def outer() -> None:
        await asyncio.create_task(work())

    begin(outer())
    await asyncio.sleep(0.05)
    assert len(ended) == 1


async def test_an_error_is_told_to_the_loop(start):
    """It has ended all the same."""
    begin, ended = start
    told: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))

    async def work() -> None:
        raise KeyError("lost")

    begin(work())
    await turns()
    assert [type(context["exception"]) for context in told] == [KeyError]
    assert len(ended) == 1


async def test_to_cancel_it_is_to_cancel_what_it_waits_for(start):
    """It may tidy up; once it has ended there is nothing to cancel."""
    begin, ended = start
    seen = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            seen.append("tidy")

    one = begin(work())
    await turns()
    assert one.cancel("the server stops")
    await turns()
    assert (seen, ended) == (["tidy"], [one])
    assert not one.cancel()


async def test_it_may_be_cancelled_before_it_has_begun(start):
    """Then nothing of it is done."""
    begin, ended = start
    seen = []

    async def work() -> None:
        seen.append("begun")

    one = begin(work())
    assert one.cancel()
    await turns()
    assert (seen, ended) == ([], [one])
