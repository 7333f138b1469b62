"""Which rows a model may learn from, and which it must never see."""

import hashlib

import numpy as np
import numpy.typing as npt

from service.bundles.manifest import Split
from training.examples import Examples

TRAIN_SHARE = 0.5
DISTINCT = 0.1  # share of rows with a time of their own, from which on a log counts as ordered in time
DATES = 14  # moments from which on it does as well: dates without a time of day, each weekday on either side
FEWEST_UNSEEN = 1000  # rows, or a tenth of all where that is less: with fewer nothing can be judged


def choose_split(examples: Examples, share: float = TRAIN_SHARE, oldest: float = np.inf) -> Split:
    """By time where the log has times, otherwise by customer.

    A first moment that has more rows than the share is learned from as a whole: an import has one for all of its rows. What lies
    further back than `oldest` seconds before the newest row is learned from, too, as long as enough is left to judge by: a model
    that knows nothing of that time is stale when it is made.
    """
    moments = np.unique(examples.decided_at)
    if len(moments) <= max(1.0, DISTINCT * len(examples)) and len(moments) < DATES:
        return Split(by="customer", share=share)
    until = max(float(np.quantile(examples.decided_at, share)), float(moments[1]))
    first = int(np.searchsorted(moments, moments[-1] - oldest))  # the oldest moment that the newest row to learn from may have
    if first + 1 < len(moments) and moments[first + 1] > until:
        later = float(moments[first + 1])
        if (examples.decided_at >= later).sum() >= min(FEWEST_UNSEEN, 0.1 * len(examples)):
            until = later
    return Split(by="time", share=share, until=until)


def seen(split: Split, examples: Examples) -> npt.NDArray[np.bool_]:
    """The rows on the model's side: bool, (rows,)."""
    if split.by == "time":
        return examples.decided_at < (split.until if split.until is not None else np.inf)
    distinct, inverse = np.unique(examples.customer_id, return_inverse=True)
    return np.array([customer_share(c, split.salt) < split.share for c in distinct.tolist()], np.bool_)[inverse]


def customer_share(customer_id: str, salt: str) -> float:
    """A customer's place in [0, 1): a hash, so that a customer is on one side for good."""
    digest = hashlib.blake2b(customer_id.encode(), key=salt.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64
