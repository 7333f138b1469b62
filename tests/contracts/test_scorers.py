"""One suite of promises over every scorer; a compiled one equals the reference, whatever the trees ask."""

import shutil
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from features.contract import MOST_SLOTS, SLOT, Feature
from features.homes import home_contract
from features.native import built
from features.vectors import vectorize
from service.bundles.compiled_scorer import MOST_LEAVES, MOST_ROWS, CompiledScorer, too_many_worlds, unfit
from service.bundles.loading import COMPILED_FROM, Bundle, load_bundle
from service.bundles.native_leaves import AT_ONCE, IS_BUILT, NativeLeaves, _leaves
from service.bundles.onnx_scorer import OnnxModel, OnnxScorer
from service.bundles.onnx_trees import MODES, Ensemble, read_trees
from service.catalog.entities import Action
from service.decision.scoring import FlatScorer, Scorer
from service.registry import Registry

KINDS, REGIONS = ("a", "b", "c"), ("north", "south")
INPUTS = (
    Feature("age", "number", "profile"),
    Feature("visits", "number", "activity"),
    Feature("price", "number", "action"),
    Feature("margin", "number", "action"),
)
MATCHED = (
    Feature("age", "number", "profile"),
    Feature("favourite", "category", "value", categories=KINDS),
    Feature("region", "category", "context", categories=REGIONS, default="north"),
    Feature("price", "number", "action"),
    Feature("kind", "category", "action", categories=("c", "b")),
    Feature("kind", "number", "match", matches="customer.favourite"),
    Feature("place", "number", "match", matches="context.region"),
    Feature("kind", "number", "pair", matches="customer.favourite", rates={"b": {"a": 1.0, "b": 0.0}, "d": {"c": 2.0, "e": 3.5}}),
)
SLOTTED = (*MATCHED[:5], SLOT, *MATCHED[5:])
VALUES = [np.nan, np.inf, -np.inf, -1.0, 0.0, 0.5, 1.0, 2.0, 3.5]  # thresholds too: most values hit one, or miss it by nothing
NEAR = [*VALUES, *(float(np.nextafter(np.float32(v), np.float32(s))) for v in VALUES[3:] for s in (-9, 9))]
KNOWN = [value for value in NEAR if not np.isinf(value)]  # as a request's values are encoded
ACTIONS = 7


class Node(NamedTuple):
    """A question with its two branches, or a leaf."""

    feature: int = 0
    mode: str = "LEAF"
    threshold: float = 0.0
    missing: bool = False
    weight: float = 0.0
    branches: tuple["Node", ...] = ()


leaves = st.floats(-2, 2, width=32).map(lambda weight: Node(weight=weight))


def nodes_over(inputs: int) -> st.SearchStrategy[Node]:
    """Trees that ask for any of so many inputs."""
    return st.recursive(
        leaves,
        lambda inner: st.tuples(
            st.integers(0, inputs - 1), st.sampled_from(MODES), st.sampled_from(VALUES[1:]), st.booleans(),
            st.tuples(inner, inner),
        ).map(lambda told: Node(*told[:4], branches=told[4])),
        max_leaves=12,
    )  # fmt: skip


nodes = nodes_over(len(INPUTS))
rows = st.lists(st.sampled_from(NEAR), min_size=2, max_size=2)


