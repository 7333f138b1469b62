"""How often customers will buy, and for how much: BG/NBD for purchases, gamma-gamma for amounts, by maximum likelihood.

Purchases: Fader, Hardie and Lee 2005, "Counting Your Customers" the Easy Way: while a customer lives, purchases come at random
with a rate that is gamma distributed over customers, and after each one the customer may leave for good, with a chance that is
beta distributed. Amounts: Fader and Hardie 2013, The Gamma-Gamma Model of Monetary Value.

A customer is `x` repeat purchases (the first does not count), `t_x` when the last one was and `age` until when we have looked,
both from the first purchase on, in one unit of time (here: weeks); arrays of one length.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import betaln, gammaln, roots_jacobi

Values = npt.NDArray[np.float64]

FEWEST_CUSTOMERS = 100
FEWEST_REPEATERS = 30
MOST_CUSTOMERS = 50_000  # what a fit looks at, evenly picked beyond: its parameters are then good to 1 or 2 %
NODES = 64  # of the quadrature: 1e-9 of the closed form, and of 400 nodes where that one fails
LOG_BOUNDS = (-12.0, 12.0)  # of log parameters: where nobody ever leaves, the likelihood is flat, and its end is out of sight
NO_LIKELIHOOD = 1e10  # a loss beyond any that rows have
TOLERANCE = 1e-10  # of the mean log-likelihood


class TooLittleHistory(ValueError):
    """The customers do not tell the parameters; the message says what is lacking."""


class Purchases(NamedTuple):
    """BG/NBD: rates are gamma (`r`, `alpha`), chances of leaving beta (`a`, `b`). `alpha` is in units of time."""

    r: float
    alpha: float
    a: float
    b: float


class Amounts(NamedTuple):
    """Gamma-gamma: amounts of a customer are gamma (`p`, v), and v is gamma (`q`, `gamma`)."""

    p: float
    q: float
    gamma: float


def fit_purchases(x: Values, t_x: Values, age: Values) -> Purchases:
    """The likeliest parameters. 50,000 customers take 2 s. Raises TooLittleHistory."""
    if len(x) < FEWEST_CUSTOMERS or (x > 0).sum() < FEWEST_REPEATERS:
        raise TooLittleHistory(
            f"Expected at least {FEWEST_CUSTOMERS} customers, {FEWEST_REPEATERS} of whom bought again, found {len(x)} and "
            f"{(x > 0).sum()}"
        )
    rows, weights = np.unique(np.stack([x, t_x, age], axis=1)[_picked(len(x))], axis=0, return_counts=True)
    scale = max(float(rows[:, 2].mean()), 1e-9)
    found = _maximum(lambda logs: purchase_likelihood(_purchases(logs, scale), *rows.T), weights, [0.0, 0.0, 0.0, 0.5])
    return _purchases(found, scale)


def _purchases(logs: Values, scale: float) -> Purchases:
    r, alpha, a, b = np.exp(logs).tolist()
    return Purchases(r, alpha * scale, a, b)


def purchase_likelihood(model: Purchases, x: Values, t_x: Values, age: Values) -> Values:
    """Log-likelihood of each customer: eq. 6, its two terms added in logarithms."""
    r, alpha, a, b = model
    common = gammaln(r + x) - gammaln(r) + r * np.log(alpha) - betaln(a, b)
    alive = betaln(a, b + x) - (r + x) * np.log(alpha + age)
    left = betaln(a + 1, b + np.maximum(x, 1.0) - 1) - (r + x) * np.log(alpha + t_x)
    found: Values = common + np.where(x > 0, np.logaddexp(alive, left), alive)
    return found


def chance_alive(model: Purchases, x: Values, t_x: Values, age: Values) -> Values:
    """The chance that a customer has not left: Fader, Hardie and Lee 2008, Computing P(alive) Using the BG/NBD Model."""
    r, alpha, a, b = model
    odds_left = np.log(a) - np.log(b + np.maximum(x, 1.0) - 1) + (r + x) * (np.log(alpha + age) - np.log(alpha + t_x))
    found: Values = np.where(x > 0, np.exp(-np.logaddexp(0.0, odds_left)), 1.0)
    return found


def expected_purchases(model: Purchases, x: Values, t_x: Values, age: Values, ahead: float) -> Values:
    """Purchases in the next `ahead` units of time: eq. 10, as an integral instead of a hypergeometric function.

    Whoever lives buys at a rate from gamma(r + x, alpha + age) and leaves with a chance p from beta(a, b + x). Given both, eq. 3
    says 1/p - exp(-rate p t)/p; over the rate that is (1 - (1 + p t / (alpha + age))^-(r + x)) / p, smooth in p. So quadrature
    over p meets neither the pole of eq. 10 at a = 1 nor a 2F1 that fails for a hundred purchases and more.
    """
    alive = np.empty(len(x))
    for repeats in np.unique(x):
        rows = x == repeats
        alive[rows] = _if_alive(model, float(repeats), age[rows], ahead)
    found: Values = alive * chance_alive(model, x, t_x, age)
    return found


def _if_alive(model: Purchases, repeats: float, ages: Values, ahead: float) -> Values:
    """The integral for customers with equally many purchases: Gauss-Jacobi, once for each different age."""
    distinct, inverse = np.unique(ages, return_inverse=True)
    nodes, weights = _beta_nodes(model.a, model.b + repeats)
    grown = np.log1p(nodes * ahead / (model.alpha + distinct[:, None]))
    found: Values = (-np.expm1(-(model.r + repeats) * grown) / nodes) @ weights
    return found[inverse]


def _beta_nodes(a: float, b: float) -> tuple[Values, Values]:
    """Where to evaluate, and with which weight, for a mean over beta(a, b): (NODES,) each. A narrow one is its mean alone."""
    with np.errstate(all="ignore"):  # SciPy's recurrences overflow for parameters beyond a few thousand
        try:
            places, weights = roots_jacobi(NODES, b - 1, a - 1)
        except (ValueError, np.linalg.LinAlgError):
            places, weights = np.array([np.nan]), np.array([np.nan])
    total = weights.sum()
    if not np.isfinite(places).all() or not np.isfinite(total) or total <= 0.0:
        return np.array([a / (a + b)]), np.ones(1)
    return np.maximum((1 + places) / 2, np.finfo(np.float64).tiny), weights / total


def fit_amounts(x: Values, mean: Values) -> Amounts:
    """From purchases and their mean amount, where there is any: the likeliest parameters. Raises TooLittleHistory."""
    known = (x > 0) & (mean > 0)
    if known.sum() < FEWEST_CUSTOMERS:
        raise TooLittleHistory(f"Expected amounts of at least {FEWEST_CUSTOMERS} customers, found {known.sum()}")
    x, mean = x[known], mean[known]
    picked = _picked(len(x))
    scale = float(np.median(mean))
    rows = x[picked], mean[picked] / scale
    found = _maximum(lambda logs: amount_likelihood(_amounts(logs, 1.0), *rows), np.ones(len(picked)), [0.5, 1.0, 0.5])
    model = _amounts(found, scale)
    if model.q <= 1.0:
        raise TooLittleHistory(f"Expected amounts with a mean over customers (q above 1), found q = {model.q:.3f}")
    return model


def _amounts(logs: Values, scale: float) -> Amounts:
    p, q, gamma = np.exp(logs).tolist()
    return Amounts(p, q, gamma * scale)


def amount_likelihood(model: Amounts, x: Values, mean: Values) -> Values:
    """Log-likelihood of each customer's mean amount: eq. 1a."""
    p, q, gamma = model
    total = np.log(gamma + x * mean)
    found: Values = -np.log(mean) - betaln(p * x, q) + q * (np.log(gamma) - total) + p * x * (np.log(x * mean) - total)
    return found


