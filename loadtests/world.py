"""The shop in which speed is measured: 5,000 customers with 40 features each, 100 actions, 300 trees, 40 rules.

`python -m loadtests.world HOME` makes it: features in the home's offline tables, a catalog and a bundle in its registry. Caps
read every customer's history, one action in ten is explored, and half of all customers are in an experiment.
"""

import argparse
import datetime as dt
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.contract import Contract, Feature, Origin
from features.homes import write_home_contract
from features.vectors import Matrix, vectorize
from service.bundles.manifest import Split
from service.catalog.entities import Catalog
from service.catalog.validate import load_catalog
from service.registry import Registry
from training.calibrate import IDENTITY, sigmoid
from training.fit import FitSettings, Fitted
from training.importing import write_customer_views
from training.publish import Provenance, publish_bundle

CUSTOMERS, ACTIONS, RULES, TREES, LEAVES = 5000, 100, 40, 300, 31
RULES_AN_ACTION = 3
VIEWS: tuple[Origin, ...] = ("profile", "activity", "value", "attitude")
NUMBERS, CATEGORIES_A_VIEW = 8, 2  # of the ten features of each of four views
VOCABULARY = ("north", "south", "east", "west", "centre")
ATTRIBUTES = {"category": "category", "discount": "number", "price": "number", "margin": "number", "cost": "number"}
KINDS = ("fashion", "home", "tech", "food", "travel")
ROWS = 30_000  # that the trees are grown on
HISTORY_S = 86_400.0
FALLBACK = {"action": "none", "kind": "content"}
CONTEXT = (
    Feature("channel", "category", "context", categories=("web", "app", "email", "chat")),
    Feature("device", "category", "context", categories=("mobile", "desktop", "tablet")),
    Feature("hour", "number", "request_time"),
    Feature("weekday", "number", "request_time"),
)
PLACEMENT = "hero"

Columns = dict[str, npt.NDArray[Any]]


def contract() -> Contract:
    """Ten features in each of the four views: eight numbers, two categories."""
    found: list[Feature] = []
    for view in VIEWS:
        found += [Feature(f"{view}_{n}", "number", view, max_age=400 * 86_400.0) for n in range(NUMBERS)]
        found += [
            Feature(f"{view}_{n}", "category", view, max_age=400 * 86_400.0, categories=VOCABULARY)
            for n in range(NUMBERS, NUMBERS + CATEGORIES_A_VIEW)
        ]
    return Contract((*found, *CONTEXT))


def customers(count: int = CUSTOMERS, seed: int = 0) -> Columns:
    """What is known of them, by feature: numbers from a normal distribution, one in twenty missing."""
    chance, found = np.random.default_rng(seed), Columns()
    for feature in contract().customer:
        if feature.type == "number":
            values = chance.normal(size=count).round(4)
            values[chance.random(count) < 0.05] = np.nan  # noqa: PLR2004  # as above
            found[feature.key] = values
        else:
            found[feature.key] = chance.choice(VOCABULARY, count)
    return found


def customer_ids(count: int = CUSTOMERS) -> list[str]:
    """Their names."""
    return [f"c{number}" for number in range(count)]


def catalog_document(actions: int = ACTIONS, rules: int = RULES, slots: int = 1) -> dict[str, Any]:
    """So many actions with attributes, and so many distinct rules, three of them on each action; nobody fails them all."""
    named = {f"rule_{n}": _rule(n, rules) for n in range(rules)}
    return {
        "catalog": 1,
        "attributes": ATTRIBUTES,
        "rules": named,
        "issues": [{"id": "all"}],
        "groups": [{"id": f"group_{n}", "issue": "all"} for n in range(10)],
        "actions": [action(number, list(named)) for number in range(actions)],
        "placements": [{"id": PLACEMENT, "channel": "web", "slots": slots, "explore": {"epsilon": 0.1}, "fallback": FALLBACK}],
        "contact": {
            "caps": [
                {"name": "a_few_a_day", "at_most": 1000, "per": "everything", "window": "1d"},
                {"name": "each_a_few_times", "at_most": 200, "per": "action", "window": "7d"},
            ]
        },
        "experiments": [
            {
                "id": "levers", "share": 0.5,
                "arms": [{"id": "as_it_is"}, {"id": "no_levers", "ablation": "no_levers"}],
            }
        ],
    }  # fmt: skip


def _rule(number: int, of: int) -> str:
    """Most customers pass each; which, differs."""
    view = VIEWS[number % len(VIEWS)]
    if number % 8 == 7:  # noqa: PLR2004  # some ask for a category
        return f'customer.{view}_8 != "{VOCABULARY[number % len(VOCABULARY)]}"'
    return f"customer.{view}_{number % NUMBERS} >= {-2.0 + number / of:g}"


def action(number: int, rules: Sequence[str]) -> dict[str, Any]:
    """One of the shop, with three of these rules."""
    attributes = {
        "category": KINDS[number % len(KINDS)], "discount": (number % 10) / 20, "price": 10 + number % 200,
        "margin": 3 + number % 50, "cost": 1,
    }  # fmt: skip
    own = [rules[(number * RULES_AN_ACTION + n) % len(rules)] for n in range(RULES_AN_ACTION)]
    content = {"title": f"Offer {number}", "url": f"/offers/{number}"}
    return {
        "id": f"action_{number}", "group": f"group_{number % 10}", "kind": "offer", "value": 1 + number % 7,
        "attributes": attributes, "eligibility": own,
        "treatments": [{"id": "card", "placements": [PLACEMENT], "content": content}],
    }  # fmt: skip


