"""Why a rule failed, and the smallest change that would have made it pass: found, and checked by applying it."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from features.contract import parse_contract
from service.catalog.compiling import Values, compile_rule
from service.catalog.expressions import Name, parse_rule
from service.decision.conditions import failing_parts
from service.decision.flips import smallest_flip

CONTRACT = parse_contract("""
features:
  - {name: age, type: number, origin: profile, max_age: 1d}
  - {name: spend, type: number, origin: value, max_age: 1d}
  - {name: visits, type: number, origin: activity, max_age: 1d, default: 2}
  - {name: region, type: category, origin: profile, max_age: 1d, categories: [north, south, east]}
  - {name: channel, type: category, origin: context, categories: [web, app]}
""")
NAMES = {f.key: Name("number" if f.type == "number" else "text", f.categories) for f in CONTRACT.features}
NAMES |= {"action.price": Name("number"), "context.hour": Name("number")}


def rule(source: str, price: float = 50.0):
    types, categories = {n: t.type for n, t in NAMES.items()}, {n: t.categories for n, t in NAMES.items() if t.categories}
    values = Values(types, {"customer.visits": 2.0}, {"action.price": price}, categories)
    return compile_rule("rule", source, parse_rule(source, NAMES), values)


@pytest.mark.parametrize(
    ("source", "customer", "context", "expected"),
    [
        ("customer.age >= 18", {"age": 12.0}, {}, ["customer.age = 18, was 12"]),
        ("customer.age > 18", {"age": 12.0}, {}, ["customer.age = 19, was 12"]),
        ("customer.age < 18", {"age": 30.0}, {}, ["customer.age = 17, was 30"]),
        ("customer.age >= 18", {}, {}, ["customer.age = 18, was missing"]),
        ("18 <= customer.age < 30", {"age": 45.0}, {}, ["customer.age = 29, was 45"]),
        ("customer.region == 'north'", {"region": "south"}, {}, ["customer.region = north, was south"]),
        ("customer.region in ('north', 'east')", {"region": "south"}, {}, ["customer.region = north, was south"]),
        ("customer.region not in ('north', 'east')", {"region": "north"}, {}, ["customer.region = south, was north"]),
        ("not (customer.visits > 0)", {"visits": 3.0}, {}, ["customer.visits = 0, was 3"]),
        ("customer.visits > 5", {}, {}, ["customer.visits = 6, was missing"]),
        ("customer.age >= 18 or customer.spend > 1000", {"age": 17.0, "spend": 1.0}, {}, ["customer.age = 18, was 17"]),
        (
            "customer.age >= 18 and context.channel == 'app'",
            {"age": 17.0},
            {"channel": "web"},
            ["customer.age = 18, was 17", "context.channel = app, was web"],
        ),
        ("action.price < customer.spend / 10", {"spend": 100.0}, {}, ["customer.spend = 501, was 100"]),
        ("abs(customer.age - 40) < 5", {"age": 20.0}, {}, ["customer.age = 36, was 20"]),
        ("customer.age * customer.spend > 100", {}, {}, None),
        ("action.price < 10", {"age": 1.0}, {}, "never"),
        ("False", {}, {}, "never"),
        ("context.hour >= 9", {}, {"hour": 3.0}, ["context.hour = 9, was 3"]),
    ],
)
def test_the_smallest_change_is_the_nearest_value_that_makes_the_rule_pass(source, customer, context, expected):
    """By hand: literals, categories, defaults, missing values, arithmetic; and what no value can change."""
    checked = rule(source)
    found = smallest_flip([checked], customer, context)
    if expected == "never":
        assert found is None
        return
    changed = {flip.name: flip.to for flip in found}
    assert checked.passes(
        {**customer, **{n.removeprefix("customer."): v for n, v in changed.items() if n.startswith("customer.")}},
        {**context, **{n.removeprefix("context."): v for n, v in changed.items() if n.startswith("context.")}},
    )
    if expected is not None:
        assert [flip.text for flip in found] == expected


@pytest.mark.parametrize(
    ("source", "customer", "expected"),
    [
        ("customer.age >= 18", {"age": 12.0}, ["customer.age >= 18, was 12"]),
        ("customer.age >= 18", {}, ["customer.age >= 18, was missing"]),
        ("not (customer.visits > 0)", {"visits": 3.0}, ["customer.visits <= 0, was 3"]),
        ("customer.age >= 18 and customer.spend > 5", {"age": 12.0, "spend": 9.0}, ["customer.age >= 18, was 12"]),
        (
            "customer.age >= 18 or customer.spend > 5",
            {"age": 12.0, "spend": 1.0},
            ["customer.age >= 18, was 12", "customer.spend > 5, was 1"],
        ),
        (
            "action.price < customer.spend / 10",
            {"spend": 100.0},
            ["action.price < customer.spend / 10, where customer.spend = 100"],
        ),
        ("customer.age >= 18", {"age": 20.0}, []),
    ],
)
def test_the_parts_that_failed_are_told_with_what_was_found(source, customer, expected):
    """Only those that are at fault, each with its value."""
    assert failing_parts(rule(source), customer, {}) == expected


def test_three_values_far_from_what_they_were_are_found_together():
    """A missing region, a missing age, and a missing spend that only 51 and more would do for."""
    source = (
        "customer.region == 'north' and (customer.region == 'south' or (action.price < customer.spend / 1 and customer.age < 1))"
    )
    found = smallest_flip([rule(source)], {}, {})
    assert rule(source).passes({flip.name.removeprefix("customer."): flip.to for flip in found}, {})


atoms = st.one_of(
    st.builds(
        lambda n, o, v: f"customer.{n} {o} {v}",
        st.sampled_from(["age", "spend", "visits"]),
        st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
        st.integers(-50, 2000),
    ),
    st.builds(
        lambda o, v: f"customer.region {o} '{v}'", st.sampled_from(["==", "!="]), st.sampled_from(["north", "south", "east"])
    ),
    st.builds(lambda v: f"action.price < customer.spend / {v}", st.integers(1, 20)),
    st.builds(lambda a, b: f"{a} <= customer.age < {a + b}", st.integers(0, 90), st.integers(1, 30)),
)
conditions = st.recursive(
    atoms,
    lambda inner: (
        st.builds("not ({})".format, inner) | st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner)
    ),
    max_leaves=4,
)
customers = st.fixed_dictionaries(
    {},
    optional={
        "age": st.floats(0, 100),
        "spend": st.floats(0, 5000),
        "visits": st.floats(0, 50),
        "region": st.sampled_from(["north", "south"]),
    },
)


@given(conditions, customers)
@settings(max_examples=300)
def test_a_change_that_is_found_always_makes_the_rule_pass_and_is_rarely_not_found(source, customer):
    """Applied, it passes. Where nothing is found, no combination of plain values makes it pass either."""
    checked = rule(source)
    assume(not checked.passes(customer, {}))
    found = smallest_flip([checked], customer, {})
    if found is None:
        tries = [
            {**customer, "age": a, "spend": s, "visits": v, "region": r}
            for a in (0.0, 18.0, 50.0, 95.0)
            for s in (0.0, 100.0, 4000.0)
            for v in (-60.0, 0.0, 2001.0)
            for r in ("north", "east")
        ]
        assert not any(checked.passes(attempt, {}) for attempt in tries)
        return
    changed = {**customer, **{flip.name.removeprefix("customer."): flip.to for flip in found}}
    assert checked.passes(changed, {})
    assert failing_parts(checked, customer, {})
    assert failing_parts(checked, changed, {}) == []
