"""Values per slate: a world of two slots whose truth is written down, slots that nobody saw, and what is printed of it."""

import itertools

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import yaml

from features.contract import parse_contract
from service.catalog.validate import parse_catalog
from service.cli import main
from service.decision.decide import choice_table, decide
from service.decision.engine import Engine, build_engine
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.decision.records import OutcomeRecord, Versions
from service.decision.scoring import FlatScorer
from service.registry import Registry
from tests.unit.training.conftest import write_log
from training.batch import serving_engine
from training.evaluate import evaluate
from training.examples import Examples
from training.judging import report
from training.policies import PolicyRows, chunks, uniform
from training.promotion import promote_without_evidence
from training.slate_values import slate_values
from training.summary import evaluation_table, plain_table, terminal

CONTRACT = parse_contract("features: [{name: channel, type: category, origin: context, categories: [web, app]}]")
CATALOG = """
catalog: 1
issues: [{id: sales}]
groups: [{id: cards, issue: sales}]
actions:
  - {id: gold, group: cards, kind: offer, value: 1, treatments: [{id: g, placements: [hero]}]}
  - {id: silver, group: cards, kind: offer, value: 1, treatments: [{id: s, placements: [hero]}]}
  - {id: bronze, group: cards, kind: offer, value: 1, treatments: [{id: b, placements: [hero]}]}
placements: [{id: hero, channel: web, slots: 2, explore: {epsilon: 0.6}, fallback: {action: none, kind: nothing}}]
"""
ACTIONS = ["gold", "silver", "bronze"]
FIRST = np.array([0.2, 0.5, 0.7])  # how often the first slot succeeds
SECOND = np.array([[0.0, 0.2, 0.1], [0.3, 0.0, 0.8], [0.7, 0.6, 0.0]])  # the second one, after each first action
WEB = {"channel": "web"}
POLICY = "bundle:new"


def engine_of(*rates: float) -> Engine:
    return build_engine(parse_catalog(CATALOG, CONTRACT)[1], CONTRACT, FlatScorer(list(rates)), Versions(1, None, ""))


OLD, NEW = engine_of(0.3, 0.2, 0.1), engine_of(0.1, 0.2, 0.3)


def asked(name: str, exclude: tuple[str, ...] = (), slots: int = 2) -> DecisionRequest:
    return DecisionRequest(
        name, f"customer of {name}", 0.0, CustomerState({}), WEB, (PlacementRequest("hero", slots),), exclude_actions=exclude
    )


def truth(engine: Engine) -> tuple[float, float]:
    """What an engine earns in each slot, over every slate that it can show."""
    places = [engine.positions[action] for action in ACTIONS]
    first = choice_table(engine, [asked("x", (), 1)], "hero").probabilities[0][places]
    later = [choice_table(engine, [asked("x", (action,), 1)], "hero").probabilities[0][places] for action in ACTIONS]
    return float(first @ FIRST), float(
        sum(first[f] * later[f][s] * SECOND[f, s] for f, s in itertools.product(range(3), repeat=2))
    )


def log(slates: int, seed: int, unseen: tuple[float, float] = (0.0, 0.0)) -> Examples:
    """What the old engine showed and what came of it; of each slot a share was seen by nobody."""
    chance = np.random.default_rng(seed)
    rows = []
    for record in decide(OLD, [asked(f"{seed}-{number}") for number in range(slates)]):
        first, second = (ACTIONS.index(item.action_id) for item in record.placements[0].items)
        rates = FIRST[first], SECOND[first, second]
        for item, rate, missed in zip(record.placements[0].items, rates, unseen, strict=True):
            if chance.random() >= missed:
                rows.append((record.decision_id, record.customer_id, item, float(chance.random() < rate)))
    ids, customers, items, labels = zip(*rows, strict=True)
    return Examples(
        decision_id=pa.array(ids), customer_id=np.array(customers), decided_at=np.arange(len(rows), dtype=float),
        placement=np.array(["hero"] * len(rows)), slot=np.array([item.rank for item in items]),
        action_id=np.array([item.action_id for item in items]),
        choice_probability=np.array([item.choice_probability for item in items]), label=np.array(labels),
        values={"context.channel": pa.array(["web"] * len(rows))},
    )  # fmt: skip


