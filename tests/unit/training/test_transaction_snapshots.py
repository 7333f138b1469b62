"""Snapshots of what transactions say: read from lake and log, written to the offline tables."""

import datetime as dt
import json
from pathlib import Path

import pytest

from features.contract import ContractError, parse_contract
from features.homes import features_folder, write_home_contract
from features.ledger import Ledger
from features.offline import read_view
from service.decision.records import ErasureRecord, EventRecord, IdentityRecord
from training.event_history import write_events
from training.live_log import write_segment
from training.transactions import add_snapshot, read_ledger

DAY = 86_400.0
NOW = 1_790_000_000.0
CONTRACT = parse_contract("""
transactions: {type: purchased, amount: amount, horizon: 90d}
features:
  - {name: since_buying, type: number, origin: value, max_age: 7d, transactions: recency_days}
  - {name: value, type: number, origin: value, max_age: 7d, transactions: monetary_value}
  - {name: segment, type: category, origin: value, max_age: 7d, transactions: rfm_segment}
  - {name: ltv, type: number, origin: value, max_age: 7d, transactions: lifetime_value}
""")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_home_contract(tmp_path, CONTRACT)
    return tmp_path


def event(name, customer, at, amount=10.0, kind="purchased", **more) -> EventRecord:
    properties = {} if amount is None else {"amount": amount}
    return EventRecord(name, customer, kind, "web", at, more.get("received_at", at), properties, more.get("declared", True))


def entries(ledger: Ledger):
    """(customer, moment, amount) of everything in it."""
    names = ledger.customers.to_pylist()
    return [
        (name, ledger.at[place], ledger.amount[place])
        for name, begin, end in zip(names, ledger.starts[:-1], ledger.starts[1:], strict=True)
        for place in range(begin, end)
    ]


def test_lake_and_log_are_read_once_each_under_whom_customers_are_now(home):
    """A repeated id counts once, an alias is its customer, other types and undeclared events do not count."""
    write_events(home, "old", [event("1", "a", NOW), event("2", "anonymous", NOW + 1), event("3", "a", NOW, kind="viewed")])
    live = [
        event("1", "a", NOW, 99.0), event("4", "b", NOW + 2, None), event("5", "b", NOW + 3, declared=False),
        event("6", "b", NOW + 9, received_at=NOW + 4),
    ]  # fmt: skip
    write_segment(home, "events", "test", live, NOW)
    write_segment(home, "identities", "test", [IdentityRecord("anonymous", "a", NOW)], NOW)
    found = entries(read_ledger(home, ["purchased"], "amount"))
    assert found == [("a", NOW, 10.0), ("a", NOW + 1, 10.0), ("b", NOW + 2, 0.0), ("b", NOW + 4, 10.0)]


def test_who_was_erased_has_bought_nothing_before(home):
    """Under the id that was erased, in lake and log; what comes afterwards is of somebody new."""
    write_events(home, "old", [event("1", "a", NOW), event("2", "b", NOW)])
    live = [event("3", "a", NOW + 1), event("4", "a", NOW + 3), event("5", "a", NOW + 9, received_at=NOW + 1)]
    write_segment(home, "events", "test", live, NOW)
    write_segment(home, "erasures", "test", [ErasureRecord("a", NOW + 2)], NOW)
    found = entries(read_ledger(home, ["purchased"], "amount"))
    assert found == [("a", NOW + 3, 10.0), ("b", NOW, 10.0)]


def test_a_home_without_a_lake_or_without_events_is_read_as_well(home):
    """The log alone is enough, and nothing is nothing."""
    assert entries(read_ledger(home, ["purchased"], "amount")) == []
    assert add_snapshot(home, NOW).customers == 0
    write_segment(home, "events", "test", [event("1", "a", NOW)], NOW)
    assert entries(read_ledger(home, ["purchased"], "amount")) == [("a", NOW, 10.0)]


def test_a_snapshot_holds_who_had_bought_by_then_and_the_same_moment_changes_nothing(home):
    """One row for each buyer and moment, so that a point-in-time join finds what was known at the time."""
    write_events(
        home, "old", [event("1", "a", NOW - 3 * DAY), event("2", "b", NOW - DAY, 30.0), event("3", "a", NOW - DAY, 20.0)]
    )
    first = add_snapshot(home, NOW - 2 * DAY)
    assert (first.customers, [problem.split(":")[0] for problem in first.problems]) == (
        1, ["no p_alive, expected_purchases, lifetime_value", "no expected_spend, lifetime_value"],
    )  # fmt: skip
    add_snapshot(home, NOW)
    before = read_view(home, "transactions")
    assert add_snapshot(home, NOW).customers == 2
    assert read_view(home, "transactions") == before
    moments = [dt.datetime.fromtimestamp(NOW - days * DAY, dt.UTC) for days in (2, 0)]
    assert [tuple(row.values()) for row in before.to_pylist()] == [
        ("a", moments[0], 1.0, 10.0, "needs_attention", None), ("a", moments[1], 1.0, 15.0, "loyal", None),
        ("b", moments[1], 1.0, 30.0, "needs_attention", None),
    ]  # fmt: skip


def test_transactions_that_events_yaml_does_not_know_are_refused(home):
    """Nothing is written where the declaration and the events do not fit."""
    (features_folder(home) / "events.yaml").write_text(json.dumps({"events": {"viewed": {}}}))
    with pytest.raises(ContractError, match=r"got `purchased` - at features\.yaml: `transactions`"):
        add_snapshot(home, NOW)
    assert not (features_folder(home) / "offline").exists()


def test_a_contract_without_such_features_has_no_snapshot(tmp_path):
    """Whoever does not ask pays nothing."""
    write_home_contract(tmp_path, parse_contract("features: [{name: age, type: number, origin: profile, max_age: 1d}]"))
    assert add_snapshot(tmp_path, NOW) is None
