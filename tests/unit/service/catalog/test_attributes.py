"""Attributes of actions: what they are, and what they are compared with."""

import pytest

from features.contract import Feature
from service.catalog.validate import parse_catalog
from service.errors import CatalogInvalid

PLAIN = "attributes: {price: number, family: category}"


def declared(good: str, family: str) -> str:
    return good.replace(PLAIN, f"attributes: {{price: number, family: {family}}}")


@pytest.mark.parametrize("key", ["customer.region", "context.channel"])
def test_an_attribute_that_matches_a_category_is_two_more_inputs(good, contract, key):
    """A match, and pairs of which nothing is known yet: last, numbers, and they say with what; the attribute stays as it was."""
    catalog = parse_catalog(declared(good, f"{{type: category, matches: {key}}}"), contract)[1]
    assert catalog.attributes[:-2] == parse_catalog(good, contract)[1].attributes
    assert catalog.attributes[-2:] == tuple(Feature("family", "number", origin, matches=key) for origin in ("match", "pair"))
    assert [f.key for f in catalog.attributes[-2:]] == ["match.family", "pair.family"]


def test_a_long_form_without_a_match_is_the_short_form(good, contract):
    """No further input."""
    long, short = (parse_catalog(text, contract)[1] for text in (declared(good, "{type: category}"), good))
    assert long.attributes == short.attributes


@pytest.mark.parametrize(
    ("family", "problem"),
    [
        ("{type: category, matches: customer.regoin}", "mean `customer.region`?), got `customer.regoin` - at `attribut"),
        ("{type: category, matches: action.price}", "Expected a category of the customer or the context"),
        ("{type: category, matches: customer.age}", "(did you mean `customer.region`?), got the number `customer.age` - at"),
        ("{type: number, matches: customer.region}", "that matches something, got `number` - at `attributes.family.type`"),
        ("{matches: customer.region}", "Expected key `type`, got none - at `attributes.family`"),
        ("{type: category, match: customer.region}", "Expected a known key (did you mean `matches`?), got `match`"),
        ("{type: text}", "Expected one of `number`, `category`, got `text` - at `attributes.family.type`"),
        ("{type: category, matches: [customer.region]}", "Expected a category of the customer or the context"),
    ],
)  # fmt: skip
def test_a_match_that_cannot_be_made_is_refused(good, contract, family, problem):
    """Expected, found, where."""
    with pytest.raises(CatalogInvalid) as caught:
        parse_catalog(declared(good, family), contract, "cat.yaml")
    assert any(problem in told and "line 3" in told for told in caught.value.problems), caught.value.problems