def judged(examples: Examples) -> PolicyRows:
    """The rows as the new engine, a uniform choice and a single action see them."""
    found = PolicyRows(examples)
    for chunk in chunks(examples, NEW):
        table = chunk.choices(NEW)
        found.add(POLICY, chunk, table.probabilities, table.predicted_rates)
        found.add("uniform", chunk, uniform(table.allowed), table.predicted_rates)
        found.add("always:gold", chunk, uniform(table.allowed), table.predicted_rates)
    return found


def clusters(examples: Examples) -> np.ndarray:
    return np.unique(examples.customer_id, return_inverse=True)[1]


def valued(examples: Examples):
    [found] = slate_values(examples, judged(examples), clusters(examples))
    return found


def test_values_come_near_the_truth_slot_by_slot():
    """20,000 slates: the new engine's, and the old one's as it was logged; by rows alone the later slot would be off."""
    examples = log(20_000, seed=1)
    found = valued(examples)
    assert (found.placement, found.slates, found.shown) == ("hero", 20_000, (20_000, 20_000))
    assert list(found.policies) == ["logged", POLICY, "uniform"]
    for name, engine in ((POLICY, NEW), ("logged", OLD)):
        slots = truth(engine)
        assert [slot.value for slot in found.policies[name].slots] == pytest.approx(slots, abs=0.02)
        assert found.policies[name].value == pytest.approx(sum(slots), abs=0.03)
    rows = judged(examples).rows(POLICY)
    alone = float((rows.weight * rows.reward)[examples.slot == 2].mean())
    assert abs(alone - truth(NEW)[1]) > 0.05


def test_the_interval_holds_the_truth_in_95_of_100_logs():
    """200 logs of 400 slates, by each estimator; a standard error of the share is 1.5 percent."""
    expected, held = sum(truth(NEW)), dict.fromkeys(("ips", "snips", "dr"), 0)
    for seed in range(200):
        for name, within in valued(log(400, 100 + seed)).policies[POLICY].estimators.items():
            held[name] += within.ci[0] <= expected <= within.ci[1]
    assert all(0.90 <= times / 200 <= 0.99 for times in held.values()), held


def test_slots_that_a_policy_does_not_decide_carry_no_value():
    """The new engine decides sixty of 400 slates; the others weigh one, and say nothing of it."""
    examples = log(400, seed=3)
    found = PolicyRows(examples)
    for chunk in chunks(examples, NEW):
        table = chunk.choices(NEW)
        some = np.isin(examples.decision_id.take(pa.array(chunk.rows)).to_pylist(), np.unique(examples.decision_id)[:60])
        found.add(POLICY, chunk, table.probabilities * some[:, None], table.predicted_rates)
    [placement] = slate_values(examples, found, clusters(examples))
    assert max(placement.policies[POLICY].ess) <= 60
    assert sum("of 60 rows" in doubt for doubt in placement.policies[POLICY].doubts) == 2


def test_slots_that_nobody_saw_are_kept_apart():
    """They are no failures: a slot's value is of those that were seen, and after a gap nothing is known."""
    examples = log(20_000, seed=2, unseen=(0.1, 0.5))
    found = valued(examples)
    assert [slot.value for slot in found.policies[POLICY].slots] == pytest.approx(truth(NEW), abs=0.02)
    first = set(examples.decision_id.filter(pa.array(examples.slot == 1)).to_pylist())
    both = [name for name in examples.decision_id.filter(pa.array(examples.slot == 2)).to_pylist() if name in first]
    assert (found.slates, found.shown) == (len(first), (len(first), len(both)))


def test_weights_multiply_and_say_when_the_log_cannot_carry_a_value():
    """The later slot has fewer effective slates; with sixty slates there are too few, and the words say in which slot."""
    many, few = valued(log(4000, 3)).policies[POLICY], valued(log(60, 3)).policies[POLICY]
    assert many.ess[1] < many.ess[0]
    assert many.max_weight[1] > many.max_weight[0]
    assert many.doubts == ()
    assert few.doubts[0].startswith("slot 1: effective sample size")
    assert any(doubt.startswith("slot 2: ") for doubt in few.doubts)


