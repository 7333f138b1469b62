"""Policies as tables of probabilities, and what the estimators get to see of them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from features.contract import parse_contract
from service.catalog.validate import parse_catalog
from service.decision.engine import Engine, build_engine
from service.decision.records import Versions
from service.decision.scoring import FlatScorer
from training.examples import Examples
from training.off_policy import doubly_robust, inverse_propensity
from training.policies import PolicyRows, always, chunks, uniform

CONTRACT = parse_contract("features: [{name: channel, type: category, origin: context, categories: [web, app]}]")
CATALOG = """
catalog: 1
issues: [{id: sales}]
groups: [{id: cards, issue: sales}]
actions:
  - {id: gold, group: cards, kind: offer, value: 1, treatments: [{id: g, placements: [hero]}]}
  - {id: silver, group: cards, kind: offer, value: 1, treatments: [{id: s, placements: [hero]}]}
  - {id: bronze, group: cards, kind: offer, value: 1, eligibility: {is_web: 'context.channel == "web"'},
     treatments: [{id: b, placements: [hero]}]}
placements: [{id: hero, channel: web, slots: 3, explore: {epsilon: 0.3}, fallback: {action: none, kind: nothing}}]
"""
RATES = [0.3, 0.2, 0.1]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return build_engine(parse_catalog(CATALOG, CONTRACT)[1], CONTRACT, FlatScorer(RATES), Versions(1, None, ""))


def logged(*rows: tuple[str, str, int, str], placement: str = "hero", labels=None) -> Examples:
    """(decision, action, slot, channel) each, logged with probability one half."""
    size = len(rows)
    return Examples(
        decision_id=pa.array([r[0] for r in rows]), customer_id=np.array(["c"] * size), decided_at=np.arange(size, dtype=float),
        placement=np.array([placement] * size), slot=np.array([r[2] for r in rows]), action_id=np.array([r[1] for r in rows]),
        choice_probability=np.full(size, 0.5), label=np.array(labels if labels is not None else [1.0] * size),
        values={"context.channel": pa.array([r[3] for r in rows], pa.string())},
    )  # fmt: skip


def only_chunk(examples: Examples, engine: Engine):
    [chunk] = chunks(examples, engine)
    return chunk, chunk.choices(engine)


def test_a_row_becomes_the_request_that_was_asked(engine):
    """Rules see the logged context: bronze is for the web only."""
    _, table = only_chunk(logged(("d1", "gold", 1, "web"), ("d2", "gold", 1, "app")), engine)
    assert table.allowed.tolist() == [[True, True, True], [True, True, False]]
    assert table.probabilities[1].tolist() == pytest.approx([0.85, 0.15, 0.0])


def test_a_later_slot_cannot_repeat_what_the_earlier_ones_show(engine):
    """The choice for slot two is among what is left."""
    rows = logged(("d1", "gold", 1, "web"), ("d1", "silver", 2, "web"), ("d1", "bronze", 3, "web"))
    _, table = only_chunk(rows, engine)
    assert table.allowed.tolist() == [[True, True, True], [False, True, True], [False, False, True]]
    assert table.probabilities[2].tolist() == [0.0, 0.0, 1.0]


def test_rows_of_a_placement_that_is_gone_are_left_as_they_were(engine):
    """Nothing can be said of them, so every policy is worth there what the log was."""
    gone = logged(("d1", "gold", 1, "web"), placement="retired")
    assert list(chunks(gone, engine)) == []


def test_a_policy_without_anything_to_offer_does_what_the_log_did(engine):
    """Weight one and the logged reward: no gain, no loss, and no claim."""
    rows = logged(("d1", "gold", 1, "app"), ("d2", "gold", 1, "web"), labels=[1.0, 0.0])
    chunk, table = only_chunk(rows, engine)
    found = PolicyRows(rows)
    found.add("always:bronze", chunk, always(table.allowed, 2), table.predicted_rates)
    seen = found.rows("always:bronze")
    assert seen.weight.tolist() == [1.0, 0.0]
    assert doubly_robust(seen).tolist() == pytest.approx([1.0, 0.1])
    assert seen.decided.tolist() == [False, True]
    assert seen.own_weight.tolist() == [0.0]


def test_an_action_that_left_the_catalog_has_weight_zero(engine):
    """No policy of this catalog would have chosen it; the reward model stands in."""
    rows = logged(("d1", "retired", 1, "web"))
    chunk, table = only_chunk(rows, engine)
    found = PolicyRows(rows)
    found.add("bundle:x", chunk, table.probabilities, table.predicted_rates)
    assert found.rows("bundle:x").weight.tolist() == [0.0]
    assert inverse_propensity(found.rows("bundle:x")).tolist() == [0.0]
    assert doubly_robust(found.rows("bundle:x")).tolist() == pytest.approx([0.8 * 0.3 + 0.1 * 0.2 + 0.1 * 0.1])


def test_weights_are_the_ratio_of_what_would_be_chosen_to_what_was(engine):
    """0.8 on the best against a logged half."""
    rows = logged(("d1", "gold", 1, "web"), ("d2", "silver", 1, "web"))
    chunk, table = only_chunk(rows, engine)
    found = PolicyRows(rows)
    found.add("bundle:x", chunk, table.probabilities, table.predicted_rates)
    assert found.rows("bundle:x").weight.tolist() == pytest.approx([1.6, 0.2])
    assert found.rows("bundle:x").predicted.tolist() == [0.3, 0.2]


@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 5), st.just(4))))
def test_uniform_spreads_evenly_over_what_is_allowed_and_always_stays_within_it(allowed):
    """Rows sum to one, or to zero where nothing is allowed."""
    table = uniform(allowed)
    assert table.sum(axis=1).tolist() == pytest.approx(allowed.any(axis=1).astype(float).tolist())
    assert not table[~allowed].any()
    assert always(allowed, 2).sum(axis=1).tolist() == allowed[:, 2].astype(float).tolist()
