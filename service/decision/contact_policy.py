"""Which actions a customer may not be offered because of what they, or all customers, were shown before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from service.catalog.entities import Action, Placement
from service.catalog.policies import ContactPolicy, CoolDown, Exclusion
from service.decision.entities import Batch
from service.decision.limits import NO_UNIT, Limit, Mask, Rows, Scope, ScopeMaker
from service.decision.past import Past, Reader, counted_by, type_of

NO_CONTACT_HISTORY = "no_contact_history"  # reason code: what the customer was shown before is not known: caps count as reached


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
        self._policed = [scope for _, scope in (*self._caps, *self._cool_downs)]
        reads_placements = any(scope.reads_placements for scope in self._policed)
        self._reader = Reader(actions, placements if reads_placements else None, policy.reservation)

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
            past = self._reader.past(batch)
            for cap, scope in self._caps:
                found.limits.append(self._reader.limit(cap, scope, past, len(batch)))
            for cool_down, scope in self._cool_downs:
                found.limits.append(self._cooling(cool_down, scope, past, len(batch)))
            for exclusion, members in self._exclusions:
                found.excluded.append((exclusion.name, members, self._excluded(exclusion, members, past, len(batch))))
            self._add_unknown(found, batch)
        return found

    def _cooling(self, rule: CoolDown, scope: Scope, past: Past, size: int) -> Limit:
        """None left where the last `times` of some outcomes lay close enough together, not long enough ago."""
        unit = scope.unit_of(past.action, past.placement)
        counted = ((past.type == type_of(rule.after)) & (unit != NO_UNIT)).nonzero()[0]
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

    def _excluded(self, rule: Exclusion, members: Mask, past: Past, size: int) -> Mask:
        """The members of a set other than the one that was taken."""
        known = past.action < self._size
        taken = counted_by(rule.after, past) & (past.age < rule.window) & known
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


def _hour(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan
