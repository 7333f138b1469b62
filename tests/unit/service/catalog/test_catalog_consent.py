"""What a catalog says of consent: rules that nobody has to write, and that nobody can forget."""

import pytest

from service.catalog.policies import Selector
from service.catalog.validate import parse_catalog
from service.errors import CatalogInvalid

CATALOG = """
catalog: 1
consent:
  marketing: {needed_for: {kinds: [offer]}}
  email: {unless_said: given, needed_for: [{channels: [email]}, {placements: app_card}]}
  profiling: {unless_said: given, needed_for: profile}
issues: [{id: sales}]
groups: [{id: cards, issue: sales, eligibility: {chosen: "not consent.profiling or customer.age >= 18"}}]
actions:
  - {id: gold, group: cards, kind: offer, value: 1, treatments: [{id: t, placements: [hero, mail, app_card]}]}
  - {id: help, group: cards, kind: service, value: 1, treatments: [{id: t, placements: [hero, mail]}]}
placements:
  - {id: hero, channel: web, fallback: {action: welcome, kind: content}}
  - {id: mail, channel: email, fallback: {action: none, kind: nothing}}
  - {id: app_card, channel: app, fallback: {action: none, kind: nothing}}
"""
EVERYTHING = {"consent_marketing": 1.0, "consent_email": 1.0, "consent_profiling": 1.0, "age": 40.0}


@pytest.fixture
def catalog(contract):
    return parse_catalog(CATALOG, contract)[1]


@pytest.fixture
def gold(catalog):
    return next(action for action in catalog.actions if action.id == "gold")


def test_purposes_say_what_holds_unless_a_customer_said_and_what_they_are_needed_for(catalog):
    """Denied where nothing is written; `profile` is for knowing the customer at all."""
    found = {p.name: (p.given, p.profile, p.needed_for) for p in catalog.purposes}
    assert found == {
        "marketing": (False, False, (Selector(kinds=("offer",)),)),
        "email": (True, False, (Selector(channels=("email",)), Selector(placements=("app_card",)))),
        "profiling": (True, True, ()),
    }


@pytest.mark.parametrize(
    ("changed", "passes"), [({}, True), ({"consent_marketing": 0.0}, False), ({"consent_marketing": None}, False)]
)
def test_an_action_that_needs_consent_has_the_rule_first(gold, changed, passes):
    """Its name is the purpose's; what is not known is denied."""
    assert [(rule.layer, rule.name) for rule in gold.rules] == [("eligibility", "marketing_consent"), ("eligibility", "chosen")]
    assert gold.rules[0].passes(EVERYTHING | changed, {}) is passes


def test_a_purpose_of_a_place_is_needed_there_alone(catalog, gold):
    """The treatment comes in parts: on the web without the rule, by mail and in the app with it."""
    assert [(t.id, t.placements, [rule.name for rule in t.rules]) for t in gold.treatments] == [
        ("t", ("hero",), []),
        ("t", ("mail", "app_card"), ["email_consent"]),
    ]
    service = next(action for action in catalog.actions if action.id == "help")
    assert [rule.name for rule in service.rules] == ["chosen"]
    assert [t.placements for t in service.treatments] == [("hero",), ("mail",)]


def test_rules_may_name_a_consent(gold):
    """`consent.profiling` is a condition, as a segment is."""
    rule = gold.rules[1]
    assert rule.passes({"consent_profiling": 0.0}, {})
    assert not rule.passes({"consent_profiling": 1.0, "age": 17.0}, {})


@pytest.mark.parametrize(
    ("part", "spoiled", "expected"),
    [
        ("marketing: {needed_for: {kinds: [offer]}}", "marketing: {}", "Expected key `needed_for`, got none"),
        ("kinds: [offer]}}", "kinds: [gift]}}", "Expected a known kind"),
        ("kinds: [offer]}}", "colours: [red]}}", "Expected a known key"),
        ("needed_for: {kinds: [offer]}", "needed_for: everything", "Expected `profile`, or what it is needed for"),
        ("needed_for: {kinds: [offer]}", "needed_for: []", "Expected at least one"),
        ("needed_for: {kinds: [offer]}", "needed_for: profile", "one purpose at most that is needed for `profile`"),
        ("unless_said: given, needed_for: profile", "unless_said: maybe, needed_for: profile", "one of `denied`, `given`"),
        ("  marketing:", "  Marketing-1:", "Expected a purpose named with a-z, 0-9 and `_`"),
        ("fallback: {action: none, kind: nothing}}\n  - {id: app", "fallback: {action: tip, kind: content}}\n  - {id: app",
         "got one that needs `email` - of placement `mail`"),
        ("fallback: {action: welcome, kind: content}", "fallback: {action: gold, kind: offer}",
         "got one that needs `marketing` - of placement `hero`"),
        ("not consent.profiling", "not consent.tracking", "Expected a known name"),
        ("not consent.profiling", "consent.profiling == 1", "a segment or a consent is a condition of its own"),
    ],
)  # fmt: skip
def test_mistakes_are_told(contract, part, spoiled, expected):
    """Expected, found, where; a fallback that would be shown without consent is one of them."""
    assert part in CATALOG
    with pytest.raises(CatalogInvalid, match=expected.replace("[", r"\[")):
        parse_catalog(CATALOG.replace(part, spoiled, 1), contract)


def test_a_purpose_and_a_feature_have_different_names(contract):
    """Both would be `customer.consent_age`."""
    text = CATALOG.replace("marketing:", "given:", 1)
    taken = type(contract)((*contract.features, type(contract.features[0])("consent_given", "number", "profile")))
    with pytest.raises(CatalogInvalid, match="Expected a purpose that no feature is named after, got `consent_given`"):
        parse_catalog(text, taken)