def test_slates_of_one_customer_go_together():
    """Every slate twice says no more than once."""
    examples = log(500, 4)
    [once] = slate_values(examples, judged(examples), clusters(examples))
    twice = examples.take(np.tile(np.arange(len(examples)), 2))
    ids = pa.array([f"{name} {row >= len(examples)}" for row, name in enumerate(twice.decision_id.to_pylist())])
    twice = Examples(**{**vars(twice), "decision_id": ids})
    [again] = slate_values(twice, judged(twice), clusters(twice))
    assert again.policies[POLICY].ci == pytest.approx(once.policies[POLICY].ci, abs=2e-6)
    assert again.slates == 2 * once.slates


def test_a_log_of_single_slots_has_no_slates():
    """Neither where all are first, nor where each row is a decision of its own, whatever its slot."""
    examples = log(300, 5)
    first = examples.take(examples.slot == 1)
    alone = Examples(**{**vars(examples), "decision_id": pa.array([f"d{row}" for row in range(len(examples))])})
    later = examples.take(examples.slot == 2)
    for some in (first, alone, later):
        assert slate_values(some, judged(some), clusters(some)) == ()
    said = report("click", "new", None, first, judged(first))
    assert said.slates is msgspec.UNSET
    assert b"slates" not in msgspec.json.encode(said)


@pytest.fixture
def home_of_slates(own_home, shop):
    """The shop with two slots on its front page: 2,000 decisions, each first item seen, each second one by half of them."""
    document = yaml.safe_load((own_home / "catalog.yaml").read_text())
    for placement in document["placements"]:
        placement["slots"] = 2 if placement["id"] == "home_hero" else 1
    (own_home / "slates.yaml").write_text(yaml.safe_dump(document))
    assert main(["--home", str(own_home), "catalog", "publish", str(own_home / "slates.yaml")]) == 0
    promote_without_evidence(own_home, Registry(own_home / "registry").bundles()[0], "for tests")
    moments = [m for m in shop.moments(3000, 1.9e9, 1.9e9 + 86_400, seed=6) if m.placement == "home_hero"]
    requests = [shop.request(moment, f"slate-{row}") for row, moment in enumerate(moments)]
    requests = [msgspec.structs.replace(r, placements=(PlacementRequest("home_hero", 2),)) for r in requests]
    records, chance, outcomes = decide(serving_engine(own_home), requests), np.random.default_rng(6), []
    for record in records:
        for item in record.placements[0].items[: 1 + int(chance.random() < 0.5)]:
            for kind in ["impression", "click"][: 1 + int(chance.random() < 0.2)]:
                name = f"{record.decision_id}-{item.rank}-{kind}"
                outcomes.append(OutcomeRecord(name, record.decision_id, kind, record.at, record.at, "home_hero", item.action_id))
    write_log(own_home, records, outcomes)
    return own_home


def test_evaluate_tells_slates_beside_rows(home_of_slates, capsys):
    """A table at the terminal, the same in JSON: per slate, slot by slot, effective slates."""
    found = evaluate(home_of_slates, "click")
    [slates] = found.slates
    assert slates.placement == "home_hero"
    assert slates.shown[0] > slates.shown[1] > 500
    assert slates.shown[0] == slates.slates
    own = slates.policies[f"bundle:{found.bundle}"]
    assert own.estimators.keys() == {"ips", "snips", "dr"}
    assert own.ci[0] < own.value < own.ci[1]
    assert main(["--home", str(home_of_slates), "evaluate"]) == 0
    printed = capsys.readouterr().out
    assert f"per slate of `home_hero`, on {slates.slates:,} slates" in printed
    assert f"{own.value:.4f}" in printed
    assert "slot 2" in printed
    assert main(["--home", str(home_of_slates), "evaluate", "--json"]) == 0
    told = msgspec.json.decode(capsys.readouterr().out.encode())
    assert told["slates"] == msgspec.json.decode(msgspec.json.encode(found.slates))


def test_names_in_brackets_are_told_as_they_are(capsys):
    """An action may be called like a mark of the terminal's."""
    table = plain_table("action")
    table.add_row("offer [vip] [/off]")
    terminal().print(table)
    terminal().print("[bold]")
    printed = capsys.readouterr().out
    assert "offer [vip] [/off]" in printed
    assert "[bold]" in printed


def test_what_the_log_cannot_carry_is_told_at_the_terminal(capsys):
    """With the policy, the slot and the reason."""
    examples = log(60, 7)
    evaluation_table(report("click", "new", None, examples, judged(examples)), terminal())
    assert f"{POLICY}: the log cannot carry its value: slot 1: effective sample size" in capsys.readouterr().out
