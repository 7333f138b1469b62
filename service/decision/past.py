"""What customers were shown before, in terms of a catalog, and what caps leave of its units.

With C (`contacts.c`) in one pass over the histories, else with numpy; both say the same. 50 contacts and two caps take 14 us of a
request that comes alone, and 41 with numpy; in a batch of 512 they take 1.2 us, and 3.4.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features import native
from service.catalog.entities import Action, Placement
from service.catalog.hashed import hash16, hash32
from service.catalog.policies import DECISIONS, IMPRESSIONS, OUTCOMES, Cap
from service.decision.contacts import (
    CANCELLED,
    IMPRESSION,
    SERVED,
    SIZE,
    History,
    decode_contacts,
    is_taken_back,
    type_code,
)
from service.decision.entities import Batch
from service.decision.limits import NO_UNIT, Limit, Mask, Rows, Scope

COUNTED_TYPES = {IMPRESSIONS: "impression", "clicks": "click"}  # else a cap counts outcomes of the type that it names
WHAT = {DECISIONS: 0, OUTCOMES: 1, IMPRESSIONS: 2}  # as `contacts.c` names them; else of a type
OF_TYPE = 3
INTERFACE = 1  # of `contacts.c`: changes with what its functions take

NO_HASH = 2**32  # above all hashes
MIX = np.uint64(0x9E3779B97F4A7C15)  # an odd number with its bits well spread: no two rows of a batch are mixed alike

Times = npt.NDArray[np.float64]

_contacts = native.built("service.decision._contacts", INTERFACE)
IS_BUILT = _contacts is not None


class Past(NamedTuple):
    """The contacts of a batch in terms of the catalog: (contacts,) each. `age`: seconds before the request."""

    row: Rows
    age: Times
    action: npt.NDArray[np.intp]  # position, or one beyond the last for an action that is gone
    placement: npt.NDArray[np.intp]  # nothing that anybody reads where no rule asks where
    type: npt.NDArray[np.uint16]
    pending: Mask  # served, not taken back, no impression has come (yet), and one that comes is still waited for
    served: Mask  # and not taken back


class Reader:
    """Reads the histories of batches for one catalog.

    `placements`: None where no rule asks where something was shown. `reservation`: seconds that an impression is waited for.
    """

    def __init__(
        self, actions: Sequence[Action], placements: Sequence[Placement] | None, reservation: float, *, native: bool = IS_BUILT
    ) -> None:
        """`native`: whether C reads, or numpy."""
        self._actions = _Positions([hash32(a.id) for a in actions])
        self._placements = _Positions([hash16(p.id) << 16 for p in placements or ()])
        self._reads_placements = placements is not None
        self._reservation = reservation
        self._native = native

    def past(self, batch: Batch) -> Past:
        """All contacts of a batch, its requests' one after the other. A cut-off last entry is left out."""
        histories, ats = [r.customer.contacts for r in batch], np.array([r.at for r in batch], np.float64)
        return self._at_once(histories, ats) if self._native else self._step_by_step(histories, ats)

    def _at_once(self, histories: list[bytes | None], ats: Times) -> Past:
        entries = sum(len(history) // SIZE for history in histories if history is not None)
        past = Past(
            np.empty(entries, np.intp), np.empty(entries), np.empty(entries, np.intp),
            np.empty(entries if self._reads_placements else 0, np.intp), np.empty(entries, np.uint16),
            np.empty(entries, np.bool_), np.empty(entries, np.bool_),
        )  # fmt: skip
        _contacts.read(histories, ats, *self._actions.arrays, *self._placements.arrays, self._reservation, *past)
        return past if self._reads_placements else past._replace(placement=past.row)

    def _step_by_step(self, histories: Sequence[bytes | None], ats: Times) -> Past:
        contacts = decode_contacts(histories)
        entries, row = contacts.entries, contacts.row
        age = ats[row] - entries["at"]
        served = entries["type"] == SERVED
        cancelled = entries["type"] == CANCELLED
        if np.count_nonzero(cancelled):  # a third of what `any` takes
            served &= ~is_taken_back(_keys(row, entries), entries["at"], cancelled)
        # 75 us for 10,000 contacts, which most policies need not pay
        placement = self._placements.of(entries["placement"].astype(np.int64) << 16) if self._reads_placements else row
        pending = _pending(row, entries, served & (age < self._reservation))
        return Past(row, age, self._actions.of(entries["action"]), placement, entries["type"], pending, served)

    def limit(self, cap: Cap, scope: Scope, past: Past, size: int) -> Limit:
        """What a cap leaves of each unit, for each of so many requests."""
        left = np.full((size, scope.units), cap.at_most, np.int64)
        unit = scope.unit_of(past.action, past.placement)
        if self._native:
            what, wanted = WHAT.get(cap.count, OF_TYPE), type_of(cap.count)
            _contacts.count(
                what, wanted, cap.window, past.row, past.age, unit, past.type, past.pending, past.served, scope.units, left
            )
        else:
            counted = counted_by(cap.count, past) & (past.age < cap.window) & (unit != NO_UNIT)
            cells = past.row[counted] * scope.units + unit[counted]
            left -= np.bincount(cells, minlength=left.size).reshape(left.shape)
        return Limit(cap.name, scope, left, shrinks=cap.count in (DECISIONS, IMPRESSIONS))


def type_of(count: str) -> int:
    """The number of the type of outcome that a policy names by a word of caps, or by its own."""
    return type_code(COUNTED_TYPES.get(count, count))


def counted_by(count: str, past: Past) -> Mask:
    """The contacts that a cap counts."""
    if count == DECISIONS:
        return past.served
    if count == OUTCOMES:
        return np.greater_equal(past.type, IMPRESSION)
    of_type: Mask = past.type == type_of(count)
    if count == IMPRESSIONS:  # one that may still come counts, too
        of_type = of_type | past.pending
    return of_type


def _pending(row: Rows, entries: History, served: Mask) -> Mask:
    """Those of which no impression has come. `served`: a little while ago, which few of a history are."""
    recent, shown = served.nonzero()[0], (entries["type"] == IMPRESSION).nonzero()[0]
    if not len(recent) or not len(shown):
        return served
    of_them = np.zeros(int(row[-1]) + 1, np.bool_)
    of_them[row[recent]] = True
    shown = shown[of_them[row[shown]]]  # of 50 contacts of each of 512 customers a few
    pending = served.copy()
    pending[recent] = ~np.isin(_keys(row[recent], entries[recent]), _keys(row[shown], entries[shown]))
    return pending


def _keys(row: Rows, entries: History) -> npt.NDArray[np.uint64]:
    """Which decision and action each contact is of: uint64 (contacts,)."""
    keys: npt.NDArray[np.uint64] = (entries["decision"].astype(np.uint64) << np.uint64(32)) | entries["action"]
    return keys ^ (row.astype(np.uint64) * MIX)  # two customers' decisions may share a hash of 32 bits


class _Positions:
    """From hashes of 32 bits to positions: one beyond the last for what is not there."""

    def __init__(self, hashes: Sequence[int]) -> None:
        known = np.array(hashes, np.int64)
        order = np.argsort(known, kind="stable")
        self._order = np.append(order, len(known)).astype(np.intp)
        self._sorted = np.append(known[order], NO_HASH)
        bits = max(1, len(known).bit_length())
        starts = known[order].searchsorted(np.arange(2**bits) << (32 - bits))
        # `sorted` and `places` without the one that stands for nothing: C needs none
        self.arrays = self._sorted[:-1], self._order[:-1], starts.astype(np.intp)

    def of(self, hashes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.intp]:
        wanted = hashes.astype(np.int64)
        place = self._sorted.searchsorted(wanted)
        return np.where(self._sorted[place] == wanted, self._order[place], len(self._order) - 1)
