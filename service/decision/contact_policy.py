"""Which actions a customer may not be offered because of what they, or all customers, were shown before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.catalog.entities import Action, Placement
from service.catalog.policies import DECISIONS, IMPRESSIONS, OUTCOMES, Cap, ContactPolicy, CoolDown, Exclusion
from service.decision.contacts import (
    CANCELLED,
    IMPRESSION,
    SERVED,
    History,
    decode_contacts,
    hash16,
    hash32,
    is_taken_back,
    type_code,
)
from service.decision.entities import Batch
from service.decision.limits import NO_UNIT, Limit, Mask, Rows, Scope, ScopeMaker

NO_CONTACT_HISTORY = "no_contact_history"  # reason code: what the customer was shown before is not known: caps count as reached
COUNTED_TYPES = {IMPRESSIONS: "impression", "clicks": "click"}  # else a cap counts outcomes of the type that it names

NO_HASH = 2**32  # above all hashes
MIX = np.uint64(0x9E3779B97F4A7C15)  # an odd number with its bits well spread: no two rows of a batch are mixed alike

Times = npt.NDArray[np.float64]


class _Past(NamedTuple):
    """The contacts of a batch in terms of the catalog: (contacts,) each. `age`: seconds before the request."""

    row: Rows
    age: Times
    action: npt.NDArray[np.intp]  # position, or one beyond the last for an action that is gone
    placement: npt.NDArray[np.intp]  # nothing that anybody reads where no rule asks where
    type: npt.NDArray[np.uint16]
    pending: Mask  # served, not taken back, no impression has come (yet), and one that comes is still waited for
    served: Mask  # and not taken back


@dataclass(frozen=True)
class Policing:
    """The contact policy of one batch. `limits` shrink while slates are filled; `silent` does not."""

    limits: list[Limit] = field(default_factory=list)
    silent: list[tuple[str, Scope | None, Mask]] = field(default_factory=list)  # name, where it applies, (requests, actions)
    quiet: list[tuple[str, Scope, Mask]] = field(default_factory=list)  # name, where it applies, (requests,)
    excluded: list[tuple[str, Mask, Mask]] = field(default_factory=list)  # name, members (actions,), (requests, actions)

    def blocked(self, rows: Rows, placement: int) -> Iterator[tuple[str, Mask]]:
        """By reason: the actions that may not be chosen at a placement, bool (rows, actions)."""
        for name, scope, mask in self.silent:
            if scope is None or scope.of_placement[placement]:
                yield name, mask[rows]
        for name, scope, at_rest in self.quiet:
            if scope.of_placement[placement]:
                yield name, at_rest[rows][:, None] & scope.of_action[None, :-1]
        for name, _, mask in self.excluded:
            yield name, mask[rows]
        for limit in self.limits:
            if limit.is_reached:
                yield limit.name, limit.blocks(rows, placement)

    def take(self, rows: Rows, chosen: npt.NDArray[np.intp], placement: int) -> None:
        """These actions, one per row, were chosen."""
        for limit in self.limits:
            limit.take(rows, chosen, placement)
        for _, members, mask in self.excluded:
            taken = members[chosen]
            before = mask[rows[taken], chosen[taken]]
            mask[rows[taken]] |= members
            mask[rows[taken], chosen[taken]] = before


NOTHING_TO_POLICE = Policing()


class ContactTable:
    """A contact policy, worked out for one catalog."""

    def __init__(self, policy: ContactPolicy, actions: Sequence[Action], placements: Sequence[Placement]) -> None:
        self._policy = policy
        self._size = len(actions)
        make = ScopeMaker(actions, placements)
        self._caps = [(cap, make.scope(cap.where, cap.per)) for cap in policy.caps]
        self._cool_downs = [(rule, make.scope(rule.where, rule.per)) for rule in policy.cool_downs]
        self._quiet = [(rule, make.scope(rule.where)) for rule in policy.quiet_hours]
        self._exclusions = [(rule, np.array([a.id in rule.actions for a in actions])) for rule in policy.exclusions]
        self._budgets = {b.name: np.array([a.id == b.action for a in actions]) for b in policy.budgets}
        self._actions = _Positions([hash32(a.id) for a in actions])
        self._placements = _Positions([hash16(p.id) for p in placements])
        self._policed = [scope for _, scope in (*self._caps, *self._cool_downs)]
        self._reads_placements = any(scope.reads_placements for scope in self._policed)

    @property
    def is_empty(self) -> bool:
        return self._policy == ContactPolicy(reservation=self._policy.reservation)

    @property
    def reads_history(self) -> bool:
        return self._policy.reads_history

    def police(self, batch: Batch) -> Policing:
        """What the policy leaves of each request: nothing in it depends on the order of the batch."""
        if self.is_empty:
            return NOTHING_TO_POLICE
        found = Policing()
        self._add_quiet_hours(found, batch)
        self._add_budgets(found, batch)
        if self._policy.reads_history:
            past = self._past(batch)
            for cap, scope in self._caps:
                found.limits.append(self._limit(cap, scope, past, len(batch)))
            for cool_down, scope in self._cool_downs:
                found.limits.append(self._cooling(cool_down, scope, past, len(batch)))
            for exclusion, members in self._exclusions:
                found.excluded.append((exclusion.name, members, self._excluded(exclusion, members, past, len(batch))))
            self._add_unknown(found, batch)
        return found

    def _past(self, batch: Batch) -> _Past:
        contacts = decode_contacts([r.customer.contacts for r in batch])
        entries, row = contacts.entries, contacts.row
        age = np.array([r.at for r in batch], np.float64)[row] - entries["at"]
        served = entries["type"] == SERVED
        cancelled = entries["type"] == CANCELLED
        if np.count_nonzero(cancelled):  # a third of what `any` takes
            served &= ~is_taken_back(_keys(row, entries), entries["at"], cancelled)
        # 75 us for 10,000 contacts, which most policies need not pay
        placement = self._placements.of(entries["placement"]) if self._reads_placements else row
        return _Past(
            row, age, self._actions.of(entries["action"]), placement, entries["type"],
            self._pending(row, entries, served & (age < self._policy.reservation)), served,
        )  # fmt: skip

    def _pending(self, row: Rows, entries: History, served: Mask) -> Mask:
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

    def _counted(self, count: str, past: _Past) -> Mask:
        """The contacts that a cap counts."""
        if count == DECISIONS:
            return past.served
        if count == OUTCOMES:
            return np.greater_equal(past.type, IMPRESSION)
        of_type: Mask = past.type == type_code(COUNTED_TYPES.get(count, count))
        if count == IMPRESSIONS:  # one that may still come counts, too
            of_type = of_type | past.pending
        return of_type

    def _limit(self, cap: Cap, scope: Scope, past: _Past, size: int) -> Limit:
        unit = scope.unit_of(past.action, past.placement)
        counted = self._counted(cap.count, past) & (past.age < cap.window) & (unit != NO_UNIT)
        cells = past.row[counted] * scope.units + unit[counted]
        counts = np.bincount(cells, minlength=size * scope.units).reshape(size, scope.units)
        return Limit(cap.name, scope, cap.at_most - counts, shrinks=cap.count in (DECISIONS, IMPRESSIONS))

    def _cooling(self, rule: CoolDown, scope: Scope, past: _Past, size: int) -> Limit:
        """None left where the last `times` of some outcomes lay close enough together, not long enough ago."""
        unit = scope.unit_of(past.action, past.placement)
        counted = ((past.type == type_code(rule.after)) & (unit != NO_UNIT)).nonzero()[0]
        cells, ages = past.row[counted] * scope.units + unit[counted], past.age[counted]
        order = np.lexsort((ages, cells))  # unit by unit, youngest first
        cells, ages = cells[order], ages[order]
        last = len(cells) - rule.times + 1
        left = np.ones(size * scope.units, np.int64)
        if last > 0:
            together = cells[:last] == cells[rule.times - 1 :]
            close = ages[rule.times - 1 :] - ages[:last] <= rule.within
            left[cells[:last][together & close & (ages[:last] < rule.silent)]] = 0
        return Limit(rule.name, scope, left.reshape(size, scope.units), shrinks=False)

    def _excluded(self, rule: Exclusion, members: Mask, past: _Past, size: int) -> Mask:
        """The members of a set other than the one that was taken."""
        known = past.action < self._size
        taken = self._counted(rule.after, past) & (past.age < rule.window) & known
        taken[known] &= members[past.action[known]]
        had = np.zeros((size, self._size), np.bool_)
        had[past.row[taken], past.action[taken]] = True
        others = had.sum(axis=1, keepdims=True) - had > 0
        blocked: Mask = others & members
        return blocked

    def _add_quiet_hours(self, found: Policing, batch: Batch) -> None:
        if not self._quiet:
            return
        hours = np.array([_hour(r.context.get("local_hour")) for r in batch])
        for rule, scope in self._quiet:
            inside = (hours >= rule.start) & (hours < rule.end)
            over_midnight = (hours >= rule.start) | (hours < rule.end)
            found.quiet.append((rule.name, scope, inside if rule.start < rule.end else over_midnight))

    def _add_budgets(self, found: Policing, batch: Batch) -> None:
        for name, mask in self._budgets.items():
            used_up = np.array([name in r.exhausted for r in batch])
            if np.count_nonzero(used_up):
                found.silent.append((name, None, used_up[:, None] & mask))

    def _add_unknown(self, found: Policing, batch: Batch) -> None:
        """Where the history could not be read, whatever it might forbid is forbidden."""
        if all(r.customer.contacts is not None for r in batch):
            return
        unknown = np.array([r.customer.contacts is None for r in batch])
        for scope in self._policed:
            found.silent.append((NO_CONTACT_HISTORY, scope, unknown[:, None] & scope.of_action[None, :-1]))
        for _, members in self._exclusions:
            found.silent.append((NO_CONTACT_HISTORY, None, unknown[:, None] & members))


def _keys(row: Rows, entries: History) -> npt.NDArray[np.uint64]:
    """Which decision and action each contact is of: uint64 (contacts,)."""
    keys: npt.NDArray[np.uint64] = (entries["decision"].astype(np.uint64) << np.uint64(32)) | entries["action"]
    return keys ^ (row.astype(np.uint64) * MIX)  # two customers' decisions may share a hash of 32 bits


def _hour(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


class _Positions:
    """From hashes to positions: one beyond the last for what is not there."""

    def __init__(self, hashes: Sequence[int]) -> None:
        known = np.array(hashes, np.int64)
        order = np.argsort(known, kind="stable")
        self._order = np.append(order, len(known))
        self._sorted = np.append(known[order], NO_HASH)

    def of(self, hashes: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.intp]:
        wanted = hashes.astype(np.int64)
        place = self._sorted.searchsorted(wanted)
        return np.where(self._sorted[place] == wanted, self._order[place], len(self._order) - 1)
