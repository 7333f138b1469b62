"""Slates of two slots: estimators against loops, against a world where every slate is written down, and slots that nobody saw."""

import itertools
import math

import numpy as np
import pytest

from training.off_policy_slates import (
    SLATE_ESTIMATORS,
    Seen,
    cascade,
    independent,
    lay_out,
    slate_dr,
    slate_ips,
    slate_snips,
    slate_value,
)

ACTIONS = 3
LOGGING, POLICY = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
FIRST = np.array([0.2, 0.5, 0.7])  # how often the first slot succeeds
SECOND = np.array([[0.0, 0.6, 0.1], [0.3, 0.0, 0.8], [0.5, 0.2, 0.0]])  # the second one, after each first action
ALONE = np.array([0.3, 0.5, 0.1])  # the second one, where the first does not matter
BELIEVED = np.array([0.4, 0.4, 0.5])  # by a model that is wrong


def second(policy: np.ndarray, first: int) -> np.ndarray:
    """What is left, as likely among itself: nothing is shown twice."""
    left = np.where(np.arange(ACTIONS) == first, 0.0, policy)
    return left / left.sum()


def marginal(policy: np.ndarray) -> np.ndarray:
    """Of the second slot, whatever the first shows."""
    return sum(policy[first] * second(policy, first) for first in range(ACTIONS))


def every_slate(interacts: bool):
    """All that a slate can be, with its probability: (first, second, rewards)."""
    for first, other, r1, r2 in itertools.product(range(ACTIONS), range(ACTIONS), (0, 1), (0, 1)):
        rate = (SECOND[first] if interacts else ALONE)[other]
        likely = LOGGING[first] * second(LOGGING, first)[other]
        yield first, other, (r1, r2), likely * (FIRST[first] if r1 else 1 - FIRST[first]) * (rate if r2 else 1 - rate)


def truth(interacts: bool) -> tuple[float, float]:
    """What the policy earns in each slot."""
    later = sum(
        POLICY[f] * second(POLICY, f)[s] * (SECOND[f] if interacts else ALONE)[s]
        for f, s in itertools.product(range(ACTIONS), repeat=2)
    )
    return float(POLICY @ FIRST), float(later)


def world(interacts: bool, assume):
    """Every slate as the policy sees it under an assumption, and how likely each is."""
    cases = [case for case in every_slate(interacts) if case[3] > 0]
    ratios, rewards, predicted, expected = [], [], [], []
    for first, other, reward, _ in cases:
        if assume is cascade:
            ratios.append((POLICY[first] / LOGGING[first], second(POLICY, first)[other] / second(LOGGING, first)[other]))
            expected.append((POLICY @ BELIEVED, second(POLICY, first) @ BELIEVED))
        else:
            ratios.append((POLICY[first] / LOGGING[first], marginal(POLICY)[other] / marginal(LOGGING)[other]))
            expected.append((POLICY @ BELIEVED, marginal(POLICY) @ BELIEVED))
        rewards.append(reward)
        predicted.append((BELIEVED[first], BELIEVED[other]))
    shown = np.ones((len(cases), 2), bool)
    seen = Seen(np.array(rewards, float), np.array(predicted), np.array(expected), shown)
    return assume(np.array(ratios), seen), np.array([case[3] for case in cases])


@pytest.mark.parametrize("estimator", [slate_ips, slate_dr])
@pytest.mark.parametrize(("assume", "interacts"), [(cascade, True), (cascade, False), (independent, False)])
def test_each_slot_is_right_on_average_where_the_assumption_holds(estimator, assume, interacts):
    """Over every slate there can be, weighted by its probability; the reward model is wrong on purpose."""
    rows, likely = world(interacts, assume)
    assert likely.sum() == pytest.approx(1.0)
    assert estimator(rows).T @ likely == pytest.approx(truth(interacts), abs=1e-12)


def test_slots_that_interact_mislead_who_takes_them_for_independent():
    """The second slot's average is off by more than 0.01 of 0.41, the first one's is right."""
    rows, likely = world(True, independent)
    first, later = slate_ips(rows).T @ likely
    assert first == pytest.approx(truth(True)[0])
    assert abs(later - truth(True)[1]) > 0.01


def test_independence_has_less_variance_where_it_may_be_assumed():
    """One weight instead of a product of two."""
    spreads = []
    for assume in (cascade, independent):
        rows, likely = world(False, assume)
        spreads.append(float((slate_ips(rows)[:, 1] - truth(False)[1]) ** 2 @ likely))
    assert spreads[1] < 0.8 * spreads[0]


def random_rows(chance, slates=40, slots=4):
    seen = Seen(*(chance.normal(size=(slates, slots)) for _ in range(3)), chance.random((slates, slots)) < 0.7)
    return chance.random((slates, slots)) * 3, seen


