"""Choosing among what may be offered, and knowing how likely that choice was."""

import hashlib

import numpy as np
import numpy.typing as npt

from service.catalog.entities import Exploration
from service.decision.limits import Mask

Utilities = npt.NDArray[np.float64]
Probabilities = npt.NDArray[np.float64]
Choices = npt.NDArray[np.intp]

NONE_LEFT = -1  # in place of an action's position where a request has nothing left to choose


def greedy(utilities: Utilities, allowed: Mask) -> Choices:
    """Position of the allowed action with the highest utility; the first of several; NONE_LEFT without any.

    Shapes: (requests, actions), (requests, actions) -> (requests,).
    """
    best: Choices = np.where(allowed, utilities, -np.inf).argmax(axis=1)
    return np.where(allowed[np.arange(len(best)), best], best, NONE_LEFT)


def choice_probabilities(explore: Exploration, utilities: Utilities, allowed: Mask, best: Choices, thin: Mask) -> Probabilities:
    """How likely each action is chosen: float64, (requests, actions). A row sums to 1, or to 0 where nothing is allowed.

    A mixture: `epsilon` evenly over all that is allowed (Sutton and Barto 2018, section 2.2), `floor_share` evenly over the
    allowed ones among `thin`, those with little evidence (bool, (actions,)), and the rest on the best, or by softmax.
    `best` comes from `greedy`.
    """
    probabilities = _softmax(utilities, allowed, explore.temperature) if explore.temperature else _on(best, allowed.shape)
    if explore.epsilon:
        probabilities *= 1.0 - explore.epsilon
        probabilities += explore.epsilon * _evenly(allowed)
    if explore.floor_share:
        unsure = allowed & thin
        share = np.where(unsure.any(axis=1, keepdims=True), explore.floor_share, 0.0)
        probabilities *= 1.0 - share
        probabilities += share * _evenly(unsure)
    return probabilities


def first_mandatory(utilities: Utilities, allowed: Mask, mandatory: Mask) -> Choices:
    """The mandatory action that comes first, the best of several; NONE_LEFT where none may be offered. Shape (requests,)."""
    return greedy(utilities, allowed & mandatory)


def _on(best: Choices, shape: tuple[int, ...]) -> Probabilities:
    """All on one action a row."""
    probabilities = np.zeros(shape)
    rows = (best != NONE_LEFT).nonzero()[0]
    probabilities[rows, best[rows]] = 1.0
    return probabilities


def _evenly(allowed: Mask) -> Probabilities:
    count = np.add.reduce(allowed, axis=1, keepdims=True, dtype=np.intp)
    shares: Probabilities = allowed / np.maximum(count, 1)
    return shares


def _softmax(utilities: Utilities, allowed: Mask, temperature: float) -> Probabilities:
    """exp(utility / temperature), normalised. Slot after slot without replacement: Plackett-Luce (Plackett 1975, eq. 2)."""
    highest = np.where(allowed, utilities, -np.inf).max(axis=1, keepdims=True)
    scaled = np.where(allowed, utilities - np.where(np.isfinite(highest), highest, 0.0), -np.inf) / temperature
    weights = np.exp(scaled)
    total = weights.sum(axis=1, keepdims=True)
    shares: Probabilities = weights / np.where(total > 0.0, total, 1.0)
    return shares


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
    return fraction(f"{decision_id}\x1f{placement}\x1f{slot}")


def fraction(text: str) -> float:
    """A number in [0, 1) with 53 bits that depends on the text alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53
