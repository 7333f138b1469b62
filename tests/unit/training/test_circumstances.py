"""What a row of the log was decided under: a policy that is the log's own would have chosen as the log did."""

import numpy as np
import pyarrow as pa
import pytest

from features.contract import parse_contract
from features.homes import write_home_contract
from service.catalog.validate import parse_catalog
from service.decision.contacts import SERVED, Contact, encode_contacts
from service.decision.decide import Earlier, decide
from service.decision.engine import Engine, build_engine
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.decision.records import OutcomeRecord, Versions
from service.decision.scoring import FlatScorer
from training.circumstances import PLAIN, Circumstances, circumstances_of, decoded
from training.examples import Examples, Objective, load_examples
from training.judging import report
from training.live_log import write_segment
from training.policies import BUNDLE, PolicyRows, chunks, uniform

CONTRACT = parse_contract("features: [{name: device, type: category, origin: context, categories: [mobile]}]")
CATALOG = """
catalog: 1
issues: [{id: sales}]
groups: [{id: cards, issue: sales}, {id: stories, issue: sales}]
actions:
  - {id: gold, group: cards, kind: offer, value: 1, treatments: [{id: g, placements: [hero, side, echo]}]}
  - {id: silver, group: cards, kind: offer, value: 1, treatments: [{id: s, placements: [hero, side, echo]}]}
  - {id: bronze, group: cards, kind: offer, value: 1, treatments: [{id: b, placements: [hero, side, echo]}]}
  - {id: story, group: stories, kind: content, value: 1, treatments: [{id: t, placements: [hero, side, echo]}]}
contact:
  caps: [{name: once_a_day, at_most: 1, per: action, window: 1d, count: decisions}]
  budgets: [{name: few, action: gold, at_most: 10}]
constraints: [{name: half, where: {kinds: [offer]}, at_most_share: 0.5}]
placements:
  - {id: hero, channel: web, slots: 3, factors: [rate], explore: {epsilon: 0.4}, fallback: {action: none, kind: nothing}}
  - {id: side, channel: web, slots: 3, factors: [rate], explore: {epsilon: 0.4}, fallback: {action: none, kind: nothing}}
  - {id: echo, repeats: true, channel: web, slots: 3, factors: [rate], explore: {epsilon: 0.4},
     fallback: {action: none, kind: nothing}}
"""
RATES = {"gold": 0.5, "silver": 0.3, "bronze": 0.2, "story": 0.1}
AT = 1_790_000_000.0
SEEN = encode_contacts([Contact(AT - 60, "gold", "before", "hero", SERVED)])


def engine_of(text: str = CATALOG) -> Engine:
    return build_engine(parse_catalog(text, CONTRACT)[1], CONTRACT, FlatScorer(list(RATES.values())), Versions(1, "b", "x"))


def asked(name: str, *placements: tuple[str, int], contacts: bytes | None = b"", **given) -> DecisionRequest:
    slots = tuple(PlacementRequest(*placement) for placement in placements or [("hero", 1)])
    return DecisionRequest(name, f"customer of {name}", AT, CustomerState({}, contacts=contacts), {}, slots, **given)


def answered(home, engine: Engine, requests) -> Examples:
    """The rows of what the engine decides: each item was seen, and clicked as often as its rate says."""
    records, luck = decide(engine, requests), np.random.default_rng(5)
    outcomes = []
    for record in records:
        for placement in record.placements:
            for item in placement.items:
                name, told = f"{record.decision_id}-{placement.id}-{item.rank}", (AT + 1, AT + 1, placement.id, item.action_id)
                outcomes.append(OutcomeRecord(f"i-{name}", record.decision_id, "impression", *told))
                if luck.random() < RATES.get(item.action_id, 0.0):
                    outcomes.append(OutcomeRecord(f"c-{name}", record.decision_id, "click", *told))
    write_home_contract(home, CONTRACT)
    write_segment(home, "decisions", "t", records, AT)
    write_segment(home, "outcomes", "t", outcomes, AT)
    return load_examples(home, Objective("click"), CONTRACT)