@pytest.mark.parametrize("name", SLATE_ESTIMATORS)
@pytest.mark.parametrize("assume", [cascade, independent])
def test_the_estimators_are_their_formulas_written_as_loops(name, assume):
    """Slot by slot, slate by slate; what was not shown is in no sum."""
    ratios, seen = random_rows(np.random.default_rng(5))
    found = SLATE_ESTIMATORS[name](assume(ratios, seen))
    for slot in range(4):
        weighted = weights = total = count = 0.0
        for slate in range(40):
            before = math.prod(ratios[slate, :slot]) if assume is cascade else 1.0
            weight = before * ratios[slate, slot]
            if not seen.shown[slate, slot]:
                assert math.isnan(found[slate, slot])
                continue
            weighted += weight * seen.reward[slate, slot]
            weights += weight
            count += 1
            total += before * seen.expected[slate, slot] + weight * (seen.reward[slate, slot] - seen.predicted[slate, slot])
        expected = {"ips": weighted / count, "snips": weighted / weights, "dr": total / count}[name]
        assert np.nanmean(found[:, slot]) == pytest.approx(expected)


def test_self_normalized_comes_near_the_truth_with_many_slates():
    """100,000 of them, drawn as the log draws."""
    rows, likely = world(True, cascade)
    drawn = np.random.default_rng(6).choice(len(likely), 100_000, p=likely)
    many = rows._replace(weight=rows.weight[drawn], seen=Seen(*(column[drawn] for column in rows.seen)))
    assert np.nanmean(slate_snips(many), axis=0) == pytest.approx(truth(True), abs=0.02)


def test_intervals_are_clustered_by_slate():
    """Two slots that always agree: the items' interval is as wide as that of the slates, not narrower by a root of two."""
    values = np.random.default_rng(7).normal(size=500)
    found = slate_value(np.column_stack([values, values]))
    assert found.item == pytest.approx(found.slots[0])
    assert found.slate == pytest.approx(tuple(2 * end for end in found.item))


def test_decisions_of_several_slates_may_be_clusters():
    """Every slate twice: no narrower than once."""
    values = np.random.default_rng(8).normal(size=(200, 2))
    once, twice = slate_value(values), slate_value(np.repeat(values, 2, axis=0), np.repeat(np.arange(200), 2))
    assert twice.item == pytest.approx(once.item)


@pytest.mark.parametrize("name", SLATE_ESTIMATORS)
def test_the_interval_holds_the_truth_in_95_of_100_logs(name):
    """300 logs of 400 slates; a standard error of the share is a bit more than one percent."""
    rows, likely = world(True, cascade)
    chance, held = np.random.default_rng(9), 0
    for _ in range(300):
        drawn = chance.choice(len(likely), 400, p=likely)
        log = rows._replace(weight=rows.weight[drawn], before=rows.before[drawn], seen=Seen(*(c[drawn] for c in rows.seen)))
        slate = slate_value(SLATE_ESTIMATORS[name](log)).slate
        held += slate.low <= sum(truth(True)) <= slate.high
    assert 0.91 <= held / 300 <= 0.99


def test_a_slot_that_was_not_shown_is_kept_apart():
    """It is no failure: the mean is of those that were shown; its ratio weighs the slots after it."""
    seen = Seen(
        np.array([[1.0, 1.0], [np.nan, 1.0]]), np.zeros((2, 2)), np.zeros((2, 2)), np.array([[True, True], [False, True]])
    )
    found = slate_ips(cascade(np.array([[1.0, 1.0], [3.0, 2.0]]), seen))
    assert found[0].tolist() == [1.0, 1.0]
    assert math.isnan(found[1, 0])
    assert found[1, 1] == 6.0
    value = slate_value(found)
    assert value.shown == (1, 2)
    assert value.slots[0].value == 1.0


def test_where_an_earlier_ratio_is_unknown_later_slots_have_no_weight():
    """Under the cascade they count as not shown; a slot of its own does not mind."""
    seen = Seen(np.ones((1, 3)), np.zeros((1, 3)), np.zeros((1, 3)), np.array([[True, False, True]]))
    ratios = np.array([[2.0, np.nan, 2.0]])
    assert cascade(ratios, seen).seen.shown.tolist() == [[True, False, False]]
    assert independent(ratios, seen).seen.shown.tolist() == [[True, False, True]]


def test_rows_are_laid_out_by_slate_and_slot():
    """A slate whose first slot nobody saw has a gap there, and keeps its position."""
    found = lay_out([("d1", "home"), ("d2", "home"), ("d1", "home"), ("d1", "mail")], np.array([1, 2, 3, 1]))
    assert found.shape == (3, 3)
    assert found.shown.tolist() == [[True, False, True], [False, True, False], [True, False, False]]
    spread = found.spread(np.array([0.1, 0.2, 0.3, 0.4]))
    assert spread[0, 2] == 0.3
    assert spread[1, 1] == 0.2


@pytest.mark.parametrize(("slots", "message"), [([1, 1], "found two"), ([0, 1], "from 1, got 0")])
def test_rows_that_are_no_slates_are_refused(slots, message):
    """Expected and found."""
    with pytest.raises(ValueError, match=message):
        lay_out([("d", "home")] * 2, np.array(slots))


def test_nothing_shown_has_no_value():
    """And a slot that is never shown has none."""
    with pytest.raises(ValueError, match="found none"):
        slate_value(np.full((2, 2), np.nan))
    assert slate_value(np.array([[1.0, np.nan], [0.0, np.nan]])).slots[1] is None
