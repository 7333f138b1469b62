"""Inputs are of before the moment, labels of after it, and both are what counting by hand gives."""

import numpy as np
import pyarrow as pa
import pytest

from features.homes import home_contract
from features.offline import write_view
from features.predictions import Label, home_predictions, parse_predictions
from service.decision.records import (
    ConsentRecord,
    DecisionRecord,
    ErasureRecord,
    EventRecord,
    IdentityRecord,
    OutcomeRecord,
    PlacementRecord,
    ServedItem,
    Versions,
)
from service.errors import NotReady
from service.registry import Registry
from training.event_history import write_events
from training.live_log import write_segment
from training.predictions.learning import rows_at
from training.predictions.rows import History, prediction_inputs

DAY = 86_400.0
END = 1_790_000_000.0
CUT = END - 60 * DAY


def history(home) -> History:
    return History(home, home_contract(home))


def asked(names, at=CUT) -> pa.Table:
    return pa.table({"customer_id": pa.array(list(names), pa.string()), "at": pa.array([at] * len(names), pa.float64())})


def test_labels_are_what_happened_within_the_time_after_the_moment(small_world):
    """Counted by hand, for a rate, a count and a sum; the moment itself is before, its end is within."""
    names = sorted(small_world.rate)[:200]
    later = {n: [b.amount for b in small_world.bought if b.customer == n and CUT < b.at <= CUT + 30 * DAY] for n in names}
    known, rows = history(small_world.home), asked(names)
    expected = {"none_of": lambda some: not some, "any_of": bool, "count": len}
    for kind, by_hand in expected.items():
        found = known.labels(Label(kind, 30 * DAY, ("purchased",)), rows)
        assert found.tolist() == [float(by_hand(later[n])) for n in names]
    sums = known.labels(Label("sum", 30 * DAY, ("purchased",), "amount"), rows)
    assert sums == pytest.approx([sum(later[n]) for n in names])


def test_the_edges_of_a_label_belong_to_one_side_each(settled):
    """An event at the cut is known, one at the end of the label's time counts, one after it does not."""
    home = settled([])
    events = [EventRecord(f"{at}", "a", "purchased", "web", at, at, {"amount": at}) for at in (100.0, 200.0, 300.0)]
    write_events(home, "old", events)
    label = Label("sum", 100.0, ("purchased",), "amount")
    assert history(home).labels(label, asked(["a", "a", "a", "b"], 100.0)).tolist() == [200.0, 200.0, 200.0, 0.0]