def judged(rows: Examples, engine: Engine) -> PolicyRows:
    found = PolicyRows(rows)
    for chunk in chunks(rows, engine):
        table = chunk.choices(engine)
        found.add(f"{BUNDLE}b", chunk, table.probabilities, table.predicted_rates)
        found.add("uniform", chunk, uniform(table.allowed), table.predicted_rates)
    return found


@pytest.mark.parametrize(
    ("placements", "given"),
    [
        ([("hero", 1)], {}),
        ([("hero", 3)], {}),
        ([("hero", 1), ("side", 1)], {}),
        ([("hero", 2), ("side", 2), ("echo", 2)], {}),
        ([("echo", 2), ("hero", 2)], {}),
        ([("hero", 1)], {"contacts": SEEN}),
        ([("hero", 2), ("side", 1)], {"contacts": SEEN}),
        ([("hero", 1)], {"contacts": None}),
        ([("hero", 1)], {"exhausted": ("few",)}),
        ([("hero", 2)], {"exclude_actions": ("gold",)}),
        ([("hero", 1)], {"candidates": ("silver", "story", "tomorrow")}),
    ],
    ids=[
        "nothing", "slots", "placements", "an echo", "before an echo", "a cap", "a cap and placements", "contacts unread",
        "a budget", "excluded", "requested",
    ],
)  # fmt: skip
def test_the_logs_own_policy_has_weight_one_in_every_row(tmp_path, placements, given):
    """Half of the customers are in the situation: what it rules out is ruled out in the evaluation, and nothing else is."""
    engine = engine_of()
    requests = [asked(f"d{n}", *placements, **(given if n % 2 else {})) for n in range(100)]
    rows = answered(tmp_path, engine, requests)
    assert len(rows) >= 50
    assert judged(rows, engine).rows(f"{BUNDLE}b").weight == pytest.approx(np.ones(len(rows)))


@pytest.mark.parametrize(
    ("placements", "given"), [([("hero", 1), ("side", 1)], {}), ([("hero", 1)], {"contacts": SEEN})], ids=["placements", "a cap"]
)
def test_a_policy_does_not_beat_itself(tmp_path, placements, given):
    """With true rates as its reward model and thousands of rows the interval of its gain is narrow, and holds 0."""
    engine = engine_of()
    rows = answered(tmp_path, engine, [asked(f"d{n}", *placements, **(given if n % 2 else {})) for n in range(3000)])
    gain = report("click", "b", None, rows, judged(rows, engine)).gain_over_logged
    assert gain.ci[0] <= 0.0 <= gain.ci[1]
    assert gain.ci[1] - gain.ci[0] < 0.05


def test_a_new_rule_holds_in_the_circumstances_of_the_log(tmp_path):
    """The log knew no cap, and its customers have contacts: with one of today gold is not for those who had it."""
    capless = CATALOG.replace("at_most: 1, per: action", "at_most: 2, per: action")
    rows = answered(tmp_path, engine_of(capless), [asked(f"d{n}", contacts=SEEN if n % 2 else b"") for n in range(100)])
    [chunk] = [chunk for chunk in chunks(rows, engine_of()) if chunk.placement == "hero"]
    gold = chunk.choices(engine_of()).probabilities[:, 0]
    had = np.array([int(name.as_py()[1:]) % 2 == 1 for name in rows.decision_id])
    assert (gold[had] == 0.0).all()
    assert (gold[~had] > 0.0).all()


def test_what_is_plain_takes_no_room():
    """One slot, no history, nothing asked for: there is nothing to keep; later ones know what came before them."""
    plain, wide = decide(engine_of(), [asked("d1"), asked("d2", ("hero", 2), ("side", 1))])
    assert circumstances_of(plain) == [None]
    first, second, third = (one or PLAIN for one in decoded_of(wide))
    assert first == Circumstances(placements=(PlacementRequest("hero", 2), PlacementRequest("side", 1)))
    shown = tuple(Earlier("hero", item.action_id) for item in wide.placements[0].items)
    assert (second.earlier, third.earlier) == (shown[:1], shown)


def decoded_of(record):
    return decoded(pa.array(circumstances_of(record), pa.binary()))
