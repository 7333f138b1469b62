"""The figures by their definitions: pairs counted one by one, bins added up by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from training.scores import area_under_curve, calibration_error, ranked, scores

# Few distinct rates, so that many are equal.
rated = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.1, 0.2, 0.5, 0.9])), min_size=1, max_size=30)


def columns(rows) -> tuple[np.ndarray, np.ndarray]:
    return np.array([label for label, _ in rows]), np.array([rate for _, rate in rows])


@given(rated)
def test_the_area_is_the_share_of_pairs_in_the_right_order_with_ties_half(rows):
    """Every success against every failure: 1 if it is ranked above, one half if they are equal."""
    labels, rates = columns(rows)
    pairs = [(s, f) for s in rates[labels == 1] for f in rates[labels == 0]]
    right = sum(1.0 if s > f else 0.5 if s == f else 0.0 for s, f in pairs)
    assert area_under_curve(labels, rates) == pytest.approx(right / len(pairs) if pairs else 0.5)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_without_both_successes_and_failures_nothing_was_ranked(label):
    """No pairs: one half, and no division by zero."""
    assert area_under_curve(np.full(3, label), np.array([0.1, 0.2, 0.3])) == 0.5


@given(rated)
def test_how_likely_chance_is_to_rank_so_is_mann_and_whitneys_test(rows):
    """As SciPy has it, with ties and continuity; rows that are all of one stratum are no other case."""
    labels, rates = columns(rows)
    auc, above, below = ranked(labels, rates)
    assert ranked(labels, rates, np.ones(len(rows), np.int64)) == (auc, above, below)
    won, lost = rates[labels > 0], rates[labels == 0]
    if len(won) and len(lost) and len(set(rates.tolist())) > 1:
        assert auc == pytest.approx(area_under_curve(labels, rates))
        assert above == pytest.approx(mannwhitneyu(won, lost, alternative="greater", method="asymptotic").pvalue)
        assert below == pytest.approx(mannwhitneyu(won, lost, alternative="less", method="asymptotic").pvalue)
    else:
        assert (auc, above, below) == (0.5, 1.0, 1.0)


def test_rows_of_different_strata_are_not_compared():
    """Within each the better one is ranked above; all together would say the opposite of most pairs."""
    chance = np.random.default_rng(0)
    strata = np.repeat([1, 2], 400)
    better = chance.random(800) < np.where(strata == 2, 0.9, 0.1)  # what stood low was mostly the better one
    rates = np.where(better, 0.6, 0.4)
    labels = (chance.random(800) < rates * np.where(strata == 1, 1.0, 0.2)).astype(float)
    assert area_under_curve(labels, rates) < 0.5
    auc, above, _ = ranked(labels, rates, strata)
    pairs = [
        (s, f) for one in (1, 2) for s in rates[(strata == one) & (labels > 0)] for f in rates[(strata == one) & (labels == 0)]
    ]
    assert auc == pytest.approx(np.mean([1.0 if s > f else 0.5 if s == f else 0.0 for s, f in pairs]))
    assert auc > 0.5
    assert above < 0.1


def test_chance_ranks_strata_as_high_as_it_says():
    """Of 400 rankings of three strata by chance about one in ten is as unlikely as that."""
    chance, strata = np.random.default_rng(1), np.repeat([1, 2, 3], [200, 100, 50])
    found = [ranked((chance.random(350) < 0.6 / strata).astype(float), chance.random(350), strata)[1] for _ in range(400)]
    assert np.mean(np.array(found) < 0.1) == pytest.approx(0.1, abs=0.05)


def test_a_score_of_customers_has_no_skill_because_each_of_them_has_many_rows():
    """Forty decisions of each of 100 customers, whose rates differ, ranked by noise: one in 100 is as unlikely as that."""
    chance, clusters = np.random.default_rng(2), np.repeat(np.arange(100), 40)
    plain, found = [], []
    for _ in range(200):
        labels, rates = (chance.random(4000) < chance.beta(0.5, 4.5, 100)[clusters]).astype(float), chance.random(100)[clusters]
        plain.append(ranked(labels, rates)[1] < 0.01)
        found.append(ranked(labels, rates, None, clusters)[1] < 0.01)
    assert sum(plain) > 20
    assert sum(found) <= 8


def test_rows_of_customers_who_come_once_are_ranked_as_ever():
    """Each its own cluster, in strata or not: the same figures, but for what chance makes of a variance."""
    chance = np.random.default_rng(3)
    labels, rates, strata = (chance.random(3000) < 0.2).astype(float), chance.random(3000), chance.integers(1, 4, 3000)
    assert ranked(labels, rates, strata, np.arange(3000)) == pytest.approx(ranked(labels, rates, strata), abs=0.01)


def test_calibration_error_is_the_mean_gap_of_ten_bins_of_equal_size():
    """Twenty rows, two a bin: nine bins are right, the last says 0.9 where half succeed."""
    rates = np.repeat([0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9], 2)
    labels = np.repeat([[0.0, 0.0], [0.0, 1.0]], [4, 6], axis=0).reshape(-1)
    assert calibration_error(labels, rates) == pytest.approx((9 * 0.0 + 0.4) / 10)


def test_fewer_rows_than_bins_are_bins_of_one():
    """Two rows: the gaps are 0.2 and 0.4."""
    assert calibration_error(np.array([1.0, 0.0]), np.array([0.8, 0.4])) == pytest.approx(0.3)


def test_one_rate_for_all_is_calibrated_if_it_is_the_base_rate():
    """Also where all failures come first: rows of equal rates must not fall into different bins by their place."""
    assert calibration_error(np.repeat([0.0, 1.0], 50), np.full(100, 0.5)) == pytest.approx(0.0, abs=1e-12)


@given(rated, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_count(rows, chance):
    """A figure describes a set of rows."""
    shuffled = chance.sample(rows, len(rows))
    assert scores(*columns(shuffled)) == pytest.approx(scores(*columns(rows)), abs=2e-6)


def test_log_loss_is_the_mean_surprise():
    """0.8 for a success and 0.4 for a failure: the mean of -ln 0.8 and -ln 0.6."""
    found = scores(np.array([1.0, 0.0]), np.array([0.8, 0.4]))
    assert found["log_loss"] == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2, abs=1e-6)
    assert found["base_rate"] == 0.5


def test_certainty_that_was_wrong_costs_much_and_not_everything():
    """A rate of 0 for a success counts as 1e-12: a figure that can be compared and stored."""
    assert scores(np.array([1.0, 1.0]), np.array([0.0, 1.0]))["log_loss"] == pytest.approx(-math.log(1e-12) / 2, abs=1e-5)