def test_inputs_are_as_of_the_moment_and_never_another_prediction(small_world):
    """What events feed, what was imported (while it is fresh), what transactions say, each by its own definition."""
    known = history(small_world.home)
    assert [f.name for f in known.inputs] == ["tier", "often", "order_value", "orders_30d", "since_buying", "since_complaint"]
    assert {f.view for f in prediction_inputs(known.contract)} == {"profile", "transactions", "live"}
    names = sorted(small_world.rate)[:100]
    found = known.matrix(asked(names))
    for name, (tier, often, value, _, since, _) in zip(names, found.tolist(), strict=True):
        past = [b for b in small_world.bought if b.customer == name and b.at <= CUT]
        days = {b.at // DAY for b in past}
        if past:
            assert often == len(days) - 1
            assert value == pytest.approx(sum(b.amount for b in past) / len(days), rel=1e-5)
            assert since == pytest.approx((CUT - max(b.at for b in past)) / DAY, rel=1e-4)
        assert np.isnan(tier) == (name not in sorted(small_world.rate)[::2])
    too_early, too_old = known.matrix(asked(names, END - 130 * DAY))[:, 0], known.matrix(asked(names, END - 10 * DAY))[:, 0]
    assert np.isnan(too_early).all()
    assert np.isnan(too_old).all()


def test_whatever_happens_after_the_moment_changes_labels_and_no_input(small_world, settled):
    """Shuffling customers of everything after the cut: other labels, the same customers, the same inputs, to the bit."""
    chance = np.random.default_rng(1)
    past = [b for b in small_world.bought if b.at <= CUT]
    future = [b for b in small_world.bought if b.at > CUT]
    names = [b.customer for b in future]
    shuffled = [
        b._replace(customer=names[n], amount=b.amount * 7) for b, n in zip(future, chance.permutation(len(names)), strict=True)
    ]
    homes = [settled([*past, *some], name=name) for name, some in (("as_it_was", future), ("shuffled", shuffled))]
    prediction = home_predictions(homes[0], home_contract(homes[0]))["churn_risk"]
    one, other = map(history, homes)
    assert one.customers(prediction, CUT) == other.customers(prediction, CUT)
    assert one.known(CUT) == other.known(CUT)
    rows = asked(one.known(CUT).to_pylist())
    np.testing.assert_array_equal(one.matrix(rows), other.matrix(rows))
    assert (one.labels(prediction.label, rows) != other.labels(prediction.label, rows)).mean() > 0.1


def test_a_prediction_is_about_those_among_whom_it_is_declared(small_world):
    """Recent buyers for one, everybody who was known by then for the other."""
    known = history(small_world.home)
    declared = home_predictions(small_world.home, known.contract)
    recent = {b.customer for b in small_world.bought if CUT - 90 * DAY < b.at <= CUT}
    assert set(known.customers(declared["churn_risk"], CUT).to_pylist()) == recent
    imported = set(sorted(small_world.rate)[::2])
    complained = {name for name, at in small_world.left.items() if at <= CUT}
    everybody = {b.customer for b in small_world.bought if b.at <= CUT} | imported | complained
    assert set(known.customers(declared["expected_value"], CUT).to_pylist()) == everybody


def test_properties_narrow_a_label(settled):
    """By text, by number, by truth, by channel."""
    home = settled([])
    viewed, purchased = "{category: text, price: number, new: truth}", "{amount: number}"
    declared = f"events: {{viewed: {{properties: {viewed}}}, purchased: {{properties: {purchased}}}, complaint_opened: {{}}}}"
    (home / "features" / "events.yaml").write_text(declared)
    kinds = [{"category": "fashion"}, {"price": 9.0}, {"new": True}, {"new": False, "category": "home"}]
    events = [EventRecord(f"{n}", "a", "viewed", "web" if n else "app", 50.0 + n, 60.0, kind) for n, kind in enumerate(kinds)]
    write_events(home, "old", events)

    def count(where):
        return history(home).labels(Label("count", 100.0, ("viewed",), where=where), asked(["a"], 0.0)).tolist()

    assert [count(w) for w in ({}, {"category": "fashion"}, {"price": 9.0}, {"new": 1.0}, {"new": 0.0}, {"channel": "app"})] == [
        [4.0], [1.0], [1.0], [1.0], [1.0], [1.0],
    ]  # fmt: skip


def test_what_came_of_decisions_may_be_a_label(settled):
    """An outcome of a decision in the time after the moment, by the moment of the decision."""
    home = settled([])

    def decision(name, customer, at):
        item = ServedItem(1, "card", "t", "offer", 0.1, 1.0, 1.0, explored=False)
        placement = PlacementRecord("home", 1, (item,), fallback=False)
        return DecisionRecord(name, customer, at, {}, {}, (placement,), Versions(1, None, "c"))

    decisions = [decision("d1", "a", 50.0), decision("d2", "b", 50.0), decision("d3", "a", 500.0)]
    outcomes = [
        OutcomeRecord("o1", "d1", "click", 60.0, 60.0), OutcomeRecord("o2", "d2", "impression", 60.0, 60.0),
        OutcomeRecord("o3", "d3", "click", 510.0, 510.0), OutcomeRecord("o4", "d1", "order", 70.0, 70.0, value=30.0),
    ]  # fmt: skip
    write_segment(home, "decisions", "test", decisions, 1000.0)
    write_segment(home, "outcomes", "test", outcomes, 1000.0)
    for objective, expected in (("click", [1.0, 0.0]), ("value:order", [30.0, 0.0])):
        label = parse_predictions(f"predictions: {{p: {{label: {{objective: '{objective}', within: 1h}}}}}}")["p"].label
        assert history(home).labels(label, asked(["a", "b"], 0.0)).tolist() == expected
        assert history(home).labels(label, asked(["a", "b"], 500.0)).tolist() == [0.0, 0.0]


DECLARED = """
predictions:
  churn_risk: {label: {none_of: purchased, within: 30d}, among: {any_of: purchased, within: 90d}}
  expected_value: {label: {objective: click, within: 30d}}
"""


@pytest.fixture
def left(settled, small_world):
    """Buyers: `a` said no by the id `a-2`, `b` said no and yes, `c` and `f` were erased at the cut, and are still in a table.

    Of `c` it has a row of later.
    """
    home = settled([small_world.bought[0]._replace(customer=name, at=CUT - DAY) for name in "abcdef"], DECLARED)
    Registry(home / "registry").publish_catalog(
        {"consent": {"profiling": {"needed_for": "profile", "unless_said": "given"}}},
        fingerprint="f", author="me", note="", at="now",
    )  # fmt: skip
    words = [("a-2", False, 1.0), ("b", False, 1.0), ("b", True, 2.0)]
    write_segment(home, "identities", "test", [IdentityRecord("a-2", "a", 0.5)], END)
    write_segment(home, "consents", "test", [ConsentRecord(n, "profiling", given, at, at) for n, given, at in words], END)
    write_segment(home, "erasures", "test", [ErasureRecord(name, CUT) for name in "cf"], END)
    names = ["a", "a-2", "b", "c", "d", "e", "f", "c"]
    at = [CUT - 50 * DAY] * 7 + [CUT + 0.25]
    moment = pa.array([round(one * 1e6) for one in at], pa.timestamp("us", tz="UTC"))
    write_view(home, "profile", pa.table({"customer_id": names, "event_timestamp": moment, "tier": ["low"] * 8}))
    return home


def test_nothing_is_predicted_of_who_does_not_want_to_be_known_or_was_erased_since(left):
    """By none of their ids, of nobody's kind; what a table holds of a time after an erasure is of somebody new."""
    known = history(left)
    declared = home_predictions(left, known.contract)
    for name in declared:
        assert known.customers(declared[name], CUT).to_pylist() == ["b", "d", "e"]
    assert known.customers(declared["expected_value"], CUT + 1.0).to_pylist() == ["b", "c", "d", "e"]


def test_rows_to_learn_from_and_to_judge_by_are_of_the_others(left):
    """The label of who is left out would be 0 whatever came of their decisions, which nobody reads."""
    known = history(left)
    prediction = home_predictions(left, known.contract)["expected_value"]
    placement = PlacementRecord("home", 1, (ServedItem(1, "card", "t", "offer", 0.1, 1.0, 1.0, explored=False),), fallback=False)
    decisions = [DecisionRecord(f"d{n}", n, CUT + 1.0, {}, {}, (placement,), Versions(1, None, "c")) for n in "abcd"]
    write_segment(left, "decisions", "test", decisions, END)
    outcomes = [OutcomeRecord(f"o{n}", f"d{n}", "click", CUT + 2.0, CUT + 2.0) for n in "abcd"]
    write_segment(left, "outcomes", "test", outcomes, END)
    rows = rows_at(known, prediction, (CUT, CUT + 0.5), seed=1)
    found = sorted(zip(rows.asked["customer_id"].to_pylist(), rows.asked["at"].to_pylist(), rows.labels.tolist(), strict=True))
    came = {"b": 1.0, "c": 1.0, "d": 1.0, "e": 0.0}
    expected = [(name, at, came[name]) for name in "bcde" for at in (CUT, CUT + 0.5) if (name, at) != ("c", CUT)]
    assert found == expected


def test_a_home_without_events_says_what_to_do(settled):
    """Nothing happened, nothing can be learned."""
    with pytest.raises(NotReady, match="nextbest ingest FILE"):
        _ = history(settled([])).first
