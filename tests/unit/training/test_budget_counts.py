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