def build(home: Path, trees: int = TREES) -> str:
    """Everything in its place but Redis, which `nextbest features materialize` fills. Returns the bundle's id."""
    known, ids, registry = customers(), customer_ids(), Registry(home / "registry")
    declared = contract()
    write_home_contract(home, declared)
    moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    arrow = {key: pa.array(values, from_pandas=True) for key, values in known.items()}
    write_customer_views(home, declared, pa.array(ids), pa.array([moment] * len(ids), pa.timestamp("us", tz="UTC")), arrow)
    catalog = publish(home)
    fitted, inputs, provenance = grown(catalog, known, trees)
    bundle = publish_bundle(registry, fitted, provenance, inputs, dt.datetime.now(dt.UTC))
    registry.promote(bundle, at=moment.isoformat(), why="speed is measured with it")
    return bundle


def publish(home: Path, actions: int = ACTIONS) -> Catalog:
    """A catalog of so many actions, which is the newest one now."""
    document = catalog_document(actions)
    catalog, at = load_catalog(document, contract()), dt.datetime.now(dt.UTC).isoformat()
    Registry(home / "registry").publish_catalog(document, fingerprint=catalog.fingerprint, author="loadtests", note="", at=at)
    return catalog


def another_bundle(home: Path, trees: int = TREES // 3) -> str:
    """A bundle that nobody serves yet. Returns its id."""
    registry = Registry(home / "registry")
    revision = registry.current().catalog
    catalog = load_catalog(registry.catalog(revision or 1).document, contract())
    fitted, inputs, provenance = grown(catalog, customers(), trees)
    return publish_bundle(registry, fitted, provenance, inputs, dt.datetime.now(dt.UTC))


def grown(catalog: Catalog, known: Columns, trees: int = TREES) -> tuple[Fitted, Matrix, Provenance]:
    """Exactly so many trees of 31 leaves, over inputs of customers, context and actions alike."""
    chance = np.random.default_rng(1)
    inputs = (*contract().features, *catalog.attributes)
    who, what = chance.integers(0, CUSTOMERS, ROWS), chance.integers(0, len(catalog.actions), ROWS)
    columns: dict[str, Any] = {key: values[who] for key, values in known.items()}
    columns |= {"context.channel": ["web"] * ROWS, "context.device": chance.choice(CONTEXT[1].categories, ROWS)}
    columns |= {
        "request_time.hour": chance.integers(0, 24, ROWS) * 1.0,
        "request_time.weekday": chance.integers(0, 7, ROWS) * 1.0,
    }
    for feature in catalog.attributes:
        columns[feature.key] = [_told(catalog, feature, row) for row in what.tolist()]
    matrix = vectorize(inputs, columns, ROWS)
    numbers = np.nan_to_num(matrix)
    margin = numbers @ chance.normal(0, 0.2, len(inputs)).astype(np.float32) * np.isfinite(matrix).mean() * 0.2 - 2
    labels = (chance.random(ROWS) < sigmoid(margin.astype(np.float64))).astype(np.float64)
    settings = FitSettings(rounds=trees, leaves=LEAVES)
    parameters = {
        "objective": "binary", "num_leaves": LEAVES, "learning_rate": 0.05, "min_data_in_leaf": 20, "seed": 0, "num_threads": 2,
        "deterministic": True, "force_col_wise": True, "zero_as_missing": False, "verbosity": -1, "feature_pre_filter": False,
    }  # fmt: skip
    names = [f"c{n}" for n in range(len(inputs))]
    booster = lightgbm.train(parameters, lightgbm.Dataset(matrix, labels, feature_name=names), trees)
    booster.best_iteration = trees
    fitted = Fitted(booster, IDENTITY, inputs, settings, {})
    ids = [action.id for action in catalog.actions]
    counts = np.bincount(what, minlength=len(ids)).tolist()
    provenance = Provenance(
        "click", ROWS, float(labels.mean()), dict.fromkeys(ids, float(labels.mean())), dict(zip(ids, counts, strict=True)),
        Split("time", 1.0), "made up",
    )  # fmt: skip
    return fitted, matrix, provenance


def _told(catalog: Catalog, feature: Feature, row: int) -> object:
    action = catalog.actions[row]
    return action.id if feature.name == "id" else action.attributes.get(feature.name)


def asks(count: int = CUSTOMERS, slots: int = 1) -> Iterator[dict[str, Any]]:
    """Requests without end, customer after customer in an order that no cache likes."""
    order = np.random.default_rng(2).permutation(count).tolist()
    while True:
        for number in order:
            device = CONTEXT[1].categories[number % 3]
            yield {
                "customer_id": f"c{number}", "placements": [{"id": PLACEMENT, "slots": slots}],
                "context": {"channel": "web", "device": device},
            }  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Make the home."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.world", description="The shop in which speed is measured.")
    parser.add_argument("home", type=Path)
    print(build(parser.parse_args(argv).home))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
