"""`POST /outcomes` over the wire."""

from collections.abc import Sequence

import pytest

from service.decision.records import OutcomeRecord
from service.errors import LogUnavailable
from service.ports import Acknowledgement
from service.stores.memory_log import MemoryDecisionLog


def outcome(outcome_id: str = "o1", **changes) -> dict[str, object]:
    return {"outcome_id": outcome_id, "decision_id": "d1", "type": "click", "at": "2026-01-01T12:00:00Z"} | changes


async def test_an_outcome_of_a_known_decision_is_accepted(client, service):
    """202 after it was written down, with the decision it belongs to."""
    await client.post("/recommend", json={"customer_id": "c42", "placement": "sidebar", "decision_id": "d1"})
    response = await client.post(
        "/outcomes", json={"outcomes": [outcome(placement="sidebar", action_id="gold_card", value=12.5)]}
    )
    assert (response.status_code, response.json()) == (
        202,
        {"accepted": 1, "duplicates": 0, "orphans": 0, "late": 0, "rejected": []},
    )
    [written] = service.log.outcomes
    assert (written.decision_id, written.value, written.at, written.orphan) == ("d1", 12.5, 1_767_268_800.0, False)


async def test_the_same_outcome_again_changes_nothing(client, service):
    """Clients may retry as often as they like."""
    for accepted, duplicates in ((1, 0), (0, 1)):
        body = (await client.post("/outcomes", json={"outcomes": [outcome()]})).json()
        assert (body["accepted"], body["duplicates"]) == (accepted, duplicates)
    assert len(service.log.outcomes) == 1


async def test_an_outcome_id_with_other_content_is_refused_and_the_first_stands(client, service):
    """422 where the call holds nothing else; beside others, that one is among the rejected, by its index."""
    await client.post("/outcomes", json={"outcomes": [outcome()]})
    alone = await client.post("/outcomes", json={"outcomes": [outcome(value=2.0)]})
    assert (alone.status_code, alone.json()["title"]) == (422, "Id reused")
    assert alone.json()["errors"] == ["Expected what was sent with this `outcome_id` before, got something else: `o1`"]
    calls = [outcome("o2"), 3, outcome(type="dismiss"), outcome()]
    body = (await client.post("/outcomes", json={"outcomes": calls})).json()
    assert (body["accepted"], body["duplicates"], [r["index"] for r in body["rejected"]]) == (1, 1, [1, 2])
    assert [(o.outcome_id, o.value) for o in service.log.outcomes] == [("o1", 0.0), ("o2", 0.0)]


async def test_an_outcome_of_an_unknown_decision_is_kept_as_an_orphan(client, service):
    """Stored and counted, never dropped."""
    body = (await client.post("/outcomes", json={"outcomes": [outcome(decision_id="elsewhere")]})).json()
    assert (body["accepted"], body["orphans"]) == (1, 1)
    assert service.log.outcomes[0].orphan
    assert 'nextbest_outcomes_total{result="orphan"} 1.0' in (await client.get("/metrics")).text


async def test_one_bad_outcome_does_not_cost_the_others(client, service):
    """Each is judged on its own, and told by its index."""
    calls = [outcome("a"), outcome("b", type=""), outcome("c", at="yesterday"), outcome("d", colour=1), 3, outcome("e")]
    body = (await client.post("/outcomes", json={"outcomes": calls})).json()
    assert body["accepted"] == 2
    assert [r["index"] for r in body["rejected"]] == [1, 2, 3, 4]
    assert "`$.at`" in body["rejected"][1]["error"]
    assert [o.outcome_id for o in service.log.outcomes] == ["a", "e"]


@pytest.mark.parametrize(
    "wrong",
    [{"at": "2026-01-01T12:00:00"}, {"at": "2026-01-01T13:00:00Z"}, {"at": "0001-01-01T00:00:00+14:00"}, {"value": "much"}],
)
async def test_a_time_without_zone_or_in_the_future_or_before_the_year_one_and_a_value_that_is_none_are_rejected(client, wrong):
    """An hour ahead is no clock skew."""
    body = (await client.post("/outcomes", json={"outcomes": [outcome(**wrong)]})).json()
    assert body["accepted"] == 0
    assert f"`$.{next(iter(wrong))}`" in body["rejected"][0]["error"]


async def test_more_than_a_thousand_at_once_is_malformed(service, publish_catalog):
    """400, and nothing of the call is kept."""
    publish_catalog()
    async with service.client() as client:
        response = await client.post("/outcomes", json={"outcomes": [3] * 1001})
    assert (response.status_code, service.log.outcomes) == (400, [])


class FullLog(MemoryDecisionLog):
    """A disk that takes nothing any more."""

    async def append_outcomes(self, records: Sequence[OutcomeRecord]) -> Acknowledgement:
        raise LogUnavailable(f"Expected room for {len(records)} records, found none")


async def test_what_is_not_on_disk_is_not_acknowledged(service, publish_catalog):
    """503 with Retry-After: the client keeps it and comes back."""
    publish_catalog()
    async with service.client(log=FullLog()) as client:
        response = await client.post("/outcomes", json={"outcomes": [outcome()]})
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")


async def test_an_outcome_that_comes_after_its_id_is_forgotten_is_kept_as_late_and_changes_nothing(client, service):
    """31 days after it happened and a second: written down and counted apart; a second earlier it counts."""
    calls = [outcome("a", at="2025-12-01T11:59:59Z"), outcome("b", at="2025-12-01T12:00:00Z")]
    body = (await client.post("/outcomes", json={"outcomes": calls})).json()
    assert (body["accepted"], body["late"], body["orphans"]) == (2, 1, 1)
    assert [record.late for record in service.log.outcomes] == [True, False]
    assert 'nextbest_outcomes_total{result="late"} 1.0' in (await client.get("/metrics")).text