def onnx_of(
    trees: Sequence[Node], *, link: str = "Sigmoid", base: Sequence[float] = (0.25,), inputs: int = len(INPUTS), **changes
) -> bytes:
    """A model of these trees."""
    columns: dict[str, list] = {key: [] for key in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids")}
    columns |= {"falsenodeids": [], "missing_value_tracks_true": []}
    targets: dict[str, list] = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}
    for number, root in enumerate(trees):
        waiting, used = [(root, 0)], 1
        while waiting:
            node, name = waiting.pop()
            true, false = (used, used + 1) if node.branches else (0, 0)
            row = (number, name, node.feature, node.mode, node.threshold, true, false, int(node.missing))
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
            if node.branches:
                used += 2
                waiting += [(node.branches[1], false), (node.branches[0], true)]
            else:
                for column, value in zip(targets.values(), (number, name, 0, node.weight), strict=True):
                    column.append(value)
    ensemble = helper.make_node(
        "TreeEnsembleRegressor", ["inputs"], ["margin" if link else "rate"], domain="ai.onnx.ml",
        **{"n_targets": 1, "aggregate_function": "SUM", "post_transform": "NONE", "base_values": list(base)}
        | {f"nodes_{k}": v for k, v in columns.items()} | {f"target_{k}": v for k, v in targets.items()} | changes,
    )  # fmt: skip
    graph = helper.make_graph(
        [ensemble, *([helper.make_node(link, ["margin"], ["rate"])] if link else [])], "trees",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, inputs])],
        [helper.make_tensor_value_info("rate", TensorProto.FLOAT, [None, 1])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def compiled(
    model: bytes, actions: Sequence[Action], inputs: Sequence[Feature] = INPUTS, *, native: bool = IS_BUILT
) -> CompiledScorer:
    trees = read_trees(model)
    assert trees is not None
    return CompiledScorer(trees, inputs, actions, native=native)


def some_actions(attributes: Sequence[Sequence[float | None]]) -> list[Action]:
    named = [{"price": p, "margin": m} for p, m in attributes]
    known = [{name: value for name, value in told.items() if value is not None} for told in named]
    return [Action(f"a{n}", "offer", "all", "all", 1.0, 1.0, 0.0, None, None, told, (), ()) for n, told in enumerate(known)]


def matched_actions(attributes: Sequence[tuple[str | None, str | None]]) -> list[Action]:
    """Of a kind and a place each."""
    named = [{"price": float(n), "kind": kind, "place": place} for n, (kind, place) in enumerate(attributes)]
    known = [{name: value for name, value in told.items() if value is not None} for told in named]
    return [Action(f"a{n}", "offer", "all", "all", 1.0, 1.0, 0.0, None, None, told, (), ()) for n, told in enumerate(known)]


def forest(seed: int, trees: int, depth: int, inputs: int = len(INPUTS)) -> list[Node]:
    """Full trees with thresholds from a normal distribution."""
    chance = np.random.default_rng(seed)

    def grown(level: int) -> Node:
        if not level:
            return Node(weight=float(np.float32(chance.normal(0, 0.02) * 10.0 ** -chance.uniform(0, 9))))  # sums round
        threshold = float(np.float32(chance.normal()))
        feature, missing = int(chance.integers(0, inputs)), bool(chance.integers(0, 2))
        return Node(feature, "BRANCH_LEQ", threshold, missing, branches=(grown(level - 1), grown(level - 1)))

    return [grown(depth) for _ in range(trees)]


@pytest.fixture(
    params=[
        "flat", "onnx", "compiled", "numpy",
        *(f"{kind}, {told}" for told in ("matches", "slot") for kind in ("onnx", "compiled", "numpy")),
    ]
)  # fmt: skip
def scorer(request) -> Scorer:
    """Each of them, for the same seven actions."""
    attributes = np.random.default_rng(1).normal(size=(ACTIONS, 2)).tolist()
    actions, model = some_actions(attributes), onnx_of(forest(2, 30, 4))
    offered = matched_actions(
        [("a", "north"), ("b", "south"), ("c", None), ("d", "north"), (None, "east"), ("a", "south"), ("b", "x")]
    )
    match request.param.split(", "):
        case ["flat"]:
            return FlatScorer(np.linspace(0, 0.5, ACTIONS).tolist())
        case [kind, told]:
            inputs, actions = SLOTTED if told == "slot" else MATCHED, offered
            model = onnx_of(forest(2, 60, 4, len(inputs)), inputs=len(inputs))
        case [kind]:
            inputs = INPUTS
    if kind == "onnx":
        return OnnxScorer(OnnxModel(model, len(inputs)), inputs, actions)
    return compiled(model, actions, inputs, native=kind == "compiled")


def requests(count: int, scorer: Scorer) -> np.ndarray:
    """Customers with some values missing, and some categories that nobody knows."""
    chance = np.random.default_rng(3)
    found = chance.normal(size=(count, len(scorer.inputs))).astype(np.float32)
    for column, feature in enumerate(scorer.inputs):
        if feature.type == "category":
            found[:, column] = chance.integers(-1, len(feature.categories), count)
    found[chance.random(found.shape) < 0.1] = np.nan
    return found


def test_rates_are_one_for_each_request_and_action(scorer):
    """float64 (requests, actions), each within [0, 1]."""
    rates = scorer.score(requests(5, scorer))
    assert rates.shape == (5, ACTIONS)
    assert rates.dtype == np.float64
    assert ((rates >= 0) & (rates <= 1)).all()


def test_no_requests_have_no_rates(scorer):
    """And still one column for each action."""
    assert scorer.score(requests(0, scorer)).shape == (0, ACTIONS)


def test_a_rate_does_not_depend_on_the_batch(scorer):
    """Alone or among 200: bit for bit, since a decision is made again by itself."""
    some = requests(200, scorer)
    whole = scorer.score(some)
    for row in (0, 1, 63, 64, 199):
        np.testing.assert_array_equal(whole[row : row + 1], scorer.score(some[row : row + 1]))


def test_scoring_changes_nothing(scorer):
    """The same requests again have the same rates, and are still what they were."""
    some = requests(70, scorer)
    kept, first = some.copy(), scorer.score(some).copy()
    np.testing.assert_array_equal(first, scorer.score(some))
    np.testing.assert_array_equal(kept, some)


@given(
    trees=st.lists(nodes, min_size=1, max_size=6), customers=st.lists(rows, min_size=1, max_size=5),
    offers=st.lists(rows, min_size=1, max_size=9), link=st.sampled_from(["Sigmoid", "Exp", "Identity", ""]),
)  # fmt: skip
def test_compiled_trees_equal_the_reference(trees, customers, offers, link):
    """Whatever they ask: any comparison, thresholds that values hit, missing values on either side."""
    finite = [[v if np.isfinite(v) else None for v in offer] for offer in offers]  # an attribute that is not finite is missing
    actions, model = some_actions(finite), onnx_of(trees, link=link)
    expected = OnnxScorer(OnnxModel(model, len(INPUTS)), INPUTS, actions).score(np.array(customers, np.float32))
    for native in (True, False):
        found = compiled(model, actions, native=native).score(np.array(customers, np.float32))
        np.testing.assert_allclose(
            found, expected, rtol=1e-5 if link == "Exp" else 0, atol=1e-5 if link in ("Identity", "") else 1e-6
        )


@given(
    trees=st.lists(nodes_over(len(MATCHED)), min_size=1, max_size=6),
    customers=st.lists(
        st.tuples(st.sampled_from(NEAR), st.sampled_from([-1.0, 0.0, 1.0, 2.0, np.nan]), st.sampled_from([-1.0, 0.0, 1.0])),
        min_size=1, max_size=5,
    ),
    offers=st.lists(
        st.tuples(st.sampled_from([None, *KINDS, "d"]), st.sampled_from([None, *REGIONS, "east"])), min_size=1, max_size=9
    ),
)  # fmt: skip
def test_compiled_trees_that_ask_for_matches_equal_the_reference(trees, customers, offers):
    """Whatever is missing on either side, or in the vocabulary of neither or of one; also alone, bit for bit."""
    actions, model = matched_actions(offers), onnx_of(trees, inputs=len(MATCHED))
    some = np.array(customers, np.float32)
    expected = OnnxScorer(OnnxModel(model, len(MATCHED)), MATCHED, actions).score(some)
    for native in (True, False):
        scorer = compiled(model, actions, MATCHED, native=native)
        found = scorer.score(some)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found[-1:], scorer.score(some[-1:]))


