"""The feature document: what it declares, what it refuses, and when its fingerprint changes."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.contract import Contract, ContractError, Feature, contract_document, parse_contract, read_contract, seconds

TWO = """
features:
  - {name: age, type: number, origin: profile, max_age: 400d, default: 40}
  - {name: region, type: category, origin: activity, max_age: 12h, categories: [north, south]}
  - {name: device, type: category, origin: context, categories: [mobile]}
  - {name: hour, type: number, origin: request_time}
"""
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
texts = st.text(max_size=8)


@st.composite
def features(draw: st.DrawFn) -> Feature:
    origin = draw(st.sampled_from(["profile", "activity", "value", "attitude", "context", "request_time"]))
    categories = tuple(draw(st.lists(texts, max_size=4, unique=True)))
    default = st.sampled_from(categories) if categories else st.floats(allow_nan=False, allow_infinity=False)
    kept = origin not in ("context", "request_time")
    age = draw(st.integers(1, 900)) * draw(st.sampled_from([86_400.0, 3600.0, 0.25])) if kept else None
    kind = "category" if categories else "number"
    chosen = draw(st.none() | default)
    return Feature(name=draw(names), type=kind, origin=origin, default=chosen, max_age=age, categories=categories)


def test_a_document_declares_features_in_its_own_order():
    """Order is part of the contract: it is the order of a model's inputs."""
    contract = parse_contract(TWO)
    assert [f.key for f in contract.features] == ["customer.age", "customer.region", "context.device", "context.hour"]
    assert contract.find("customer.region") == Feature(
        name="region", type="category", origin="activity", max_age=43_200.0, categories=("north", "south")
    )
    assert contract.find("customer.device") is None


def test_customer_features_come_view_by_view():
    """Redis holds views; a view's features stand together whatever the document's order."""
    contract = Contract(
        tuple(Feature(name=n, type="number", origin=o) for n, o in [("b", "value"), ("a", "profile"), ("c", "value")])
    )
    assert [f.name for f in contract.customer] == ["a", "b", "c"]


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("30 min", 1800), ("1.5h", 5400), ("7d", 604_800)])
def test_a_duration_is_a_number_with_a_unit(text, expected):
    """People write ages with a unit; the rest of the house counts seconds."""
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["7", "d7", "7 weeks", "-1d", ""])
def test_a_duration_without_a_known_unit_is_refused(text):
    """A guess about a unit would silently age every value."""
    with pytest.raises(ContractError, match="Expected a duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{name: 1st, type: number, origin: context}", r"Expected a name of letters.*`1st` - at `features.yaml: features\[0\]"),
        ("{name: a, type: category, origin: context}", "Expected `categories` for a category, got none"),
        ("{name: a, type: number, origin: context, default: x}", "Expected `number`, got `x`"),
        ("{name: a, type: category, origin: context, categories: [x], default: y}", "Expected one of the categories, got `y`"),
        ("{name: a, type: category, origin: context, categories: [x, x]}", "Expected different categories"),
        ("{name: a, type: number, origin: profile}", "Expected `max_age` for a customer feature"),
        ("{name: a, type: number, origin: profile, max_age: 0s}", "Expected a `max_age` longer than 0 s, got `0s`"),
        ("{name: a, type: number, origin: moon}", "Invalid enum value 'moon'"),
        ("{name: a, type: number, origin: context, colour: red}", "unknown field `colour`"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_feature_is_refused_with_what_was_expected(line, problem):
    """Expected, found, where: for every mistake a document can hold."""
    with pytest.raises(ContractError, match=problem):
        parse_contract(f"features: [{line}]")


def test_a_document_that_is_no_yaml_or_holds_a_name_twice_is_refused():
    """Two features of one scope with one name could not be told apart."""
    with pytest.raises(ContractError, match=r"features\.yaml"):
        parse_contract("features: [")
    twice = "{name: a, type: number, origin: context}"
    with pytest.raises(ContractError, match=r"`context\.a` twice"):
        parse_contract(f"features: [{twice}, {twice}]")


def test_names_that_differ_in_case_alone_are_refused_within_a_scope():
    """They are one column to DuckDB, which reads the log and the offline tables."""
    small, large = (f"{{name: {name}, type: number, origin: context}}" for name in ("age", "Age"))
    with pytest.raises(ContractError, match=r"differ in more than their case, got `context\.age` and `context\.Age`"):
        parse_contract(f"features: [{small}, {large}]")
    customers = "{name: Age, type: number, origin: profile, max_age: 1d}"
    assert len(parse_contract(f"features: [{small}, {customers}]").features) == 2


def test_an_absent_document_is_an_error_that_names_the_path(tmp_path: Path):
    """Nobody should have to guess which file was looked for."""
    with pytest.raises(ContractError, match=r"nowhere\.yaml"):
        read_contract(tmp_path / "nowhere.yaml")


@given(st.lists(features(), max_size=6, unique_by=lambda f: f.key))
def test_a_contract_written_as_a_document_reads_back_the_same(declared):
    """Import writes the contract of a home; nothing may be lost on the way."""
    contract = Contract(tuple(declared))
    assert parse_contract(contract_document(contract)) == contract


@pytest.mark.parametrize(
    "change",
    [{"name": "years"}, {"default": 41.0}, {"max_age": 1.0}, {"origin": "value"}, {"type": "category", "categories": ("x",)}],
)
def test_the_fingerprint_changes_with_anything_that_changes_a_models_input(change):
    """A bundle serves only the contract it was trained on."""
    contract = parse_contract(TWO)
    changed = msgspec.structs.replace(contract.features[0], **change)
    assert Contract((changed, *contract.features[1:])).fingerprint != contract.fingerprint
    assert Contract(contract.features[::-1]).fingerprint != contract.fingerprint
    assert parse_contract(TWO).fingerprint == contract.fingerprint
