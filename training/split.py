"""Which rows a model may learn from, and which it must never see."""

import hashlib

import numpy as np
import numpy.typing as npt

from service.bundles.manifest import Split
from training.examples import Examples

TRAIN_SHARE = 0.5
DISTINCT = 0.1  # share of rows with a time of their own, from which on a log counts as ordered in time


def choose_split(examples: Examples, share: float = TRAIN_SHARE) -> Split:
    """By time where the log has times, otherwise by customer.

    A first moment that has more rows than the share is learned from as a whole: an import has one for all of its rows.
    """
    moments = np.unique(examples.decided_at)
    if len(moments) > max(1.0, DISTINCT * len(examples)):
        until = max(np.quantile(examples.decided_at, share), moments[1])
        return Split(by="time", share=share, until=float(until))
    return Split(by="customer", share=share)


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
