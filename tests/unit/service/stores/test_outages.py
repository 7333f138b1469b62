"""What the service's log says of a Redis that goes and comes back."""

import asyncio
import contextlib
import logging

import pytest

from service.stores.customer_reader import MemoryCustomerReader
from service.stores.outages import tell_outages


class MovingReader(MemoryCustomerReader):
    """Says of Redis what it was told to."""

    problem: str | None = None

    def status(self):
        return {"answers": self.problem is None, "problem": self.problem}


@pytest.fixture
async def reader():
    """It is looked at all the time, and well once it was well for 50 ms."""
    reader = MovingReader({})
    telling = asyncio.create_task(tell_outages(reader, 0.002, steady=0.05))
    yield reader
    telling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await telling


async def test_an_outage_is_told_once_and_its_end_once(reader, caplog):
    """With what was wrong; the next one is told anew."""
    caplog.set_level(logging.INFO, "nextbest")
    for problem in ("it is gone", None, "it is slow", None):
        reader.problem = problem
        await asyncio.sleep(0.2)
    told = [(record.levelname, record.getMessage().rpartition(": ")[2]) for record in caplog.records]
    assert told == [
        ("WARNING", "it is gone"), ("INFO", "Redis answers again"), ("WARNING", "it is slow"), ("INFO", "Redis answers again"),
    ]  # fmt: skip


async def test_a_redis_that_comes_and_goes_is_one_outage(reader, caplog):
    """Not a line for every time."""
    caplog.set_level(logging.INFO, "nextbest")
    for turn in range(20):
        reader.problem = None if turn % 2 else "it is slow"
        await asyncio.sleep(0.005)
    assert len(caplog.records) == 1
