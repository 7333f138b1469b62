"""The smallest change that would have shown an action: of the customer, the context, the moment, the request or the catalog.

Changes are found one obstacle after the other, in the order of the pipeline, and each is applied before the next is looked
for; so the list, applied as a whole, does show the action. Chance is set aside: what counts is what the pipeline prefers.
"""

import datetime as dt
from collections.abc import Iterator

import numpy as np

from service.catalog.entities import Action
from service.decision.board import EXCLUDED_BY_REQUEST, NOT_REQUESTED, SHOWN_ELSEWHERE
from service.decision.contact_policy import NO_CONTACT_HISTORY
from service.decision.contacts import decode_contacts
from service.decision.decide import decide
from service.decision.eligibility import ACTIVE_DATES, NOT_SHOWN_HERE
from service.decision.engine import Engine
from service.decision.entities import DecisionRequest
from service.decision.flips import smallest_flip
from service.decision.records import PlacementRecord
from service.decision.situations import Change, Situation, applied, without_chance

MOST_CHANGES = 12
MARGIN = 1.0 + 1e-9  # a lever just large enough, and rounding no obstacle
DAY = 86_400.0
MOMENTS = 400  # ends of windows that are tried until no contact counts
QUARTER, QUARTERS_A_DAY = 900.0, 96


def smallest_change(engine: Engine, request: DecisionRequest, placement: str, action: str) -> list[Change] | None:
    """What would have shown an action at a placement; empty where it is shown; None where nothing was found.

    `engine`: that of the customer's arm, whose assignment does not matter here.
    """
    situation = Situation(without_chance(engine), request)
    changes: list[Change] = []
    for _ in range(MOST_CHANGES):
        record = _decided(situation, placement)
        if any(item.action_id == action for item in record.items) and not record.fallback:
            return changes
        found = next(_obstacle(situation, record, action), None)
        if found is None:
            return None
        changes += found
        for change in found:
            situation = applied(situation, placement, action, change)
    return None


def _decided(situation: Situation, placement: str) -> PlacementRecord:
    [record] = decide(situation.engine, [situation.request])
    return next(p for p in record.placements if p.id == placement)


def _obstacle(situation: Situation, record: PlacementRecord, action: str) -> Iterator[list[Change]]:
    """What stands in the way first, and what would remove it."""
    engine, request = situation
    reason = next((reason for reason, ids in record.dropped.items() if action in ids), None)
    position = engine.positions[action]
    if reason is None:
        yield [_better(engine, record, action)]
    elif reason == ACTIVE_DATES:
        yield [_active_moment(situation, record.id, engine.actions[position])]
    elif reason == EXCLUDED_BY_REQUEST:
        yield [Change("request", "exclude_actions", action, f"`exclude_actions` without `{action}`")]
    elif reason == NOT_REQUESTED:
        yield [Change("request", "candidates", action, f"`candidates` with `{action}`")]
    elif reason == SHOWN_ELSEWHERE:
        yield [Change("repeats", record.id, None, f"`{record.id}` with `repeats: true`, since an earlier placement shows it")]
    elif reason == NOT_SHOWN_HERE:
        yield [Change("treatment", record.id, action, f"a treatment of `{action}` for `{record.id}`, which must accept its kind")]
    elif reason == NO_CONTACT_HISTORY:
        yield [Change("history", "contacts", None, "a contact history that can be read")]
    elif (flips := _flips(engine, request, record.id, action)) is not None:
        yield flips
    else:
        yield from _policy(situation, record, action, reason)


def _flips(engine: Engine, request: DecisionRequest, placement: str, action: str) -> list[Change] | None:
    """Values that make the action's rules pass, and those of one treatment; None where it is not rules that drop it."""
    one = engine.actions[engine.positions[action]]
    customer, context = request.customer.values, request.context
    options = [t.rules for t in one.treatments if placement in t.placements] or [()]
    if all(r.passes(customer, context) for r in one.rules) and any(all(r.passes(customer, context) for r in o) for o in options):
        return None
    found = [flips for o in options if (flips := smallest_flip([*one.rules, *o], customer, context)) is not None]
    if not found:
        return None
    return [Change("value", flip.name, flip.to, flip.text) for flip in min(found, key=len)]


