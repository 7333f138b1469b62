"""Ids: of decisions, which lead to a contact history; of alerts; and of customers, which must be no personal data."""

import re
import secrets
from functools import lru_cache
from hashlib import blake2b

LONGEST_CUSTOMER = 256  # characters of an id, a customer's or another that a client sends
CUSTOMER_BYTES = 10  # of a hash: 100 million customers share one with odds of 1 in 240 million
RANDOM_BYTES = 8
ALERT_BYTES = 8  # of a hash: a million alerts share one with odds of 1 in 37 million
MAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")
PHONE = re.compile(r"\+\d[\d\s().-]{6,20}|\(\d{2,5}\)[\d\s.-]{5,15}")  # bare digits may be an account number
OURS = re.compile(rf"[0-9a-f]{{{2 * (RANDOM_BYTES + CUSTOMER_BYTES)}}}\Z")


@lru_cache(maxsize=65_536)
def customer_key(customer_id: str) -> str:
    """The name of a customer's contact history: 20 hexadecimal digits."""
    return blake2b(customer_id.encode(), digest_size=CUSTOMER_BYTES).hexdigest()


def new_decision_id(customer_id: str) -> str:
    """A fresh id: chance, then the customer's key."""
    return secrets.token_hex(RANDOM_BYTES) + customer_key(customer_id)


def with_key(decision_id: str, customer_id: str) -> str:
    """An id of ours, made to lead to another customer."""
    return without_key(decision_id) + customer_key(customer_id)


def without_key(decision_id: str) -> str:
    """What of an id of ours stays, whichever customer it is made to lead to."""
    return decision_id[: 2 * RANDOM_BYTES]


def alert_id_of(name: str, cause: str) -> str:
    """The id of an alert: the same for the same event, or the same customer and period, whoever judges it and however often."""
    return blake2b(f"{name} {cause}".encode(), digest_size=ALERT_BYTES).hexdigest()


def personal(identifier: str) -> str | None:
    """What kind of personal data an id plainly is, with advice; None where it looks like an id."""
    if "@" not in identifier and identifier[:1] not in ("+", "("):
        return None
    for pattern, what in ((MAIL, "an e-mail address"), (PHONE, "a phone number")):
        if pattern.fullmatch(identifier):
            return f"Expected an id that is nobody's personal data, got {what}: send its SHA-256 instead"
    return None


def key_in(decision_id: str) -> str | None:
    """The customer's key in an id of ours, None in another. An id of a client's that looks like ours has nobody's key."""
    return decision_id[2 * RANDOM_BYTES :] if OURS.match(decision_id) else None
