"""Decision ids that lead to the customer's contact history: whoever sends an outcome needs to know no more than the id."""

import re
import secrets
from functools import lru_cache
from hashlib import blake2b

CUSTOMER_BYTES = 10  # of a hash: 100 million customers share one with odds of 1 in 240 million
RANDOM_BYTES = 8
OURS = re.compile(rf"[0-9a-f]{{{2 * (RANDOM_BYTES + CUSTOMER_BYTES)}}}\Z")


@lru_cache(maxsize=65_536)
def customer_key(customer_id: str) -> str:
    """The name of a customer's contact history: 20 hexadecimal digits."""
    return blake2b(customer_id.encode(), digest_size=CUSTOMER_BYTES).hexdigest()


def new_decision_id(customer_id: str) -> str:
    """A fresh id: chance, then the customer's key."""
    return secrets.token_hex(RANDOM_BYTES) + customer_key(customer_id)


def key_in(decision_id: str) -> str | None:
    """The customer's key in an id of ours; None in an id that a client chose."""
    return decision_id[2 * RANDOM_BYTES :] if OURS.match(decision_id) else None
