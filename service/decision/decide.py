"""`decide(engine, batch)`: the decision for a batch of requests, from nothing but its arguments."""

import base64
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.catalog.entities import Action, Treatment
from service.decision.arbitration import (
    NONE_LEFT,
    Choices,
    Probabilities,
    Utilities,
    choice_probabilities,
    draw,
    first_mandatory,
    greedy,
    uniform,
)
from service.decision.board import SHOWN_ELSEWHERE, Board, first_reasons
from service.decision.eligibility import NOT_SHOWN_HERE, Shown
from service.decision.engine import Engine, PlacementPlan, actions_named
from service.decision.entities import Batch, DecisionRequest
from service.decision.experiments import HOLDOUT, Assigned
from service.decision.figures import spelt
from service.decision.limits import Mask, Rows
from service.decision.records import DecisionRecord, PlacementRecord, ServedItem, seal
from service.decision.scoring import Rates


class ChoiceTable(NamedTuple):
    """What the pipeline would choose for one slot of a placement, for each request: (requests, actions) each."""

    probabilities: Probabilities
    predicted_rates: Rates
    allowed: Mask


class _Slots(NamedTuple):
    """The choices for one placement, slot by slot: (requests, slots) each.

    `first` and `candidates`, what there was to choose from, are (requests, actions), for the first slot.
    """

    chosen: Choices
    probabilities: npt.NDArray[np.float64]
    explored: Mask
    first: Probabilities
    candidates: Mask


class _Stage(NamedTuple):
    """Some rows of the board at one placement, before anything is chosen. Masks are (rows, actions).

    `open`: left by rules, request and earlier placements, and shown here; `blocked`: by contact policy and constraints. Where
    all rows are shown the same, `shows` is (1, actions).
    """

    plan: PlacementPlan
    rows: Rows
    requests: Sequence[DecisionRequest]
    slots: Sequence[int]
    available: Mask
    shown: Sequence[Shown]
    shows: Mask
    blocked: list[tuple[str, Mask]]
    utilities: Utilities

    @property
    def open(self) -> Mask:
        return self.available & self.shows


def decide(engine: Engine, batch: Batch) -> list[DecisionRecord]:
    """One record per request, in order. Deterministic: the same engine and request give the same record."""
    arms = [engine.assignment.of(request.customer_id) for request in batch]
    engines = [engine.of(arm) for arm in arms]
    records: list[DecisionRecord | None] = [None] * len(batch)
    for kin, rows in _together(engines, arms).items():
        some = [batch[row] for row in rows]
        host = engine if kin is engine.kin else engines[rows[0]]
        made = _held_out(engine, some) if kin is None else _decide(host, [engines[row] for row in rows], some)
        for row, placements in zip(rows, made, strict=True):
            records[row] = _record(engines[row], batch[row], placements, arms[row])
    return [record for record in records if record is not None]


def _together(engines: Sequence[Engine], arms: Sequence[Assigned | None]) -> dict[object, list[int]]:
    """The requests that are laid out on one board, by the kin of their engines; under None those who get fallbacks."""
    groups: dict[object, list[int]] = {}
    for row, (own, arm) in enumerate(zip(engines, arms, strict=True)):
        groups.setdefault(None if arm is not None and arm.id == HOLDOUT else own.kin, []).append(row)
    return groups


def _held_out(engine: Engine, batch: Batch) -> list[list[PlacementRecord]]:
    """Every placement's fallback."""
    return [[_fallback_record(engine.plans[p.id], p.slots) for p in request.placements] for request in batch]


def _decide(host: Engine, engines: Sequence[Engine], batch: Batch) -> list[list[PlacementRecord]]:
    """`engines`: each request's own, all of one kin with `host`, which remembers for all of them what rules leave."""
    board = Board(host, batch)
    decided: list[list[PlacementRecord]] = [[] for _ in batch]
    for stage, slots in _turns(board, engines):
        for row, record in zip(stage.rows.tolist(), _placement_records(board, stage, slots), strict=True):
            decided[row].append(record)
    return decided


