"""Drafted catalogs: good as they stand, and obviously a draft."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.contract import Contract
from service.catalog.validate import parse_catalog
from training.drafting import EPSILON, draft_catalog

NO_FEATURES = Contract(())
ids = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=128)
numbers = st.floats(allow_nan=False, allow_infinity=False)


def drafted(actions, placements=("home",), types=(), attributes=()):
    return parse_catalog(draft_catalog(actions, placements, dict(types), dict(attributes)), NO_FEATURES)[1]


def test_a_draft_offers_every_action_at_every_placement_and_explores_a_little():
    """It serves at once; what actions are worth and who may see them is for a person to say."""
    catalog = drafted(["gold", "silver"], ["home", "mail"])
    assert [(a.id, a.group, a.value, a.rules) for a in catalog.actions] == [
        ("gold", "imported", 1.0, ()),
        ("silver", "imported", 1.0, ()),
    ]
    assert [[(t.id, t.placements, t.content) for t in a.treatments] for a in catalog.actions] == [
        [("gold", ("home", "mail"), {"title": "gold"})],
        [("silver", ("home", "mail"), {"title": "silver"})],
    ]
    assert [(p.id, p.channel, p.slots, p.explore.epsilon) for p in catalog.placements.values()] == [
        ("home", "home", 1, EPSILON),
        ("mail", "mail", 1, EPSILON),
    ]


@pytest.mark.parametrize("name", ["none", "None", "No E-Mail", "nothing at all", "control", "Control group"])
def test_an_action_named_like_leaving_somebody_alone_is_drafted_as_nothing(name):
    """People call it by few words; the review corrects the rest."""
    assert [action.kind for action in drafted([name]).actions] == ["nothing"]


@pytest.mark.parametrize("name", ["Mens E-Mail", "November sale", "innocent", "offer none"])
def test_any_other_action_is_drafted_as_an_offer(name):
    """A word inside a name says nothing."""
    assert [action.kind for action in drafted([name]).actions] == ["offer"]


def test_an_action_has_the_attributes_that_are_known_of_it_and_no_others():
    """Attributes are declared once, for all actions; what nobody knows is missing."""
    types = {"price": "number", "family": "category"}
    catalog = drafted(["gold", "silver", "other"], types=types, attributes={"gold": {"price": 9.0, "family": "7"}, "silver": {}})
    assert [dict(action.attributes) for action in catalog.actions] == [{"price": 9.0, "family": "7"}, {}, {}]
    assert [(f.key, f.type) for f in catalog.attributes[1:]] == [("action.price", "number"), ("action.family", "category")]


def test_a_draft_says_what_to_do_with_it():
    """Whoever opens the file finds the next two commands."""
    text = draft_catalog(["gold"], ["home"], {}, {})
    assert [line for line in text.splitlines() if line.startswith("#")][1:] == [
        "#   nextbest catalog check FILE",
        "#   nextbest catalog publish FILE",
    ]


@settings(max_examples=25)
@given(st.lists(ids, min_size=1, max_size=4, unique=True), st.lists(ids, min_size=1, max_size=2, unique=True), numbers)
def test_a_draft_is_a_catalog_whatever_its_actions_and_placements_are_called(actions, placements, price):
    """Names that mean something to YAML come back as the text they are."""
    types = {"price": "number", "family": "category"}
    catalog = drafted(actions, placements, types, {actions[0]: {"price": price, "family": actions[-1]}})
    assert [action.id for action in catalog.actions] == actions
    assert list(catalog.placements) == placements
    assert dict(catalog.actions[0].attributes) == {"price": price, "family": actions[-1]}


@pytest.mark.parametrize(
    "name", ["no", "null", "~", "1_000", "1:30", "0x1F", "2026-01-31", "=", "<<", "a: b #c", "a\u2028b", "\ufeff"]
)
def test_a_name_that_yaml_would_read_as_something_else_is_quoted(name):
    """Truths, numbers, dates, and line breaks that only YAML knows."""
    assert [action.id for action in drafted([name]).actions] == [name]
