"""What a segment loses: intervals that hold together, segments of too few rows, and losses that are no news."""

import numpy as np
import pytest

from training.off_policy import Interval, Rows
from training.segment_losses import Compared, Loss, segment_losses

SIZE, SEGMENTS = 8000, 20
OFF, ON = 0, 1


def compared(chance: np.random.Generator, challenger_on: np.ndarray, size: int = SIZE) -> Compared:
    """Two actions, logged by the toss of a coin: `on` succeeds in 30 %, `off` in 10 % of the rows. The champion is always on."""
    served = chance.integers(0, 2, size)
    reward = (chance.random(size) < np.where(served == ON, 0.3, 0.1)).astype(float)

    def seen(on: np.ndarray) -> Rows:
        weight = np.where(served == ON, on, 1 - on) / 0.5
        return Rows(weight, reward, np.where(served == ON, 0.25, 0.15), on * 0.25 + (1 - on) * 0.15)

    return Compared(seen(challenger_on), seen(np.ones(size)), np.arange(size))


def segments(size: int = SIZE) -> list[tuple[str, np.ndarray]]:
    of = np.arange(size) % SEGMENTS
    return [(f"s{number}", of == number) for number in range(SEGMENTS)]


def test_a_segment_that_is_neglected_is_found_and_no_other():
    """Always off in one of twenty: 0.2 of 0.3 are lost there; nothing is lost where both choose the same."""
    on = np.where(np.arange(SIZE) % SEGMENTS == 7, 0.0, 1.0)
    losses = segment_losses(compared(np.random.default_rng(0), on), segments())
    assert [one.name for one in losses if one.is_beyond(0.1)] == ["s7"]
    [found] = [one for one in losses if one.name == "s7"]
    assert found.lost.low < 0.2 < found.lost.high
    assert [one.lost.value for one in losses if one.name != "s7"] == [0.0] * (SEGMENTS - 1)


def test_the_intervals_of_all_segments_hold_together():
    """200 logs, twenty segments each, half on: in 192 all twenty intervals hold 0.1; without Bonferroni's width in 80."""
    held, narrow = 0, 0
    for seed in range(200):
        losses = segment_losses(compared(np.random.default_rng(seed), np.full(SIZE, 0.5)), segments())
        assert len(losses) == SEGMENTS
        held += all(one.lost.low <= 0.1 <= one.lost.high for one in losses)
        narrow += all(abs(one.lost.value - 0.1) <= (one.lost.high - one.lost.value) * 1.96 / 3.02 for one in losses)
    assert held / 200 >= 0.91
    assert narrow / 200 < 0.5


def test_segments_of_too_few_effective_rows_are_not_judged():
    """A policy that hardly ever agrees with the log cannot be held to a loss; the intervals of the others grow narrower."""
    both = compared(np.random.default_rng(1), np.full(SIZE, 0.5))
    few = ("few", np.arange(SIZE) < 60)
    [alone] = segment_losses(both, segments()[:1])
    [beside] = segment_losses(both, [few, *segments()[:1]])
    assert beside == alone
    two = segment_losses(both, segments()[:2])
    assert two[0].lost.low < alone.lost.low
    assert segment_losses(both, [few]) == []


def test_rows_that_nobody_decides_make_no_segment():
    """Both do what the log did in all but sixty rows: weights of one are no evidence."""
    both = compared(np.random.default_rng(1), np.full(SIZE, 0.5))
    decided = np.arange(SIZE) < 60
    few = both._replace(challenger=both.challenger._replace(decided=decided), champion=both.champion._replace(decided=decided))
    assert segment_losses(few, [("all", np.ones(SIZE, np.bool_))]) == []


def test_rows_of_one_customer_go_together():
    """Four rows each: the interval is wider than that of rows by themselves."""
    size = 2000
    one = compared(np.random.default_rng(2), np.full(size, 0.5), size)
    rows = np.tile(np.arange(size), 4)
    four = Compared(one.challenger.take(rows), one.champion.take(rows), one.clusters[rows])
    every = [("all", np.ones(4 * size, np.bool_))]
    [together], [apart] = segment_losses(four, every), segment_losses(four._replace(clusters=np.arange(4 * size)), every)
    assert together.lost.high - together.lost.value == pytest.approx(2 * (apart.lost.high - apart.lost.value), rel=0.01)


@pytest.mark.parametrize(
    ("low", "value", "beyond"), [(0.0101, 0.1, True), (0.0099, 0.1, False), (-0.01, -0.2, False), (0.001, -0.2, True)]
)
def test_a_loss_counts_where_all_of_its_interval_is_beyond_the_share(low, value, beyond):
    """A tenth of what the champion is worth there; a champion that is worth less than nothing has nothing to lose a share of."""
    assert Loss("s", Interval(0.02, low, 0.03), value).is_beyond(0.1) == beyond


def test_a_loss_is_told_with_its_interval_and_what_it_is_of():
    """As the gate prints it."""
    told = Loss("`customer.region` = north", Interval(0.012, 0.004, 0.02), 0.11).told()
    assert told == "`customer.region` = north: loses 0.012 [0.004, 0.020] a decision of 0.110"