def _turns(board: Board, engines: Sequence[Engine]) -> Iterator[tuple[_Stage, _Slots]]:
    """The first placement of every request, then the second, and so on; requests with one plan together."""
    batch = board.batch
    turns = max((len(r.placements) for r in batch), default=0)
    for turn in range(turns):
        for plan, rows in _by_plan(batch, engines, turn):
            asked = [batch[row].placements[turn].slots for row in rows]
            stage = _stage(board, plan, rows, asked)
            yield stage, _fill(board, stage, is_last=turn == turns - 1)


class Outline(NamedTuple):
    """The decisions for some requests of a batch at one placement, without their records.

    `rows`: which requests; `chosen`: positions of actions, (rows, slots), NONE_LEFT where a slot stays empty; `first`: how
    likely each action was for the first slot, (rows, actions); `dropped`: actions dropped, by reason, over all rows.
    """

    placement: str
    rows: Rows
    chosen: Choices
    first: Probabilities
    dropped: Mapping[str, int]


def outline(engine: Engine, batch: Batch) -> Iterator[Outline]:
    """What `decide` would choose, for whoever counts choices: experiments aside, and in a third of the time."""
    board = Board(engine, batch)
    for stage, slots in _turns(board, [engine] * len(batch)):
        yield Outline(stage.plan.placement.id, stage.rows, slots.chosen, slots.first, _drop_counts(board, stage))


def _drop_counts(board: Board, stage: _Stage) -> Counter[str]:
    """How many actions each reason removed first. Customers of whom the same rules failed are counted together."""
    counts: Counter[str] = Counter()
    shared = {id(board.eligible[row]): board.eligible[row] for row in stage.rows.tolist()}
    for number, times in Counter(id(board.eligible[row]) for row in stage.rows.tolist()).items():
        counts.update({reason: len(ids) * times for reason, ids in shared[number].dropped.items()})
    allowed, left = board.allowed[stage.rows], stage.open.copy()
    counts["request"] = int(sum((board.eligible[row].allowed & ~board.allowed[row]).sum() for row in stage.rows.tolist()))
    counts[SHOWN_ELSEWHERE] = int((allowed & ~stage.available).sum())
    counts[NOT_SHOWN_HERE] = int((stage.available & ~stage.shows).sum())
    for reason, mask in stage.blocked:
        counts[reason] += int((left & mask).sum())
        left &= ~mask
    return +counts


class Earlier(NamedTuple):
    """An action that an answer shows already, in an earlier placement or an earlier slot of the same one."""

    placement: str
    action_id: str


def choice_table(engine: Engine, batch: Batch, placement: str, earlier: Sequence[Sequence[Earlier]] = ()) -> ChoiceTable:
    """How likely the whole pipeline is to choose each action for the next slot of a placement: what evaluation weighs by.

    `earlier`: what each answer shows already, in order; nothing where it is empty, and then that slot is the first one.
    """
    board, plan = Board(engine, batch), engine.plans[placement]
    repeated = np.zeros((len(batch), len(engine.actions)), np.bool_)
    for turn in range(max(map(len, earlier), default=0)):
        for there, rows, chosen in _shown_at(engine, earlier, turn):
            board.take(rows, chosen, engine.plans.get(there, plan))
            if there == placement:
                repeated[rows, chosen] = True
    stage = _stage(board, plan, list(range(len(batch))), [1] * len(batch))
    allowed = _allowed(stage.open & ~repeated, stage.blocked)
    return ChoiceTable(_choose(board, stage, allowed)[0], board.rates, allowed)


def _shown_at(engine: Engine, earlier: Sequence[Sequence[Earlier]], turn: int) -> Iterator[tuple[str, Rows, Choices]]:
    """By placement: the rows whose answers show so many actions before this one, and this one. Unknown actions take nothing."""
    groups: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for row, shown in enumerate(earlier):
        if turn < len(shown) and shown[turn].action_id in engine.positions:
            groups[shown[turn].placement].append((row, engine.positions[shown[turn].action_id]))
    for placement, taken in groups.items():
        rows, chosen = np.array(taken, np.intp).T
        yield placement, rows, chosen


