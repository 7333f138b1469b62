"""Rows whose outcomes have not all come."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import NotReady
from training.examples import Examples
from training.maturity import LEAST_REACHED, corrected, delays_of, mature


def rows(age, delay) -> Examples:
    """Decided so many seconds before the log ends; NaN is no success so far."""
    size, age, delay = len(age), np.array(age, float), np.array(delay, float)
    return Examples(
        decision_id=pa.array([f"d{n}" for n in range(size)]), customer_id=np.full(size, "c"), decided_at=1000.0 - age,
        placement=np.full(size, "hero"), slot=np.ones(size, np.int64), action_id=np.full(size, "a"),
        choice_probability=np.ones(size), label=(~np.isnan(delay)).astype(float), values={}, delay=delay, complete_until=1000.0,
    )  # fmt: skip


def by_hand(delay, age, window, at) -> float:
    """The product over later delays, one at a time, of the share at risk that did not come then."""
    pairs = [(d, min(a, window)) for d, a in zip(delay, age, strict=True) if not np.isnan(d) and d <= min(a, window)]
    found = 1.0
    for later in sorted({d for d, _ in pairs if d > at}):
        at_risk = [d for d, a in pairs if d <= later <= a]
        found *= 1.0 - at_risk.count(later) / len(at_risk)
    return found


@given(st.lists(st.tuples(st.integers(1, 9), st.one_of(st.none(), st.integers(1, 9))), min_size=1, max_size=30))
def test_the_distribution_of_delays_is_the_product_limit(drawn):
    """As it is written in the paper, row by row."""
    age = np.array([float(a) for a, _ in drawn] + [9.0])
    delay = np.array([np.nan if d is None else float(d) for _, d in drawn] + [np.nan])
    found = delays_of(delay, age, 9.0)
    for at in range(10):
        expected = by_hand(delay, age, 9.0, at) if at >= found.after.min(initial=np.inf) else 0.0
        assert found.reached_by(np.array([float(at)]))[0] == pytest.approx(expected)


def test_short_delays_that_are_seen_more_often_do_not_fool_it():
    """Half of all successes take longer than 5; of young rows only the quick ones were seen."""
    chance = np.random.default_rng(0)
    age, delay = chance.uniform(0, 20, 40_000), chance.uniform(0, 10, 40_000)
    seen = np.where(delay <= age, delay, np.nan)
    assert delays_of(seen, age, 10.0).reached_by(np.array([2.0, 5.0, 9.0])) == pytest.approx([0.2, 0.5, 0.9], abs=0.02)
    assert np.mean(seen[~np.isnan(seen)] <= 5.0) > 0.55, "what a plain share of those that were seen would say"


def test_corrected_labels_have_the_mean_that_there_will_be():
    """Of rows of any age that is told; the youngest ones are left out."""
    chance = np.random.default_rng(1)
    age, delay, won = chance.uniform(0, 20, 60_000), chance.uniform(0, 10, 60_000), chance.random(60_000) < 0.3
    found = corrected(rows(age, np.where(won & (delay <= age), delay, np.nan)), 10.0)
    young = found.age < 5.0
    assert found.label[young].mean() == pytest.approx(0.3, abs=0.02)
    assert found.label.mean() == pytest.approx(0.3, abs=0.01)
    assert found.age.min() >= 10.0 * LEAST_REACHED * 0.9


def test_who_waits_takes_only_rows_whose_window_is_over():
    """All rows where an objective has no window."""
    some = rows([1.0, 5.0, 9.0], [np.nan, 1.0, np.nan])
    assert mature(some, 5.0).decision_id.to_pylist() == ["d1", "d2"]
    assert mature(some, None) is some
    assert corrected(some, None) is some


def test_amounts_count_once_their_window_is_over():
    """Everybody pays 1 on each of ten days: when the first came does not say what of it is still to come."""
    some = rows([2.0, 5.0, 10.0, 20.0], [1.0] * 4).with_label(np.array([2.0, 5.0, 10.0, 10.0]))
    assert corrected(some, 10.0, is_value=True).label.tolist() == [10.0, 10.0]
    assert len(corrected(some, 10.0)) == 4


def test_rows_whose_window_is_over_say_that_nothing_came_where_nothing_did():
    """Without any success nobody knows how late one is; that those rows have none is known all the same."""
    found = corrected(rows([1.0, 9.0, 10.0, 20.0], [np.nan] * 4), 10.0)
    assert found.decision_id.to_pylist() == ["d2", "d3"]
    assert found.label.tolist() == [0.0, 0.0]


def test_a_log_younger_than_the_window_says_nothing_of_late_successes():
    """It is refused, with what is there."""
    with pytest.raises(NotReady, match="as old as the window of 10 s, found none older than 9 s"):
        delays_of(np.array([1.0]), np.array([9.0]), 10.0)
    assert len(delays_of(np.array([np.nan]), np.array([10.0]), 10.0).after) == 0, "no success so far is no error"
