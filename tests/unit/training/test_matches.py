"""An input of customer and action together: the same where it is served, where it is learned from, and where it is explained."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from features.contract import Feature, parse_contract
from features.vectors import RowEncoder
from service.bundles.loading import read_manifest
from service.bundles.matching import Matching
from service.bundles.onnx_scorer import action_matrix
from service.catalog.entities import Action
from service.catalog.validate import parse_catalog
from service.registry import Registry
from training.batch import serving_engine
from training.contributions import contributions
from training.decision_log import read_decisions
from training.examples import Examples
from training.learn import prepare
from training.pairs import MOST_CATEGORIES, PRIOR_ROWS, with_pairs
from training.simulate import CATEGORIES

CONTRACT = parse_contract("""
features:
  - {name: age, type: number, origin: profile, max_age: 400d}
  - {name: likes, type: category, origin: value, max_age: 400d, categories: [shoes, books, toys]}
  - {name: device, type: category, origin: context, categories: [mobile, desktop], default: desktop}
""")
CATALOG = """
catalog: 1
attributes:
  kind: {type: category, matches: customer.likes}
  made_for: {type: category, matches: context.device}
issues: [{id: all}]
groups: [{id: all, issue: all}]
placements: [{id: hero, channel: web, fallback: {action: none, kind: content}}]
actions:
"""
ACTION = (
    "  - {{id: a{n}, group: all, kind: offer, value: 1, attributes: {told}, treatments: [{{id: t{n}, placements: [hero]}}]}}\n"
)
kinds = st.sampled_from([None, "shoes", "books", "toys", "garden"])
devices = st.sampled_from([None, "mobile", "desktop", "tv"])


def catalog_of(offers: list[tuple[str | None, str | None]]):
    """Actions with these attributes."""
    told = [{k: v for k, v in zip(("kind", "made_for"), offer, strict=True) if v is not None} for offer in offers]
    return parse_catalog(CATALOG + "".join(ACTION.format(n=n, told=own) for n, own in enumerate(told)), CONTRACT)[1]


def rows_of(customers: list[dict], contexts: list[dict], actions: list[str]) -> Examples:
    """What the log would have of them."""
    size = len(actions)
    told = {f"customer.{n}": [c.get(n) for c in customers] for n in ("age", "likes")}
    told["context.device"] = [c.get("device") for c in contexts]
    kinds_of = {"customer.age": pa.float64()}
    return Examples(
        pa.array([str(n) for n in range(size)]), np.array(["c"] * size), np.zeros(size), np.array(["hero"] * size),
        np.ones(size, int),
        np.array(actions), np.ones(size), np.zeros(size), {k: pa.array(v, kinds_of.get(k, pa.string())) for k, v in told.items()},
    )  # fmt: skip


@given(
    told=st.lists(st.tuples(kinds, devices, st.integers(0, 3), st.booleans()), min_size=1, max_size=8),
    offers=st.lists(st.tuples(kinds, devices), min_size=4, max_size=4),
)
def test_what_is_served_is_what_is_learned_from(told, offers):
    """Requests as the service encodes them, rows as training makes them, and as evaluation reads them: bit for bit."""
    catalog = catalog_of(offers)
    customers, contexts = [{"likes": k} if k else {} for k, *_ in told], [{"device": d} if d else {} for _, d, *_ in told]
    shown, labels = np.array([n for _, _, n, _ in told]), np.array([float(label) for *_, label in told])
    examples, attributes = rows_of(customers, contexts, [f"a{n}" for n in shown]), {a.id: a.attributes for a in catalog.actions}
    declared = (*CONTRACT.features, *catalog.attributes)
    columns, learned = with_pairs(declared, examples.matrix(declared, attributes), labels)
    requests = RowEncoder([c for c in columns if c.is_of_request]).encode(customers, contexts)
    offered = action_matrix([c for c in columns if c.scope == "action"], catalog.actions)
    matching = Matching(columns, catalog.actions)
    served = np.hstack([requests, offered[shown], matching.values(requests)[np.arange(len(told)), shown]])
    np.testing.assert_array_equal(served, learned)
    np.testing.assert_array_equal(examples.matrix(columns, attributes), learned)
    np.testing.assert_array_equal(matching.values_of(requests, shown), learned[:, -4:])


def test_a_match_is_of_names_and_a_default_is_the_customers():
    """Same, different, outside the customer's vocabulary, missing on either side; a default stands in for the customer only."""
    catalog = catalog_of([("shoes", "desktop"), ("garden", None), (None, "tv")])
    columns = (*CONTRACT.features, *catalog.attributes)
    customers = [{"likes": "shoes"}, {"likes": "books"}, {"likes": "garden"}, {}, {"likes": "shoes"}]
    examples = rows_of(customers, [{}] * 5, ["a0", "a0", "a1", "a0", "a2"])
    found = examples.matrix(columns, {a.id: a.attributes for a in catalog.actions})
    np.testing.assert_array_equal(found[:, -4], [1.0, 0.0, 0.0, np.nan, np.nan])
    np.testing.assert_array_equal(found[:, -3], [1.0, 1.0, np.nan, 1.0, 0.0])