def _by_plan(batch: Batch, engines: Sequence[Engine], turn: int) -> Iterable[tuple[PlacementPlan, list[int]]]:
    """Which requests are at the same placement, and mean the same by it."""
    groups: dict[int, tuple[PlacementPlan, list[int]]] = {}
    for row, (request, engine) in enumerate(zip(batch, engines, strict=True)):
        if turn < len(request.placements):
            plan = engine.plans[request.placements[turn].id]
            groups.setdefault(id(plan), (plan, []))[1].append(row)
    return groups.values()


def _stage(board: Board, plan: PlacementPlan, listed: list[int], slots: Sequence[int]) -> _Stage:
    rows = np.array(listed, np.intp)
    available = board.allowed[rows] if plan.placement.repeats else board.left[rows]
    shown = [board.shown(plan, row) for row in listed]
    alike = shown and all(one is shown[0] for one in shown)
    shows = shown[0].mask[None, :] if alike else np.array([one.mask for one in shown], np.bool_).reshape(available.shape)
    requests = [board.batch[row] for row in listed]
    blocked = list(board.blocked(rows, plan))
    return _Stage(plan, rows, requests, slots, available, shown, shows, blocked, board.utilities(plan)[rows])


def _allowed(open_: Mask, blocked: Sequence[tuple[str, Mask]]) -> Mask:
    allowed = open_.copy()
    for _, mask in blocked:
        allowed &= ~mask
    return allowed


def _fill(board: Board, stage: _Stage, *, is_last: bool) -> _Slots:
    """Choose slot after slot; what is chosen is taken from the board. `is_last`: nobody looks at the board after this."""
    shape, open_ = (len(stage.rows), max(stage.slots, default=0)), stage.open
    every, fewest = np.arange(len(stage.rows)), min(stage.slots, default=0)
    allowed = _allowed(open_, stage.blocked)
    nothing = np.full(shape, NONE_LEFT), np.zeros(shape), np.zeros(shape, np.bool_), np.zeros(open_.shape)
    result = _Slots(*nothing, candidates=allowed.copy())
    for slot in range(shape[1]):
        if slot:
            blocked = list(board.blocked(stage.rows, stage.plan)) if board.shrinks else stage.blocked
            allowed = _allowed(open_, blocked)
        if slot >= fewest:
            allowed[[asked <= slot for asked in stage.slots]] = False
        probabilities, best = _choose(board, stage, allowed)
        name = stage.plan.placement.id
        chosen = draw(probabilities, np.array([uniform(r.decision_id, name, slot) for r in stage.requests]))
        if not slot:
            result.first[:] = probabilities
        result.chosen[:, slot] = chosen
        result.probabilities[:, slot] = probabilities[every, chosen]
        result.explored[:, slot] = chosen != best
        if is_last and slot == shape[1] - 1:
            break
        board.take(stage.rows, chosen, stage.plan)
        there = chosen != NONE_LEFT
        open_[every[there], chosen[there]] = False
    return result


def _choose(board: Board, stage: _Stage, allowed: Mask) -> tuple[Probabilities, Choices]:
    """How likely each action is chosen now, and which is the best: mandatory actions first, then utility and exploration."""
    best = greedy(stage.utilities, allowed)
    plan, mandatory = stage.plan, board.engine.mandatory
    probabilities = choice_probabilities(plan.placement.explore, stage.utilities, allowed, best, plan.thin)
    if np.count_nonzero(mandatory):
        first = first_mandatory(stage.utilities, allowed, mandatory)
        rows = (first != NONE_LEFT).nonzero()[0]
        probabilities[rows] = 0.0
        probabilities[rows, first[rows]] = 1.0
        best = np.where(first != NONE_LEFT, first, best)
    return probabilities, best


