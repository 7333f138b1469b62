"""What every decision log promises, on disk or in memory."""

import asyncio

import msgspec
import pytest

from service.decision.records import DecisionRecord, EventRecord, OutcomeRecord, Versions
from service.ports import Acknowledgement, Taken
from service.stores.memory_log import MemoryDecisionLog
from service.stores.segment_log import SegmentLog


def decision(name: str) -> DecisionRecord:
    return DecisionRecord(name, "c1", 1e9, {"age": 40.0}, {}, (), Versions(1, None, "x"), ())


def outcome(name: str, decision_id: str = "d1") -> OutcomeRecord:
    return OutcomeRecord(name, decision_id, "click", 1e9, 1e9)


@pytest.fixture(params=["memory", "segments"])
async def log(request, tmp_path):
    made = MemoryDecisionLog() if request.param == "memory" else SegmentLog(tmp_path / "log")
    yield made
    await made.close()


async def test_new_outcomes_are_accepted_and_known_ones_are_duplicates(log):
    """Sending the same id again changes nothing, in another call or in the same."""
    await log.append_decisions([log.entry(decision("d1"))])
    assert await log.append_outcomes([outcome("a"), outcome("b"), outcome("a")]) == Acknowledgement(2, 1, 0)
    assert await log.append_outcomes([outcome("b"), outcome("c")]) == Acknowledgement(1, 1, 0)


async def test_an_outcome_of_an_unknown_decision_is_an_accepted_orphan(log):
    """Kept and counted: the decision may be elsewhere."""
    await log.append_decisions([log.entry(decision("d1"))])
    assert await log.append_outcomes([outcome("a", "d1"), outcome("b", "elsewhere")]) == Acknowledgement(2, 0, 1)


async def test_two_callers_with_the_same_id_at_the_same_time_are_not_both_accepted(log):
    """Fifty calls, one id: one is accepted."""
    acks = await asyncio.gather(*(log.append_outcomes([outcome("a"), outcome(f"own-{i}")]) for i in range(50)))
    assert sum(ack.accepted for ack in acks) == 51
    assert sum(ack.duplicates for ack in acks) == 49


async def test_an_id_that_stood_for_something_else_is_no_duplicate(log):
    """Told by index, in the same call, in a later one and in one without content to compare; the first one stands."""
    first, other = (msgspec.structs.replace(outcome("a"), sent=sent) for sent in ("0000000a", "0000000b"))
    assert (await log.append_outcomes([first, other, first])) == Acknowledgement(1, 1, 1, reused=(1,))
    assert (await log.append_outcomes([outcome("b"), other, outcome("a")])) == Acknowledgement(1, 1, 1, reused=(1,))
    one, two = (EventRecord("e1", "c1", "viewed", "web", 1e9, 1e9, sent=sent) for sent in ("0000000a", "0000000b"))
    assert await log.append_events([one]) == Taken((one,))
    assert await log.append_events([two, one]) == Taken((), (0,))


async def test_a_decision_is_known_by_its_id(log):
    """As the outcomes that name it."""
    await log.append_decisions([log.entry(decision("d1"))])
    assert (log.has_decision("d1"), log.has_decision("d2")) == (True, False)


async def test_nothing_to_append_is_no_error(log):
    """An empty call is acknowledged as such."""
    await log.append_decisions([])
    assert await log.append_outcomes([]) == Acknowledgement(0, 0, 0)


async def test_closing_twice_does_no_harm(log):
    """Shutdown paths meet; what was written before is known after."""
    await log.append_decisions([log.entry(decision("d1"))])
    await log.close()
    await log.close()
    assert await log.append_outcomes([outcome("a", "d1")]) == Acknowledgement(1, 0, 0)
