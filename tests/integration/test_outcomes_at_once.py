"""A backlog of outcomes, as a client sends that was away for a while."""

import asyncio
import time

import redis

from service.app import create_from_settings
from service.decision.records import OutcomeRecord
from service.feedback import take_outcomes
from service.ids import new_decision_id
from service.settings import Settings

CALLS, IN_EACH = 4, 1000


def call_of(number: int) -> list[OutcomeRecord]:
    customers, now = [f"c{number}-{i}" for i in range(IN_EACH)], time.time()
    return [OutcomeRecord(customer, new_decision_id(customer), "click", now, now) for customer in customers]


async def test_many_outcomes_at_once_are_all_known_to_rules_about_contacts(redis_url, tmp_path):
    """Redis takes longer for them than decisions have: they go their own way, and are not acknowledged to be forgotten."""
    app = create_from_settings(Settings(home=str(tmp_path), redis_url=redis_url, redis_intake_timeout_ms=30_000))
    parts = app.state.parts
    with redis.Redis.from_url(redis_url) as client:
        async with app.lifespan():
            client.client_pause(1500)
            taken = await asyncio.gather(*(take_outcomes(parts, call_of(number)) for number in range(CALLS)))
        assert [done.accepted for done in taken] == [IN_EACH] * CALLS
        assert "nextbest_contacts_forgotten_total 0.0" in parts.metrics.text().decode()
        assert sum(1 for _ in client.scan_iter("nb:contacts:*", count=1000)) == CALLS * IN_EACH
