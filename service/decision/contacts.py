"""What a customer was shown and what came of it, as 16 bytes a contact: the form in which Redis and the record keep it.

Names are kept as hashes (`service.catalog.hashed`).
"""

import math
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from service.catalog.hashed import hash16, hash32
from service.catalog.policies import KEPT_CONTACTS

ENTRY = np.dtype([("at", "<u4"), ("action", "<u4"), ("decision", "<u4"), ("placement", "<u2"), ("type", "<u2")])
SIZE = ENTRY.itemsize
_KEY, _WHAT, _DECISION, _TYPE = slice(4, 12), slice(4, 14), slice(8, 12), slice(14, 16)  # action and decision; and placement
_PACKED, _UINT = struct.Struct("<IIIHH"), struct.Struct("<I")
SERVED, CANCELLED = 1, 2  # a decision; a decision that was taken back before anybody saw it
_SERVED, _CANCELLED = SERVED.to_bytes(2, "little"), CANCELLED.to_bytes(2, "little")
IMPRESSION = 3
_SHOWN = (_SERVED, _CANCELLED, IMPRESSION.to_bytes(2, "little"))
TYPES = {"impression": IMPRESSION, "click": 4, "accept": 5, "dismiss": 6, "conversion": 7}
FIRST_OTHER = 16  # types of other names are hashes from here on

KEPT_BYTES = KEPT_CONTACTS * SIZE
KEPT_RESPONSES = 64  # of older contacts

History = npt.NDArray[np.void]


class Contact(msgspec.Struct, frozen=True):
    """One thing that happened between a customer and an action. `at`: seconds since 1970 UTC."""

    at: float
    action_id: str
    decision_id: str
    placement: str
    type: int


def type_code(outcome: str) -> int:
    """The number of an outcome's type."""
    return TYPES.get(outcome) or FIRST_OTHER + hash32(outcome) % (2**16 - FIRST_OTHER)


def encode_contacts(contacts: Iterable[Contact]) -> bytes:
    """16 bytes each. A moment is rounded up to whole seconds, so that no window ends too early."""
    return b"".join(
        _PACKED.pack(math.ceil(c.at), hash32(c.action_id), hash32(c.decision_id), hash16(c.placement), c.type) for c in contacts
    )


class Served:
    """What a history says was served and not taken back."""

    def __init__(self, history: bytes) -> None:
        self._served: dict[bytes, int] = {}
        self._taken_back: dict[bytes, int] = {}
        for entry in split_entries(history):
            if entry[_TYPE] == _SERVED:
                self._served[entry[_WHAT]] = max(entry_moment(entry), self._served.get(entry[_WHAT], -1))
            elif entry[_TYPE] == _CANCELLED:
                self._taken_back[entry[_KEY]] = max(entry_moment(entry), self._taken_back.get(entry[_KEY], -1))

    def with_new(self, entry: bytes) -> bytes | None:
        """A served entry as it is to be added; None where it stands already, whatever its moment.

        One that was taken back is served anew: it becomes younger than what took it back, and so is not taken back by that.
        """
        taken_back = self._taken_back.get(entry[_KEY], -1)
        if self._served.get(entry[_WHAT], -1) > taken_back:
            return None
        return _UINT.pack(max(entry_moment(entry), taken_back + 1)) + entry[_KEY.start :]


def split_entries(history: bytes) -> list[bytes]:
    """One by one. A cut-off last entry is left out."""
    return [history[start : start + SIZE] for start in range(0, len(history) - SIZE + 1, SIZE)]


def is_served(entry: bytes) -> bool:
    """Whether it tells of a decision, not of what came of it."""
    return entry[_TYPE] == _SERVED


def compacted(history: bytes) -> bytes:
    """The newest contacts of a history, and of older ones the newest that somebody answered with, such as a dismissal.

    What was shown to them is much more, and would push out what they said to it: 12 pages of 50 slots do.
    """
    older = split_entries(history[:-KEPT_BYTES])
    return b"".join([entry for entry in older if entry[_TYPE] not in _SHOWN][-KEPT_RESPONSES:]) + history[-KEPT_BYTES:]


def is_outcome(entry: bytes) -> bool:
    """Whether it tells of what came of a decision."""
    return entry[_TYPE] not in (_SERVED, _CANCELLED)


def entry_moment(entry: bytes) -> int:
    """When it was, in whole seconds since 1970 UTC."""
    at: int = _UINT.unpack_from(entry)[0]
    return at


def without_decision(history: bytes, decision_id: str) -> bytes:
    """A history as it would be if nothing of this decision had been served."""
    decision = _UINT.pack(hash32(decision_id))
    if decision not in history:
        return history
    return b"".join(e for e in split_entries(history) if not (is_served(e) and e[_DECISION] == decision))


def not_yet_in(history: bytes, contacts: Iterable[Contact]) -> tuple[Contact, ...]:
    """Of what a decision serves, that which a history does not hold (`Served.with_new`)."""
    served = Served(history)
    added = [(c, served.with_new(encode_contacts([c]))) for c in contacts]
    return tuple(msgspec.structs.replace(c, at=float(entry_moment(entry))) for c, entry in added if entry is not None)


def is_taken_back(
    keys: npt.NDArray[np.uint64], at: npt.NDArray[np.uint32], cancelled: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Which entries a cancelled one of the same key takes back: those that are not younger. All (entries,)."""
    _, names = np.unique(keys, return_inverse=True)
    last = np.full(len(keys), -1, np.int64)
    np.maximum.at(last, names[cancelled], at[cancelled].astype(np.int64))
    found: npt.NDArray[np.bool_] = at <= last[names]
    return found


class Contacts(NamedTuple):
    """The contacts of a batch of customers, one after the other: (contacts,) each. `row` is the customer's place in the batch."""

    row: npt.NDArray[np.intp]
    entries: History


def decode_contacts(histories: Sequence[bytes | None]) -> Contacts:
    """Histories as they lie in Redis; an unknown one has no contacts here. A cut-off last entry is left out."""
    whole = [b"" if h is None else h if len(h) % SIZE == 0 else h[: len(h) // SIZE * SIZE] for h in histories]
    entries = np.frombuffer(b"".join(whole), ENTRY)
    return Contacts(np.repeat(np.arange(len(whole)), [len(h) // SIZE for h in whole]), entries)
