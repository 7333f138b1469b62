"""BG/NBD and gamma-gamma: published figures, closed forms, known parameters, and purchases that really came."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import hyp2f1
from scipy.stats import beta, gamma

from features.lifetime import (
    Amounts,
    Purchases,
    TooLittleHistory,
    amount_likelihood,
    chance_alive,
    expected_amount,
    expected_purchases,
    fit_amounts,
    fit_purchases,
    purchase_likelihood,
)

CDNOW = Purchases(r=0.243, alpha=4.414, a=0.793, b=2.426)  # Fader, Hardie and Lee 2005, table 2; weeks
CDNOW_AMOUNTS = Amounts(p=6.25, q=3.74, gamma=15.44)  # Fader and Hardie 2013
X, T_X, AGE = np.array([0.0, 1, 2, 5, 20, 60]), np.array([0.0, 3, 20, 30, 35, 38]), np.array([38.86, 3.1, 38, 38, 39, 39])


def simulate(model: Purchases, ages, ahead: float, chance):
    """Customers as the model has them: repeats, time of the last one, and purchases in the time ahead."""
    count = len(ages)
    rate, leaving = chance.gamma(model.r, 1 / model.alpha, count), chance.beta(model.a, model.b, count)
    x, t_x, later, now = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count)
    alive = np.arange(count)
    while alive.size:
        now[alive] += chance.exponential(1 / rate[alive])
        before, ahead_too = now[alive] <= ages[alive], now[alive] <= ages[alive] + ahead
        x[alive[before]] += 1
        t_x[alive[before]] = now[alive[before]]
        later[alive[ahead_too & ~before]] += 1
        alive = alive[ahead_too & (chance.random(len(alive)) >= leaving[alive])]
    return x, t_x, later


def closed_form(model: Purchases, x, t_x, age, ahead):
    """Eq. 10 as it is printed."""
    r, alpha, a, b = model
    factor = ((alpha + age) / (alpha + age + ahead)) ** (r + x)
    grown = 1 - factor * hyp2f1(r + x, b + x, a + b + x - 1, ahead / (alpha + age + ahead))
    return (a + b + x - 1) / (a - 1) * grown * chance_alive(model, x, t_x, age)


def test_a_customer_of_the_published_example_is_expected_to_buy_as_published():
    """CDNOW, 39 weeks ahead: 1.226 purchases of who bought twice again, last in week 30.43 of 38.86."""
    [found] = expected_purchases(CDNOW, np.array([2.0]), np.array([30.43]), np.array([38.86]), 39.0)
    assert found == pytest.approx(1.226, abs=5e-4)


def test_the_likelihood_is_the_probability_of_the_history_under_the_published_parameters():
    """A mean over 20,000 rates and chances of leaving, evenly picked: Poisson purchases while alive, eq. 3 and 4."""
    evenly = (np.arange(20_000) + 0.5) / 20_000
    rate, leaving = gamma.ppf(evenly, CDNOW.r, scale=1 / CDNOW.alpha), beta.ppf(evenly, CDNOW.a, CDNOW.b)
    for x, t_x, age in [(0, 0.0, 38.86), (1, 1.71, 38.86), (2, 30.43, 38.86), (6, 12.0, 20.0)]:
        stayed, left = ((1 - leaving) ** x).mean(), (leaving * (1 - leaving) ** max(x - 1, 0)).mean() if x else 0.0
        expected = (rate**x * (stayed * np.exp(-rate * age) + left * np.exp(-rate * t_x))).mean()
        [found] = purchase_likelihood(CDNOW, np.array([float(x)]), np.array([t_x]), np.array([age]))
        assert found == pytest.approx(np.log(expected), abs=2e-3)


@pytest.mark.parametrize("a", [0.05, 0.793, 1.5, 3.0])
def test_the_quadrature_is_the_closed_form_where_that_one_works(a):
    """To 1e-9, for few and many purchases."""
    model = CDNOW._replace(a=a)
    expected = closed_form(model, X, T_X, AGE, 39.0)
    assert expected_purchases(model, X, T_X, AGE, 39.0) == pytest.approx(expected, rel=1e-9)


def test_the_quadrature_knows_no_pole_and_no_overflow():
    """At a = 1 the closed form divides by zero; with thousands of purchases it overflows; both are ordinary here."""
    around = [expected_purchases(CDNOW._replace(a=a), X, T_X, AGE, 39.0) for a in (1 - 1e-4, 1.0, 1 + 1e-4)]
    assert around[1] == pytest.approx((around[0] + around[2]) / 2, rel=1e-6)
    busy = expected_purchases(CDNOW, np.array([5000.0]), np.array([700.0]), np.array([700.1]), 52.0)
    assert 200 < busy[0] < 5000 / 700 * 52
    for extreme in (CDNOW._replace(a=1e-5, b=1e5), CDNOW._replace(a=1e5, b=1e5), CDNOW._replace(a=1e-5, b=1e-5)):
        assert np.isfinite(expected_purchases(extreme, X, T_X, AGE, 39.0)).all()


def test_known_parameters_are_found_again_and_purchases_to_come_are_expected():
    """20,000 customers: rate and chance of leaving within a tenth, purchases of the year ahead within 3 per cent."""
    chance = np.random.default_rng(3)
    ages = chance.integers(26, 52, 20_000).astype(np.float64)
    x, t_x, later = simulate(CDNOW, ages, 52.0, chance)
    found = fit_purchases(x, t_x, ages)
    assert purchase_likelihood(found, x, t_x, ages).sum() >= purchase_likelihood(CDNOW, x, t_x, ages).sum()
    assert (found.r, found.alpha) == pytest.approx((CDNOW.r, CDNOW.alpha), rel=0.1)
    assert found.a / (found.a + found.b) == pytest.approx(CDNOW.a / (CDNOW.a + CDNOW.b), rel=0.1)
    expected = expected_purchases(found, x, t_x, ages, 52.0)
    assert expected.sum() == pytest.approx(later.sum(), rel=0.03)
    for group in (x == 0, (x > 0) & (x <= 3), x > 3):
        assert expected[group].sum() == pytest.approx(later[group].sum(), rel=0.08)


def test_the_chance_of_being_alive_falls_with_silence_and_is_whole_before_the_second_purchase():
    """In this model nobody leaves before having bought again."""
    x, silent = np.array([0.0, 5.0, 5.0, 5.0]), np.array([0.0, 38.0, 20.0, 5.0])
    found = chance_alive(CDNOW, x, silent, np.full(4, 39.0))
    assert found[0] == 1.0
    assert 1.0 > found[1] > found[2] > found[3] > 0.0


def test_amounts_are_drawn_towards_what_customers_pay():
    """Parameters are found again; one purchase says little about a customer, thirty say nearly everything."""
    chance = np.random.default_rng(4)
    count = chance.integers(1, 9, 20_000).astype(np.float64)
    v = chance.gamma(CDNOW_AMOUNTS.q, 1 / CDNOW_AMOUNTS.gamma, len(count))
    mean = chance.gamma(CDNOW_AMOUNTS.p * count, 1 / v) / count
    found = fit_amounts(count, mean)
    assert np.array(found) == pytest.approx(np.array(CDNOW_AMOUNTS), rel=0.1)
    population = CDNOW_AMOUNTS.p * CDNOW_AMOUNTS.gamma / (CDNOW_AMOUNTS.q - 1)
    one, thirty, nobody = expected_amount(CDNOW_AMOUNTS, np.array([1.0, 30.0, 0.0]), np.array([100.0, 100.0, np.nan]))
    assert nobody == pytest.approx(population)
    assert population < one < thirty < 100.0


def test_the_density_of_mean_amounts_has_mass_one():
    """Eq. 1a is a density over the mean of x purchases."""
    mass, _ = quad(
        lambda m: float(np.exp(amount_likelihood(CDNOW_AMOUNTS, np.array([3.0]), np.array([m]))[0])), 0, 5000, limit=400
    )
    assert mass == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("x", "problem"),
    [
        (np.ones(50), "at least 100 customers, 30 of whom bought again, found 50 and 50"),
        (np.zeros(200), "found 200 and 0"),
    ],
)  # fmt: skip
def test_too_few_customers_are_refused_with_what_was_found(x, problem):
    """Four parameters cannot be read from a handful of purchases."""
    with pytest.raises(TooLittleHistory, match=problem):
        fit_purchases(x, x * 2, x + 5)


def test_amounts_that_tell_no_mean_are_refused():
    """Nobody who paid anything; or amounts so uneven that their mean over customers does not exist."""
    with pytest.raises(TooLittleHistory, match="amounts of at least 100 customers, found 0"):
        fit_amounts(np.ones(500), np.zeros(500))
    chance = np.random.default_rng(5)
    v = chance.gamma(0.5, 1.0, 5000)
    with pytest.raises(TooLittleHistory, match="q above 1"):
        fit_amounts(np.full(5000, 4.0), chance.gamma(8.0, 1 / v) / 4)
