"""Choosing among what may be offered, and knowing how likely that choice was."""

import hashlib

import numpy as np
import numpy.typing as npt

Allowed = npt.NDArray[np.bool_]
Probabilities = npt.NDArray[np.float64]
Choices = npt.NDArray[np.intp]

NONE_LEFT = -1  # in place of an action's position where a request has nothing left to choose


def greedy(utilities: npt.NDArray[np.float64], allowed: Allowed) -> Choices:
    """Position of the allowed action with the highest utility; the first of several; NONE_LEFT without any.

    Shapes: (requests, actions), (requests, actions) -> (requests,).
    """
    best: Choices = np.where(allowed, utilities, -np.inf).argmax(axis=1)
    return np.where(allowed[np.arange(len(best)), best], best, NONE_LEFT)


def epsilon_greedy(utilities: npt.NDArray[np.float64], allowed: Allowed, epsilon: float) -> Probabilities:
    """How likely each action is chosen: 1 - epsilon on the best, epsilon spread evenly over all that is allowed.

    float64, (requests, actions); a row sums to 1, or to 0 where nothing is allowed. Sutton and Barto 2018, section 2.2.
    """
    count = allowed.sum(axis=1, keepdims=True)
    probabilities = np.where(allowed, epsilon / np.maximum(count, 1), 0.0)
    best = greedy(utilities, allowed)
    rows = np.flatnonzero(best != NONE_LEFT)
    probabilities[rows, best[rows]] += 1.0 - epsilon
    return probabilities


def draw(probabilities: Probabilities, uniforms: npt.NDArray[np.float64]) -> Choices:
    """One position per row, chosen with its probability by inverting the cumulative sum; NONE_LEFT for a row of zeros.

    `uniforms`: float64 in [0, 1), (requests,).
    """
    cumulative = probabilities.cumsum(axis=1)
    total = cumulative[:, -1]
    chosen: Choices = (cumulative > (uniforms * total)[:, None]).argmax(axis=1)  # a zero probability never raises the sum
    return np.where(total > 0.0, chosen, NONE_LEFT)


def uniform(decision_id: str, placement: str, slot: int) -> float:
    """The random number of one slot, in [0, 1) with 53 bits: a hash, so that the same decision id draws the same."""
    digest = hashlib.blake2b(f"{decision_id}\x1f{placement}\x1f{slot}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53