def expected_amount(model: Amounts, x: Values, mean: Values) -> Values:
    """Of a purchase to come: eq. 5, between what this customer pays and what customers pay."""
    p, q, gamma = model
    found: Values = p * (gamma + np.where(x > 0, x * mean, 0.0)) / (p * x + q - 1)
    return found


def _picked(count: int) -> npt.NDArray[np.intp]:
    return np.linspace(0, count - 1, min(count, MOST_CUSTOMERS)).astype(np.intp)


def _maximum(likelihood: Callable[[Values], Values], weights: npt.NDArray[np.generic], start: list[float]) -> Values:
    """The logarithms of the parameters of which the rows are likeliest. Raises TooLittleHistory where there is no maximum."""
    shares = weights / weights.sum()

    def loss(logs: Values) -> float:
        value = -float(likelihood(logs) @ shares)
        return value if np.isfinite(value) else NO_LIKELIHOOD

    found = minimize(
        loss, start, method="L-BFGS-B", bounds=[LOG_BOUNDS] * len(start), options={"ftol": TOLERANCE, "maxiter": 500}
    )
    if not np.isfinite(found.x).all() or found.fun >= NO_LIKELIHOOD:
        raise TooLittleHistory(f"Expected a likelihood with a maximum, found none: {found.message}")
    result: Values = found.x
    return result
