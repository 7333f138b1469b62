"""Which rows a model may learn from: the older ones, or those of some customers, for good."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundles.manifest import Split
from training.examples import Examples
from training.split import choose_split, customer_share, seen

logs = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 20)), min_size=1, max_size=40)
salts = st.text(max_size=8)
shares = st.floats(0.0, 1.0)


def log(rows) -> Examples:
    """Rows of (customer, time); nothing else matters to a split."""
    size = len(rows)
    return Examples(
        decision_id=pa.array([f"d{i}" for i in range(size)]), customer_id=np.array([str(c) for c, _ in rows], np.str_),
        decided_at=np.array([t for _, t in rows], np.float64), placement=np.full(size, "hero"),
        slot=np.ones(size, np.int64), action_id=np.full(size, "a"), choice_probability=np.ones(size), label=np.zeros(size),
        values={},
    )  # fmt: skip


def test_a_log_with_times_is_split_by_time():
    """A hundred moments: the older half is learned from, and the split remembers where it ends."""
    examples = log([("a", t) for t in range(100)])
    split = choose_split(examples)
    assert (split.by, split.share) == ("time", 0.5)
    assert split.until is not None
    np.testing.assert_array_equal(seen(split, examples), np.arange(100) < 50)


def test_a_log_whose_rows_share_their_times_is_split_by_customer():
    """Imported without times, all rows carry the moment of the import."""
    assert choose_split(log([(f"c{i}", 7) for i in range(100)]), 0.3) == Split(by="customer", share=0.3)


@pytest.mark.parametrize(("moments", "by"), [(10, "customer"), (11, "time")])
def test_more_than_a_tenth_of_rows_with_a_time_of_their_own_are_an_order(moments, by):
    """A hundred rows at ten moments are not."""
    assert choose_split(log([("a", t % moments) for t in range(100)])).by == by


def test_dates_without_a_time_of_day_are_an_order():
    """Two weeks of a hundred rows each day: the first one is learned from, and no row of the second."""
    examples = log([("a", day) for day in range(14) for _ in range(100)])
    assert choose_split(examples) == Split("time", 0.5, 6.5)
    assert choose_split(log([("a", day) for day in range(13) for _ in range(100)])).by == "customer"


@pytest.mark.parametrize(("oldest", "until"), [(np.inf, 2000.0), (3000.0, 2000.0), (1000.0, 3000.0), (30.0, 2000.0)])
def test_a_model_learns_on_until_it_is_not_stale_as_long_as_enough_is_left_to_judge_by(oldest, until):
    """4,000 rows, one a second: what is older than `oldest` seconds is learned from; of the last 30 rows nobody could tell."""
    examples = log([("a", t) for t in range(4000)])
    split = choose_split(examples, 0.5, oldest)
    assert split.until == pytest.approx(until, abs=1.0)
    if oldest == 1000.0:
        assert examples.decided_at.max() - examples.decided_at[seen(split, examples)].max() <= oldest


def test_a_quiet_stretch_does_not_make_a_model_stale():
    """Nobody came for a while at the bound: the first row behind it is learned from, too."""
    moments = [*range(2000), *range(3100, 5100)]
    split = choose_split(log([("a", t) for t in moments]), 0.5, 2500.0)
    assert split.until == 3101.0


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_what_was_imported_at_one_moment_is_learned_from_where_it_is_more_than_the_share(share):
    """Sixty rows of one moment, then forty with times of their own: the sixty are not parted, and lie on the model's side."""
    examples = log([("a", 7)] * 60 + [("a", 8 + t) for t in range(40)])
    split = choose_split(examples, share)
    assert split == Split("time", share, 8.0)
    assert seen(split, examples).sum() == 60


def test_a_few_rows_of_one_moment_have_no_order():
    """Two of them: no moment lies before another."""
    assert choose_split(log([("a", 7), ("b", 7)])).by == "customer"


@given(logs, shares)
def test_no_row_that_a_model_saw_is_later_than_one_that_it_did_not(rows, share):
    """Equal times are never parted, so that nothing of the future is learned."""
    examples = log(rows)
    mask = seen(Split("time", share, float(np.quantile(examples.decided_at, share))), examples)
    if mask.any() and not mask.all():
        assert examples.decided_at[mask].max() < examples.decided_at[~mask].min()


def test_a_split_by_time_without_an_end_has_seen_everything():
    """A model trained on the whole log leaves no rows to be evaluated on."""
    assert seen(Split("time", 1.0), log([("a", 1), ("b", 2)])).all()


def test_a_row_at_the_end_of_the_split_is_unseen():
    """`until` is the first moment that the model does not know."""
    assert seen(Split("time", 0.5, 2.0), log([("a", 1), ("a", 2), ("a", 3)])).tolist() == [True, False, False]


@given(logs, shares, salts)
def test_seen_and_unseen_rows_are_all_rows(rows, share, salt):
    """Every row is on one side and on one only."""
    examples = log(rows)
    for split in (choose_split(examples, share), Split("customer", share, salt=salt)):
        mask = seen(split, examples)
        sides = [examples.take(side).decision_id.to_pylist() for side in (mask, ~mask)]
        assert sorted([*sides[0], *sides[1]]) == sorted(examples.decision_id.to_pylist())


@given(logs, logs, shares, salts)
def test_a_customer_is_on_one_side_for_good(earlier, later, share, salt):
    """In every row, and in a later log with other customers around."""
    split = Split("customer", share, salt=salt)
    sides: dict[str, set[bool]] = {}
    for rows in (earlier, [*later, *earlier]):
        for (customer, _), side in zip(rows, seen(split, log(rows)).tolist(), strict=True):
            sides.setdefault(customer, set()).add(side)
    assert all(len(found) == 1 for found in sides.values())


@given(logs, shares, shares, salts)
def test_a_larger_share_keeps_every_customer_of_a_smaller_one(rows, one, other, salt):
    """Training on more must not move a customer from the learned side to the evaluated one."""
    smaller, larger = (seen(Split("customer", share, salt=salt), log(rows)) for share in sorted((one, other)))
    assert (smaller <= larger).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_share_of_customers_is_the_share_that_was_asked_for(share):
    """5,000 customers; the hash is even to three standard errors."""
    mask = seen(Split("customer", share), log([(f"customer-{i}", 0) for i in range(5000)]))
    assert mask.mean() == pytest.approx(share, abs=3 * (share * (1 - share) / 5000) ** 0.5)


def test_another_salt_puts_half_of_the_customers_on_the_other_side():
    """A new experiment is not stuck with the sides of the last one."""
    examples = log([(f"customer-{i}", 0) for i in range(5000)])
    one, other = (seen(Split("customer", 0.5, salt=salt), examples) for salt in ("", "again"))
    assert (one != other).mean() == pytest.approx(0.5, abs=0.03)


@given(st.text(), salts)
def test_a_place_is_a_number_from_zero_to_one_that_depends_on_customer_and_salt(customer, salt):
    """Asked again it is the same; another customer or salt has its own."""
    place = customer_share(customer, salt)
    assert 0.0 <= place < 1.0
    assert place == customer_share(customer, salt)
    assert place != customer_share(customer + "x", salt)
    assert place != customer_share(customer, salt + "x")
