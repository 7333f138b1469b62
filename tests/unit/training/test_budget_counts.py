"""What the log says of budgets: as the service counts them."""

from service.catalog.policies import DECISIONS, IMPRESSIONS, Budget
from service.decision.records import DecisionRecord, OutcomeRecord, PlacementRecord, ServedItem, Versions
from service.stores.budgets import budget_keys
from training.live_log import write_segment
from training.rebuild import budget_counts

AT = 1_790_000_000.0
DAY = 86_400.0
MADE = Budget("made", "gold", 9, per_day=True, count=DECISIONS)
SEEN = Budget("seen", "gold", 9, per_day=True, count=IMPRESSIONS)


def key(budget: Budget, at: float = AT) -> str:
    return budget_keys(budget, at)[0]


def decision(name: str, *placements: str, at: float = AT) -> DecisionRecord:
    """Gold in each of these placements."""
    items = (ServedItem(1, "gold", "", "offer", 0.1, 1.0, 1.0, explored=False),)
    shown = tuple(PlacementRecord(placement, 1, items, fallback=False) for placement in placements)
    return DecisionRecord(name, "c1", at, {}, {}, shown, Versions(1, None, "x"))


def impression(name: str, decision_id: str, placement: str, at: float = AT + 5) -> OutcomeRecord:
    return OutcomeRecord(name, decision_id, "impression", at, at, placement, "gold")


def test_a_decision_takes_one_share_in_however_many_placements_it_shows_the_action(tmp_path):
    """As a claim takes one; each of its impressions was seen, and counts."""
    write_segment(tmp_path, "decisions", "tests", [decision("d1", "hero", "side"), decision("d2", "hero")], AT)
    told = [impression("o1", "d1", "hero"), impression("o2", "d1", "side"), impression("o3", "d2", "hero")]
    write_segment(tmp_path, "outcomes", "tests", told, AT)
    assert budget_counts(tmp_path, [MADE, SEEN]) == {key(MADE): 2, key(SEEN): 3}


def test_an_impression_after_midnight_counts_on_the_day_that_reserved_it(tmp_path):
    """As it is confirmed: once, as long as it was reserved. A second one, or one that is late, counts when it was seen."""
    midnight = DAY * (AT // DAY + 1)
    write_segment(tmp_path, "decisions", "tests", [decision(name, "hero", "side", at=midnight - 60) for name in ("d1", "d2")], AT)
    told = [
        impression("o1", "d1", "hero", midnight + 60), impression("o2", "d1", "side", midnight + 61),
        impression("o3", "d2", "hero", midnight + 840), impression("o4", "d3", "hero", midnight + 60),
    ]  # fmt: skip
    write_segment(tmp_path, "outcomes", "tests", told, AT)
    assert budget_counts(tmp_path, [SEEN]) == {key(SEEN, midnight - 60): 1, key(SEEN, midnight): 3}
    assert budget_counts(tmp_path, [SEEN], reservation=901.0) == {key(SEEN, midnight - 60): 2, key(SEEN, midnight): 2}
