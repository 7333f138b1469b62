"""A world of lists: whoever stands low is looked at less, and the better ones mostly stood low."""

from pathlib import Path

import numpy as np

from features.contract import parse_contract
from features.homes import home_contract, write_home_contract
from service.bundles.loading import read_manifest
from service.bundles.manifest import Manifest
from service.catalog.validate import parse_catalog
from service.cli import main
from service.decision.decide import decide
from service.decision.engine import Engine, build_engine
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.decision.records import DecisionRecord, OutcomeRecord, Versions
from service.decision.scoring import FlatScorer
from service.registry import Registry
from tests.unit.training.conftest import write_log
from training.evaluate import current_catalog, engine_of
from training.fit import FitSettings
from training.learn import Manner, learn, prepare
from training.learning_rules import FILE

CONTRACT = parse_contract("""
features:
  - {name: mood, type: number, origin: profile, max_age: 90d}
  - {name: channel, type: category, origin: context, categories: [web, app]}
""")
CATALOG = """
catalog: 1
issues: [{id: sales}]
groups: [{id: cards, issue: sales}]
actions:
  - {id: gold, group: cards, kind: offer, value: 1, treatments: [{id: g, placements: [list]}]}
  - {id: silver, group: cards, kind: offer, value: 1, treatments: [{id: s, placements: [list]}]}
  - {id: bronze, group: cards, kind: nothing, value: 1, treatments: [{id: b, placements: [list]}]}
placements:
  - {id: list, channel: web, slots: 3, accepts: [offer, nothing], explore: {epsilon: 0.3},
     fallback: {action: none, kind: nothing}}
"""
ACTIONS = ("gold", "silver", "bronze")
EXAMINED = (1.0, 0.6, 0.35)  # how often anybody looks at each slot
GLAD, SAD = (0.45, 0.2, 0.25), (0.15, 0.4, 0.3)  # the rate of each action with whoever looks at it
SLATES, CUSTOMERS = 30_000, 4_000
QUICK = FitSettings(threads=1)
START = 1_790_000_000.0


def truth(mood: float, action: str) -> float:
    return (GLAD if mood > 0 else SAD)[ACTIONS.index(action)]


def moods() -> np.ndarray:
    return np.random.default_rng(11).standard_normal(CUSTOMERS)


def popular() -> Engine:
    """What served before: the worst of the glad ones' first, the best last."""
    catalog = parse_catalog(CATALOG, CONTRACT)[1]
    return build_engine(catalog, CONTRACT, FlatScorer([0.1, 0.2, 0.3]), Versions(1, None, CONTRACT.fingerprint))


def asked(number: int, mood: float, slots: int = 3) -> DecisionRequest:
    at, state = START + 60.0 * number, CustomerState({"mood": mood})
    return DecisionRequest(
        f"d{number}", f"c{number % CUSTOMERS}", at, state, {"channel": "web"}, (PlacementRequest("list", slots),)
    )


def outcomes(records: list[DecisionRecord], values: bool = False) -> list[OutcomeRecord]:
    """Everything came to the screen, not all of it was looked at."""
    chance, found = np.random.default_rng(5), []
    for record in records:
        for item in record.placements[0].items:
            name, at = f"{record.decision_id}-{item.rank}", record.at + 1.0
            found.append(OutcomeRecord(f"{name}-i", record.decision_id, "impression", at, at, "list", item.action_id))
            rate = EXAMINED[item.rank - 1] * truth(float(record.customer["mood"]), item.action_id)
            if chance.random() < rate:
                worth = 10.0 * (1 + ACTIONS.index(item.action_id)) * chance.lognormal() if values else 0.0
                found.append(OutcomeRecord(name, record.decision_id, "click", at, at, "list", item.action_id, worth))
    return found


def world(home: Path, slates: int = SLATES, slots: int = 3, values: bool = False) -> Path:
    """A home with a log, and a catalog that serves."""
    write_home_contract(home, CONTRACT)
    (home / "catalog.yaml").write_text(CATALOG)
    assert main(["--home", str(home), "catalog", "publish", str(home / "catalog.yaml")]) == 0
    mood = moods()
    records = decide(popular(), [asked(n, float(mood[n % CUSTOMERS]), slots) for n in range(slates)])
    write_log(home, records, outcomes(records, values))
    return home


def learned(home: Path, rule: str = "input", **manner) -> str:
    """A bundle of a home, by the rule."""
    (home / FILE).write_text(f'[training]\nslot = "{rule}"\n')
    return learn(home, prepare(home, manner.pop("objective", "click")), Manner(QUICK, **manner)).bundle


def manifest_of(home: Path, bundle: str) -> Manifest:
    return read_manifest(Registry(home / "registry").bundle_folder(bundle))


def served_rates(home: Path, bundle: str, slot: int = 1) -> dict[str, list[float]]:
    """By action, for the glad and the sad, as an engine would serve them."""
    registry, contract = Registry(home / "registry"), home_contract(home)
    engine = engine_of(registry, contract, current_catalog(registry, contract), bundle, slot=slot)
    rates = engine.scorer.score(engine.encoders["primary"].encode([{"mood": 1.0}, {"mood": -1.0}], [{"channel": "web"}] * 2))
    return {action: rates[:, engine.positions[action]].tolist() for action in ACTIONS}


def order(rates: dict[str, list[float]], who: int) -> list[str]:
    return sorted(rates, key=lambda action: -rates[action][who])
