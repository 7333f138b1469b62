"""Row 5: every action of every decision is explained, and what is said to have shown one does show it."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import hypothesis
from hypothesis import strategies as st

from features.request_time import request_time_values
from service.catalog.entities import Catalog
from service.decision.again import request_of
from service.decision.contacts import SERVED, Contact, encode_contacts, type_code
from service.decision.counterfactual import smallest_change
from service.decision.decide import decide
from service.decision.engine import Engine, build_engine, by_priority
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.decision.explain import ActionExplained, PlacementExplained, explain
from service.decision.records import DecisionRecord, PlacementRecord, Versions
from service.decision.scoring import FlatScorer
from service.decision.situations import Change, Situation, applied, without_chance
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.whole import whole_world

DECISIONS = 10_000
PROCESSES = 2
ASKED_A_DECISION = 2  # actions that were not shown, whose smallest change is looked for and tried
NOW, DAY = 1_790_000_000.0, 86_400.0


class Counted(NamedTuple):
    """How many decisions, actions at placements, and changes by kind were checked; `failure` is the first, in words."""

    decisions: int
    actions: int
    changes: Counter[str]
    stages: Counter[str]
    failure: str


def measure(context: Context) -> Measured:
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        seeds = [context.seed * PROCESSES + n for n in range(PROCESSES)]
        parts = list(pool.map(check, seeds, [DECISIONS // PROCESSES] * PROCESSES))
    decisions, actions = sum(p.decisions for p in parts), sum(p.actions for p in parts)
    changes, stages = sum((p.changes for p in parts), Counter()), sum((p.stages for p in parts), Counter())
    failure = next((p.failure for p in parts if p.failure), "")
    reached, changed = (", ".join(f"{name} {n:,}" for name, n in counts.most_common()) for counts in (stages, changes))
    figure = failure or (
        f"{decisions:,} decisions, {actions:,} actions explained: {reached}; {changes.total():,} smallest changes applied, "
        f"all showed the action (first of them: {changed})"
    )
    return Measured(figure, not failure and decisions >= DECISIONS and changes.total() >= DECISIONS)


class _Wrong(AssertionError):
    """What does not hold, in words."""


def check(seed: int, count: int) -> Counted:
    """So many decisions that Hypothesis makes up."""
    engine = _engine(seed)
    tally = {"decisions": 0, "actions": 0}
    changes: Counter[str] = Counter()
    stages: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=count, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(request=requests(engine.catalog), chosen=st.data())
    def every(request: DecisionRequest, chosen: st.DataObject) -> None:
        [record] = decide(engine, [request])
        explained = explain(engine, record)
        tally["decisions"] += 1
        for logged, placement in zip(record.placements, explained.placements, strict=True):
            _covered(engine, logged, placement)
            tally["actions"] += len(placement.actions)
            stages.update(one.stage for one in placement.actions)
        _tried(engine, record, explained.placements, chosen, changes)

    failure = _first_failure(every)
    return Counted(tally["decisions"], tally["actions"], changes, stages, failure)


def _first_failure(run: Callable[[], Any]) -> str:
    try:
        run()
    except AssertionError as error:
        return f"{error}"
    return ""


def _engine(seed: int) -> Engine:
    world = whole_world(seed, customers=10)
    catalog = world.catalog
    rates = [0.01 * (1 + position * 7 % 31) for position, _ in enumerate(by_priority(catalog))]
    plain = {action.id: 100 * position for position, action in enumerate(by_priority(catalog))}
    return build_engine(catalog, world.contract, FlatScorer(rates), Versions(1, "flat", world.contract.fingerprint), plain)


def _covered(engine: Engine, logged: PlacementRecord, placement: PlacementExplained) -> None:
    """Each action once: shown or beaten with factors and a rank, or dropped with a stage and a reason."""
    names = [one.action_id for one in placement.actions]
    _must(sorted(names) == sorted(engine.positions), f"{placement.id}: {len(set(names))} of {len(engine.actions)} actions")
    for one in placement.actions:
        if one.stage == "holdout":
            continue
        ranked = one.action_id in logged.candidates
        _must(ranked == (one.rank is not None and one.factors is not None), f"{one.action_id}: rank {one.rank}")
        _must(ranked or bool(one.reason), f"{one.action_id}: dropped without a reason")


def _tried(
    engine: Engine, record: DecisionRecord, placements: tuple[PlacementExplained, ...], chosen: st.DataObject, found: Counter[str]
) -> None:
    """For some actions that were not shown: the change exists, and makes the difference."""
    hidden = [(p.id, one) for p in placements for one in p.actions if one.stage not in ("shown", "holdout")]
    for _ in range(ASKED_A_DECISION if hidden else 0):
        placement, one = chosen.draw(st.sampled_from(hidden))
        arm = engine.of(record.experiment)
        changes = smallest_change(arm, request_of(record), placement, one.action_id)
        _must(changes is not None, f"no change is known for `{one.action_id}`, {one.stage}: {one.reason}")
        _must(_shows(arm, record, placement, one, changes or []), f"{changes} does not show `{one.action_id}` at {placement}")
        found[changes[0].kind if changes else "chance"] += 1


def _shows(engine: Engine, record: DecisionRecord, placement: str, one: ActionExplained, changes: list[Change]) -> bool:
    situation = Situation(without_chance(engine), request_of(record))
    for change in changes:
        situation = applied(situation, placement, one.action_id, change)
    [again] = decide(situation.engine, [situation.request])
    shown = next(p for p in again.placements if p.id == placement)
    return not shown.fallback and one.action_id in [item.action_id for item in shown.items]


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _Wrong(otherwise)


def requests(catalog: Catalog) -> st.SearchStrategy[DecisionRequest]:
    """Customers of whom anything may be known or missing, with any past, at any hour."""
    number = lambda low, high: st.integers(low, high).map(float)  # noqa: E731  # a name for a short thing
    customers = st.fixed_dictionaries({}, optional={
        "age": number(14, 90), "region": st.sampled_from(["north", "south"]), "tenure_days": number(0, 1000),
        "time_zone": st.sampled_from(["Europe/Berlin", "Asia/Shanghai", "America/New_York"]),
        "days_since_visit": number(0, 120), "journey_stage": st.sampled_from(["browsing", "cart", "checkout", "bought", "quiet"]),
        "orders_12m": number(0, 9), "spend_12m": number(0, 900), "days_since_order": number(0, 300),
        "favourite_category": st.sampled_from(["fashion", "home", "tech", "food", "travel"]), "nps": number(0, 10),
        "open_complaint": st.sampled_from([0.0, 0.0, 1.0]), "price_sensitivity": st.floats(0, 1),
    })  # fmt: skip
    actions, places = [a.id for a in catalog.actions], list(catalog.placements)
    kinds = st.sampled_from([SERVED, *map(type_code, ("impression", "click", "dismiss", "conversion"))])
    contact = st.builds(
        lambda kind, action, age, place: Contact(NOW - age, action, f"d{age}", place, kind),
        kinds, st.sampled_from(actions), st.floats(0, 40 * DAY), st.sampled_from(places),
    )  # fmt: skip
    asked = st.lists(st.sampled_from(places), min_size=1, max_size=2, unique=True)
    few = st.lists(st.sampled_from(actions), max_size=3, unique=True).map(tuple)
    return st.builds(
        _request, st.integers(0, 10**9), customers, st.none() | st.lists(contact, max_size=12), asked,
        st.sampled_from(["mobile", "desktop"]), st.floats(0, DAY), few, st.none() | st.none() | few,
        st.sampled_from([(), ("vouchers",), ("calls_a_day",)]),
    )  # fmt: skip


def _request(number: int, customer: dict[str, Any], history: list[Contact] | None, *rest: Any) -> DecisionRequest:
    places, device, moment, exclude, candidates, exhausted = rest
    at = NOW + moment
    context = {"channel": "web", "device": device, **request_time_values(at, customer.get("time_zone", "Europe/Berlin"))}
    return DecisionRequest(
        f"d{number}", f"c{number}", at, CustomerState(customer, contacts=None if history is None else encode_contacts(history)),
        context, tuple(PlacementRequest(p, 1) for p in places), exclude, candidates, exhausted=exhausted,
    )  # fmt: skip


ROW = Row(
    5,
    f"why not: {DECISIONS:,} decisions, every action; the smallest change, applied",
    "100 % have a rank, or a stage and a reason; each change shows its action",
    measure,
)
