"""A ledger answers for any customer at any moment, and never looks further."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from features.ledger import DAY, Ledger

entries = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.integers(-5, 9)), max_size=40)


def ledger_of(rows) -> Ledger:
    """Moments in quarters of a day."""
    at = np.array([quarter * DAY / 4 for _, quarter, _ in rows], np.float64)
    return Ledger.of(pa.array([c for c, _, _ in rows], pa.string()), at, np.array([float(a) for *_, a in rows]))


@given(entries, st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-1, 41)), max_size=12))
def test_counts_days_and_totals_are_what_a_walk_over_the_entries_gives(rows, asked):
    """Any order of entries, moments before the first, customers that nobody knows."""
    ledger = ledger_of(rows)
    codes = ledger.codes([c for c, _ in asked])
    end = ledger.until(codes, np.array([q * DAY / 4 for _, q in asked], np.float64))
    begin = ledger.until(codes, np.array([(q - 6) * DAY / 4 for _, q in asked], np.float64))
    lately = [[r for r in rows if r[0] == c and q - 6 < r[1] <= q] for c, q in asked]
    assert (end - begin).tolist() == [len(some) for some in lately]
    assert ledger.total(begin, end).tolist() == [float(sum(a for *_, a in some)) for some in lately]
    assert ledger.days(begin, end).tolist() == [len({q // 4 for _, q, _ in some}) for some in lately]


def test_an_amount_that_is_no_number_adds_nothing():
    """An event without an amount is a transaction all the same."""
    ledger = Ledger.of(pa.array(["a", "a", "a"]), np.array([1.0, 2.0, 3.0]), np.array([np.nan, 5.0, np.inf]))
    assert ledger.total(np.array([0]), np.array([3])).tolist() == [5.0]
    assert ledger.days(np.array([0]), np.array([3])).tolist() == [1.0]