def test_a_bundle_says_what_it_matches_and_an_explanation_what_it_found(busy_home: Path):
    """The shop declares it; its manifest alone says what is compared with what."""
    registry = Registry(busy_home / "registry")
    manifest = read_manifest(registry.bundle_folder(registry.bundles()[0]))
    assert manifest.inputs[-2] == Feature("category", "number", "match", matches="customer.favourite_category")
    assert manifest.inputs[-1].matches == "customer.favourite_category"
    rates = manifest.inputs[-1].rates
    assert all(rates[name][name] > np.mean(list(rates[name].values())) for name in CATEGORIES)
    attributes = {action.id: action.attributes for action in serving_engine(busy_home).actions}
    seen = set()
    for logged in list(read_decisions(busy_home))[:20]:
        liked = logged.record.customer.get("favourite_category")
        for action in logged.record.placements[0].candidates:
            for part in contributions(registry, manifest, logged.record, action, attributes[action]):
                if part.name == "pair.category" and liked is not None:
                    assert part.value == np.float32(rates[attributes[action]["category"]][liked])
                if part.name == "match.category":
                    assert part.value == (None if liked is None else float(liked == attributes[action]["category"]))
                    seen.add(part.value)
    assert {0.0, 1.0} <= seen


def test_a_match_may_be_held_to_a_way(own_busy_home: Path):
    """It is a number among others."""
    (own_busy_home / "learning.toml").write_text('[monotone]\n"match.category" = 1\n')
    lesson = prepare(own_busy_home, "click")
    assert lesson.monotone == {"match.category": 1}
    assert set(np.unique(lesson.inputs[:, -2][~np.isnan(lesson.inputs[:, -2])]).tolist()) == {0.0, 1.0}


def test_actions_that_only_a_match_tells_apart_have_scorers_of_their_own():
    """Both kinds are outside the model's vocabulary, and not outside the customer's."""
    inputs = (
        CONTRACT.features[1],
        Feature("kind", "category", "action", categories=("toys",)),
        catalog_of([(None, None)]).attributes[-4],
    )
    told = [Action("a", "offer", "all", "all", 1.0, 1.0, 0.0, None, None, {"kind": kind}, (), ()) for kind in ("shoes", "books")]
    assert action_matrix(inputs[1:2], told[:1]) == action_matrix(inputs[1:2], told[1:])
    assert Matching(inputs, told[:1]).codes != Matching(inputs, told[1:]).codes


LIKES = CONTRACT.features[1]
KIND = Feature("kind", "category", "action", categories=("a", "b"))
PAIR = Feature("kind", "number", "pair", matches="customer.likes")


def test_what_pairs_brought_is_told_by_the_rows_that_trees_grow_on():
    """Drawn towards the mean as if by twenty more rows; the last fifth, which judges, says nothing."""
    inputs = np.array([[0, 0, np.nan]] * 40 + [[1, 0, np.nan]] * 40 + [[1, 1, np.nan]] * 20, np.float32)
    labels = np.array([1.0] * 30 + [0.0] * 50 + [1.0] * 20)
    columns, found = with_pairs((LIKES, KIND, PAIR), inputs, labels)
    mean = 30 / 80
    often, never = ((hits + PRIOR_ROWS * mean) / (40 + PRIOR_ROWS) for hits in (30, 0))
    assert columns[2].rates == {"a": {"shoes": often, "books": never, "toys": mean}}
    np.testing.assert_array_equal(found[[0, 40, 99], 2], np.array([often, never, np.nan], np.float32))
    assert np.isnan(inputs[:, 2]).all()


def test_pairs_of_too_many_categories_are_not_learned():
    """Each has too few rows; the input stays missing, and no tree asks for it."""
    many = tuple(str(n) for n in range(MOST_CATEGORIES + 1))
    columns = (LIKES, Feature("kind", "category", "action", categories=many), PAIR)
    learned, found = with_pairs(columns, np.zeros((10, 3), np.float32), np.ones(10))
    assert learned == columns
    assert (found == 0.0).all()