def _placement_records(board: Board, stage: _Stage, slots: _Slots) -> list[PlacementRecord]:
    """One for each row of the stage. Names and figures leave the arrays for all rows at once."""
    plan, rows, width = stage.plan, stage.rows, slots.candidates.shape[1]
    found = slots.candidates.ravel().nonzero()[0]
    names = tuple(board.engine.names.take(found % width).tolist())
    ends = found.searchsorted(np.arange(1, len(rows) + 1) * width)
    rates, utilities = spelt(board.rates[rows].take(found), ends), spelt(stage.utilities.take(found), ends)
    spans = map(slice, [0, *ends[:-1].tolist()], ends.tolist())
    has_more: Mask = np.logical_or.reduce(board.ruled[rows] & ~slots.candidates, axis=1)
    dropped = [
        _dropped(board, stage, here) if more else board.eligible[row].dropped
        for here, (row, more) in enumerate(zip(rows.tolist(), has_more.tolist(), strict=True))
    ]
    return [
        PlacementRecord(
            id=plan.placement.id,
            slots=asked,
            items=items or (_fallback_item(plan),),
            fallback=not items,
            candidates=names[span],
            rates_spelt=predicted,
            utilities_spelt=worth,
            dropped=reasons,
        )
        for asked, items, span, predicted, worth, reasons in zip(
            stage.slots, _items(board, stage, slots), spans, rates, utilities, dropped, strict=True
        )
    ]


def _items(board: Board, stage: _Stage, slots: _Slots) -> list[tuple[ServedItem, ...]]:
    """What each row of the stage is shown."""
    every = np.arange(len(stage.rows))[:, None]
    columns = (
        slots.chosen, board.rates[stage.rows[:, None], slots.chosen], stage.utilities[every, slots.chosen], slots.probabilities,
        slots.explored,
    )  # fmt: skip
    rows = zip(stage.shown, *(column.tolist() for column in columns), strict=True)
    return [
        tuple(
            _item(board.engine.actions[chosen], shown.treatments[chosen], rank, figures)
            for rank, (chosen, *figures) in enumerate(zip(*told, strict=True), start=1)
            if chosen != NONE_LEFT
        )
        for shown, *told in rows
    ]


def _item(action: Action, treatment: Treatment | None, rank: int, figures: Sequence[float]) -> ServedItem:
    """`figures`: predicted rate, utility, choice probability, and whether it was explored."""
    rate, utility, probability, explored = figures
    treatment_id = treatment.id if treatment else ""
    return ServedItem(rank, action.id, treatment_id, action.kind, rate, utility, probability, explored=bool(explored))


def _fallback_record(plan: PlacementPlan, slots: int) -> PlacementRecord:
    return PlacementRecord(plan.placement.id, slots, (_fallback_item(plan),), fallback=True)


def _fallback_item(plan: PlacementPlan) -> ServedItem:
    fallback = plan.placement.fallback
    return ServedItem(1, fallback.action_id, fallback.treatment_id, fallback.kind, 0.0, 0.0, 1.0, explored=False)


def _dropped(board: Board, stage: _Stage, place: int) -> dict[str, tuple[str, ...]]:
    """Every action that could not be chosen, under the first reason that removed it."""
    row = int(stage.rows[place])
    eligible, allowed = board.eligible[row], board.allowed[row]
    dropped, left = dict(eligible.dropped), eligible.allowed.copy()
    for reason, mask in (
        *first_reasons(eligible, stage.requests[place], board.engine, allowed),
        (SHOWN_ELSEWHERE, ~stage.available[place]),
        *stage.shown[place].dropped.items(),
        *((reason, mask[place]) for reason, mask in stage.blocked),
    ):
        newly = left & mask
        if np.count_nonzero(newly):
            dropped[reason] = dropped.get(reason, ()) + actions_named(board.engine, newly)
            left &= ~mask
    return dropped


def _record(engine: Engine, request: DecisionRequest, placements: list[PlacementRecord], arm: Assigned | None) -> DecisionRecord:
    contacts = _contacts(engine, request)
    return DecisionRecord(
        decision_id=request.decision_id,
        customer_id=request.customer_id,
        at=request.at,
        customer=request.customer.values,
        context=request.context,
        placements=tuple(placements),
        versions=engine.versions,
        degraded=request.degraded,
        exclude_actions=request.exclude_actions,
        requested_candidates=request.candidates,
        experiment=arm,
        contacts=contacts,
        exhausted=request.exhausted,
        stale=request.customer.stale,
        seal=seal(request.at, request.customer.values, request.context, contacts, request.exhausted),
        sent=request.sent,
    )


def _contacts(engine: Engine, request: DecisionRequest) -> str | None:
    """The history that the contact policy read, as text; None where it could not be read."""
    if not engine.contact.reads_history:
        return ""
    known = request.customer.contacts
    return None if known is None else base64.b64encode(known).decode()