def _better(engine: Engine, record: PlacementRecord, action: str) -> Change:
    """A candidate that others are preferred to: a lever that lifts it into the last slot, the first place of all, more slots."""
    own, position = record.utilities[record.candidates.index(action)], engine.positions[action]
    is_mandatory = bool(engine.mandatory[position])
    rivals = [item.utility for item in record.items if engine.mandatory[engine.positions[item.action_id]] == is_mandatory]
    has_lever = "lever" in engine.plans[record.id].placement.factors and own > 0.0
    if rivals and has_lever:
        factor = min(rivals) / own * MARGIN
        if factor <= MARGIN:  # worth enough, and a limit on slates keeps it out: first of all, it is in
            factor = max(rivals) / own * MARGIN
        if factor > 1.0:
            return Change("lever", action, factor, f"lever of `{action}` x {factor:.3g}: its utility is {own:.4g}")
    if not is_mandatory:
        return Change("mandatory", action, None, f"`{action}` mandatory: others come first whatever it is worth")
    return Change("slots", record.id, len(engine.actions), f"more slots of `{record.id}`: mandatory actions fill them all")


def _active_moment(situation: Situation, placement: str, action: Action) -> Change:
    """The nearest moment within the dates, of the day at their edge, at which no rule that time heals is in the way."""
    at, timed = situation.request.at, _timed(situation.engine)
    if action.active_from is not None and at < action.active_from:
        edge, step = action.active_from, QUARTER
    else:
        edge, step = (action.active_until or at) - 1.0, -QUARTER
    moments = [moment for n in range(QUARTERS_A_DAY) if _is_active(action, moment := edge + n * step)]
    calm = (moment for moment in moments if not _reasons_at(situation, placement, action.id, moment) & timed)
    moment = next(calm, edge)
    return Change("moment", "at", moment, f"at {_date(moment)}, within the dates of `{action.id}`")


def _is_active(action: Action, moment: float) -> bool:
    return (action.active_from or moment) <= moment < (action.active_until or moment + 1.0)


def _policy(situation: Situation, record: PlacementRecord, action: str, reason: str) -> Iterator[list[Change]]:
    """A cap, a cool-down, quiet hours, an exclusion: time heals; a budget or a limit on slates: the catalog must change."""
    if reason in _timed(situation.engine):
        for moment in _moments(situation, record.id, action):
            later = _wait(moment - situation.request.at)
            yield [Change("moment", "at", moment, f"{later} later, when `{reason}` allows it again")]
            return
    yield [Change("policy", reason, None, f"without `{reason}`")]


def _timed(engine: Engine) -> set[str]:
    """The rules that time heals."""
    contact = engine.catalog.contact
    rules = (contact.caps, contact.cool_downs, contact.quiet_hours, contact.exclusions)
    return {rule.name for some in rules for rule in some}


def _moments(situation: Situation, placement: str, action: str) -> Iterator[float]:
    """Moments within its dates at which no rule that time heals drops the action: when contacts leave their windows.

    Nor does one of its own rules, which all pass by now: an hour may be as wrong for it as for the contact policy.
    """
    engine, request = situation
    one = engine.actions[engine.positions[action]]
    own = {rule.name for rule in (*one.rules, *(rule for t in one.treatments for rule in t.rules))}
    timed, quiet = _timed(engine) | {ACTIVE_DATES} | own, {rule.name for rule in engine.catalog.contact.quiet_hours}
    for begin in _ends(engine, request):
        reasons = _reasons_at(situation, placement, action, begin) & timed
        if not reasons:
            yield begin
        elif reasons <= quiet | own:
            hours = (begin + step * QUARTER for step in range(1, QUARTERS_A_DAY + 1))
            yield from (moment for moment in hours if not _reasons_at(situation, placement, action, moment) & timed)


def _reasons_at(situation: Situation, placement: str, action: str, moment: float) -> set[str]:
    """Why the action is dropped at another moment."""
    then = applied(situation, placement, action, Change("moment", "at", moment, ""))
    return {reason for reason, ids in _decided(then, placement).dropped.items() if action in ids}


def _ends(engine: Engine, request: DecisionRequest) -> list[float]:
    """When a contact stops counting, soonest first; the moment of the request itself before all."""
    contact = engine.catalog.contact
    windows = {contact.reservation, *(c.window for c in contact.caps), *(e.window for e in contact.exclusions)}
    windows |= {c.silent for c in contact.cool_downs}
    ages = decode_contacts([request.customer.contacts]).entries["at"].astype(np.float64)
    ends = {at + window + 1.0 for at in ages.tolist() for window in windows}
    return [request.at, *sorted(moment for moment in ends if moment > request.at)[:MOMENTS]]


def _date(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _wait(seconds: float) -> str:
    return f"{seconds / DAY:.1f} days" if seconds >= DAY else f"{seconds / 60:.0f} minutes"