@given(
    trees=st.lists(nodes_over(len(SLOTTED)), min_size=1, max_size=6),
    customers=st.lists(st.tuples(st.sampled_from(KNOWN), st.sampled_from([0.0, 1.0, np.nan])), min_size=1, max_size=3),
    offers=st.lists(st.tuples(st.sampled_from([None, *KINDS]), st.just("north")), min_size=1, max_size=5),
    slot=st.integers(1, 4),
)  # fmt: skip
def test_every_action_is_scored_as_if_it_stood_in_one_slot(trees, customers, offers, slot):
    """The first one unless somebody asks for another: what the model says of rows in which all else is as it was."""
    actions, model = matched_actions(offers), onnx_of(trees, inputs=len(SLOTTED))
    some = np.array([(*customer, 1.0) for customer in customers], np.float32)
    inputs = [msgspec.structs.replace(f, default=float(slot)) if f == SLOT else f for f in SLOTTED]
    told = {feature.key: np.repeat(some[:, place], len(actions)) for place, feature in enumerate(SLOTTED[:1])}
    names = {f.key: [f.categories[int(v)] if v >= 0.0 else None for v in some[:, n]] for n, f in enumerate(SLOTTED[1:3], 1)}
    told |= {key: [name for name in column for _ in actions] for key, column in names.items()}
    told |= {f"action.{key}": [a.attributes.get(key) for a in actions] * len(some) for key in ("price", "kind", "place")}
    rows = vectorize(SLOTTED, told | {"slot": [slot] * (len(some) * len(actions))}, len(some) * len(actions))
    expected = OnnxModel(model, len(SLOTTED)).rates(rows).reshape(len(some), len(actions))
    np.testing.assert_allclose(
        OnnxScorer(OnnxModel(model, len(SLOTTED)), inputs, actions).score(some), expected, rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(compiled(model, actions, inputs).score(some), expected, rtol=0, atol=1e-6)
    if slot == 1:
        np.testing.assert_allclose(compiled(model, actions, SLOTTED).score(some), expected, rtol=0, atol=1e-6)


def test_a_bundle_can_be_asked_for_another_slot(bundle):
    """Without the slot among its inputs it says the same of every slot; with it, what trees say of that one."""
    some, actions = bundle.warmup[:5, : len(bundle.scorer(many_actions(3)).inputs)], many_actions(3)
    np.testing.assert_array_equal(bundle.at_slot(3).scorer(actions).score(some), bundle.scorer(actions).score(some))
    tree = Node(1, "BRANCH_LEQ", 1.5, branches=(Node(weight=1.0), Node(weight=-1.0)))
    model, inputs = onnx_of([tree], link="", base=(0.0,), inputs=2), (INPUTS[2], SLOT)
    told = Bundle(msgspec.structs.replace(bundle.manifest, inputs=inputs), OnnxModel(model, 2), "no trees", np.ones((1, 2)))
    rates = [one.scorer(actions).score(np.zeros((1, 0), np.float32)).max() for one in (told, told.at_slot(1), told.at_slot(2))]
    assert rates == [1.0, 1.0, -1.0]
    assert told.at_slot(MOST_SLOTS + 5).manifest.inputs[1].default == MOST_SLOTS


def test_a_match_compares_names_and_no_codes():
    """The attribute's vocabulary is another one; an action of a kind that it lacks is matched all the same."""
    same = Node(
        5, "BRANCH_GT", 0.5, branches=(Node(weight=1.0), Node(5, "BRANCH_LEQ", 0.5, branches=(Node(weight=-1.0), Node())))
    )
    model = onnx_of([same], link="", base=(0.0,), inputs=len(MATCHED))
    actions = matched_actions([("a", None), ("c", None), ("d", None), (None, None)])
    customers = np.array([[0, 0, 0], [0, 2, 0], [0, -1, 0], [0, np.nan, 0]], np.float32)
    expected = [[1, -1, -1, 0], [-1, 1, -1, 0], [-1, -1, -1, 0], [0, 0, 0, 0]]
    for scorer in (OnnxScorer(OnnxModel(model, len(MATCHED)), MATCHED, actions), compiled(model, actions, MATCHED)):
        np.testing.assert_array_equal(scorer.score(customers), expected)


def test_without_a_question_for_a_match_nothing_is_worked_out_twice():
    """Rates are those of the same trees without the declarations, bit for bit."""
    trees = forest(9, 40, 4, inputs=5)
    actions = matched_actions([("a", "north"), ("b", None)])
    declared, plain = (compiled(onnx_of(trees, inputs=n), actions, MATCHED[:n]) for n in (len(MATCHED), 5))
    some = requests(20, plain)
    np.testing.assert_array_equal(declared.score(some), plain.score(some))


def test_a_pair_is_what_its_category_brought_with_the_attribute():
    """Nothing is known of a pair that was not learned, nor where either side is missing or not in the vocabulary."""
    tell = Node(
        7, "BRANCH_GT", 0.5, branches=(Node(weight=1.0), Node(7, "BRANCH_LEQ", 0.5, branches=(Node(weight=-1.0), Node())))
    )
    model = onnx_of([tell], link="", base=(0.0,), inputs=len(MATCHED))
    actions = matched_actions([("a", None), ("b", None), ("d", None), (None, None)])
    customers = np.array([[0, 0, 0], [0, 1, 0], [0, 2, 0], [0, -1, 0], [0, np.nan, 0]], np.float32)
    expected = [[0, 1, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    for scorer in (OnnxScorer(OnnxModel(model, len(MATCHED)), MATCHED, actions), compiled(model, actions, MATCHED)):
        np.testing.assert_array_equal(scorer.score(customers), expected)


@pytest.mark.parametrize(
    ("asked", "worlds"), [([0], 1), ([5], 3), ([5, 6], 9), ([7], 5), ([5, 7], 5), ([5, 6, 7], 15)]
)  # fmt: skip
def test_more_worlds_than_can_be_compiled_are_told(asked, worlds):
    """Three for a match; with pairs one for each category, another one, and none. What no tree asks for does not count."""
    trees = read_trees(
        onnx_of([Node(n, "BRANCH_LEQ", 0.5, branches=(Node(), Node(weight=1.0))) for n in asked], inputs=len(MATCHED))
    )
    assert trees is not None
    assert too_many_worlds(trees, MATCHED, MOST_ROWS // worlds) is None
    assert f"at most {MOST_ROWS:,} actions in all of the worlds" in (
        too_many_worlds(trees, MATCHED, MOST_ROWS // worlds + 1) or ""
    )


def test_a_large_ensemble_equals_the_reference():
    """300 trees of 64 leaves, 150 actions, so that groups of trees are compiled together."""
    attributes = np.random.default_rng(4).integers(0, 12, size=(150, 2)).astype(float).tolist()
    actions, model = some_actions(attributes), onnx_of(forest(5, 300, 6))
    scorer = compiled(model, actions)
    some = requests(80, scorer)
    np.testing.assert_allclose(
        scorer.score(some), OnnxScorer(OnnxModel(model, len(INPUTS)), INPUTS, actions).score(some), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("kinds", [5, 1])  # of actions: of one kind only, all share all patterns
@pytest.mark.parametrize("depth", [3, 4, 5, 6])
def test_c_adds_up_as_numpy_does(depth, kinds):
    """Bit for bit, in words of 8 to 64 leaves and batches of any size: a decision says the same with and without what is in C."""
    model, actions = onnx_of(forest(depth, 150, depth)), some_actions([[n % kinds, n % kinds] for n in range(40)])
    in_c, in_numpy = (compiled(model, actions, native=native) for native in (True, False))
    for count in (1, 2, 4, 8, AT_ONCE - 1, AT_ONCE, 3 * AT_ONCE + 5):
        some = requests(count, in_c)
        np.testing.assert_array_equal(in_c.score(some), in_numpy.score(some))


def test_what_is_in_c_was_built_where_there_is_a_compiler():
    """Else nobody would notice that scoring takes three times as long."""
    assert IS_BUILT or not (shutil.which("cc") or shutil.which("gcc"))


@pytest.mark.parametrize("kind", ["compiled", "numpy"])
def test_another_type_is_converted_and_another_width_is_refused(kind):
    """Nothing is read beyond a request."""
    scorer = compiled(onnx_of(forest(3, 30, 4)), some_actions([[1, 2]] * 3), native=kind == "compiled")
    some = requests(3, scorer)
    np.testing.assert_array_equal(scorer.score(some.astype(np.float64)), scorer.score(some))
    with pytest.raises((IndexError, ValueError)):
        scorer.score(some[:, :1])


def test_places_outside_are_refused_when_trees_are_taken_in():
    """C is not asked to look with each request."""
    ensemble = read_trees(onnx_of(forest(3, 30, 4)))
    assert ensemble is not None
    trees = CompiledScorer(ensemble, INPUTS, some_actions([[1, 2], [2, 3]]), native=False)._leaves._trees
    for wrong in ({"tree": trees.tree + 30}, {"alike": trees.alike - 100}, {"steps": tuple(s + 10_000 for s in trees.steps)}):
        with pytest.raises(ValueError, match="Expected places"):
            NativeLeaves(trees._replace(**wrong))


def test_a_library_of_other_sources_is_left_alone():
    """And a warning says what to do."""
    with pytest.warns(RuntimeWarning, match="Expected `json` with interface 1, found 0: install again"):
        assert built("json", 1) is None


@pytest.mark.skipif(not IS_BUILT, reason="without a compiler there is nothing to call")
@pytest.mark.parametrize(
    "change", [{"rows": 17}, {"rows": 0}, {"trees": 3}, {"word": 3}, {"starts": 1}, {"values": 1}, {"constant": 3}, {"bits": 5}]
)
def test_sizes_that_do_not_fit_are_refused(change):
    """What is in C writes nowhere else than it was told."""
    sizes = {"rows": 2, "trees": 2, "word": 1}
    arrays = {
        "requests": np.zeros((2, 1), np.float32), "columns": np.zeros(1, np.int32), "starts": np.array([0, 1], np.int32),
        "edges": np.array([0.0], np.float32), "table": np.full((2, 2), 255, np.uint8), "tree": np.zeros(2, np.int32),
        "bits": np.full(2, 255, np.uint8), "leaves": np.zeros((2, 2)), "alike": np.zeros(1, np.int32), "values": np.zeros((2, 2)),
        "constant": np.zeros(2),
    }  # fmt: skip
    _leaves.values(*sizes.values(), *arrays.values())
    sizes |= {name: size for name, size in change.items() if name in sizes}
    arrays |= {name: np.zeros(size, arrays[name].dtype) for name, size in change.items() if name in arrays}
    with pytest.raises(ValueError, match="Expected"):
        _leaves.values(*sizes.values(), *arrays.values())


def test_trees_that_ask_nothing_of_customers_are_compiled():
    """Every customer has the same rates then."""
    model = onnx_of([Node(2, "BRANCH_LEQ", 1.0, branches=(Node(weight=1.0), Node(weight=-1.0)))])
    scorer = compiled(model, some_actions([[0.0, 0.0], [5.0, 0.0]]))
    np.testing.assert_allclose(scorer.score(requests(2, scorer)), [[1 / (1 + np.exp(-1.25)), 1 / (1 + np.exp(0.75))]] * 2)


@pytest.mark.parametrize(
    "model",
    [
        b"", b"\xff\xff", b"no model at all",
        onnx_of([Node(weight=1.0)], n_targets=2),
        onnx_of([Node(weight=1.0)], aggregate_function="AVERAGE"),
        onnx_of([Node(weight=1.0)], post_transform="PROBIT", link=""),
        onnx_of([Node(weight=1.0)], post_transform="LOGISTIC", link=""),  # which ONNX Runtime ignores for one target
        onnx_of([Node(weight=1.0)], link="Tanh"),
        onnx_of([Node(0, "BRANCH_LEQ", 1.0, branches=(Node(), Node()))], nodes_truenodeids=[0, 0, 0]),  # leads back
        onnx_of([Node(0, "BRANCH_LEQ", 1.0, branches=(Node(), Node()))], nodes_truenodeids=[9, 0, 0]),  # leads nowhere
        onnx_of([Node(0, "BRANCH_LEQ", 1.0, branches=(Node(), Node()))], nodes_truenodeids=[1]),  # columns of two lengths
    ],
)  # fmt: skip
def test_any_other_model_is_left_to_the_reference(model):
    """What is not an ensemble of trees with one of three functions after it is not read as if it were."""
    assert read_trees(model) is None


def test_a_model_cut_anywhere_is_no_ensemble_or_the_same():
    """Reading bytes that were cut raises nothing."""
    model = onnx_of(forest(6, 2, 2))
    whole = read_trees(model)
    assert isinstance(whole, Ensemble)
    for end in range(len(model)):
        assert read_trees(model[:end]) in (None, whole)


def test_too_many_leaves_are_told():
    """A tree is a 64-bit number."""
    trees = read_trees(onnx_of(forest(7, 1, 7)))
    assert trees is not None
    assert f"1 to {MOST_LEAVES} leaves, found one of 128" in (unfit(trees, len(INPUTS)) or "")


def test_a_table_larger_than_a_worker_can_hold_is_told():
    """Thresholds times trees."""
    trees = read_trees(onnx_of(forest(8, 400, 6)))
    assert trees is not None
    assert "Expected a table of at most" in (unfit(trees, len(INPUTS)) or "")


@pytest.fixture(scope="module")
def bundle(trained_home) -> Bundle:
    """The one that the shop was learned from."""
    registry = Registry(trained_home / "registry")
    return load_bundle(registry.bundle_folder(registry.bundles()[0]), home_contract(trained_home))


def many_actions(count: int) -> list[Action]:
    return some_actions([[float(n), 1.0] for n in range(count)])


def test_trees_are_compiled_where_that_is_faster(bundle):
    """By size alone and not by a stopwatch: another worker, and a replay of tomorrow, must choose the same scorer."""
    assert isinstance(bundle.scorer(many_actions(1)), OnnxScorer)
    assert isinstance(bundle.scorer(many_actions(COMPILED_FROM)), CompiledScorer)


def test_the_same_actions_share_a_scorer(bundle):
    """Arms of an experiment mostly differ in something else."""
    assert bundle.scorer(many_actions(300)) is bundle.scorer(many_actions(300))
    assert bundle.scorer(many_actions(300)) is not bundle.scorer(many_actions(301))


def test_what_does_not_equal_the_reference_does_not_serve(bundle, caplog):
    """Here the base of the sum is off by a hair: the reference serves, and a warning says why."""
    off = bundle.trees._replace(base=bundle.trees.base + 1e-4)
    scorer = Bundle(bundle.manifest, bundle.model, off, bundle.warmup).scorer(many_actions(COMPILED_FROM))
    assert isinstance(scorer, OnnxScorer)
    assert "scored row by row: Expected rates within 1e-06 of ONNX Runtime's, found" in caplog.text


def test_a_model_that_cannot_be_compiled_serves_row_by_row(bundle, caplog):
    """And a warning says why."""
    scorer = Bundle(bundle.manifest, bundle.model, "it is a net", bundle.warmup).scorer(many_actions(COMPILED_FROM))
    assert isinstance(scorer, OnnxScorer)
    assert "scored row by row: it is a net" in caplog.text
