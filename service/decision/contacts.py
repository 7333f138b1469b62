"""What a customer was shown and what came of it, as 16 bytes a contact: the form in which Redis and the record keep it.

Names are kept as hashes, so that a contact outlives the catalog it was made with and a new rule applies to the past at once.
"""

import math
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

ENTRY = np.dtype([("at", "<u4"), ("action", "<u4"), ("decision", "<u4"), ("placement", "<u2"), ("type", "<u2")])
SIZE = ENTRY.itemsize
_PACKED = struct.Struct("<IIIHH")
SERVED, CANCELLED = 1, 2  # a decision; a decision that was taken back before anybody saw it
IMPRESSION = 3
TYPES = {"impression": IMPRESSION, "click": 4, "accept": 5, "dismiss": 6, "conversion": 7}
FIRST_OTHER = 16  # types of other names are hashes from here on

History = npt.NDArray[np.void]


class Contact(msgspec.Struct, frozen=True):
    """One thing that happened between a customer and an action. `at`: seconds since 1970 UTC."""

    at: float
    action_id: str
    decision_id: str
    placement: str
    type: int


@lru_cache(maxsize=65_536)  # actions are few; a decision's id is hashed two or three times
def hash32(name: str) -> int:
    """32 bits of a name; 0 for no name, and for nothing else."""
    return (int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "little") or 1) if name else 0


@lru_cache(maxsize=4096)
def hash16(name: str) -> int:
    """16 bits of a name; 0 for no name, and for nothing else."""
    return (int.from_bytes(blake2b(name.encode(), digest_size=2).digest(), "little") or 1) if name else 0


def type_code(outcome: str) -> int:
    """The number of an outcome's type."""
    return TYPES.get(outcome) or FIRST_OTHER + hash32(outcome) % (2**16 - FIRST_OTHER)


def encode_contacts(contacts: Iterable[Contact]) -> bytes:
    """16 bytes each. A moment is rounded up to whole seconds, so that no window ends too early."""
    return b"".join(
        _PACKED.pack(math.ceil(c.at), hash32(c.action_id), hash32(c.decision_id), hash16(c.placement), c.type) for c in contacts
    )


class Contacts(NamedTuple):
    """The contacts of a batch of customers, one after the other: (contacts,) each. `row` is the customer's place in the batch."""

    row: npt.NDArray[np.intp]
    entries: History


def decode_contacts(histories: Sequence[bytes | None]) -> Contacts:
    """Histories as they lie in Redis; an unknown one has no contacts here. A cut-off last entry is left out."""
    whole = [b"" if h is None else h if len(h) % SIZE == 0 else h[: len(h) // SIZE * SIZE] for h in histories]
    entries = np.frombuffer(b"".join(whole), ENTRY)
    return Contacts(np.repeat(np.arange(len(whole)), [len(h) // SIZE for h in whole]), entries)
