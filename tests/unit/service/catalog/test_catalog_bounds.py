"""What is refused so that a catalog does what it says once it serves; one that was published before goes on."""

import pytest
import yaml

from service.catalog.validate import load_catalog, parse_catalog
from service.errors import CatalogInvalid

WEIGHTS = """
weights: [{name: young, when: "customer.age < 30", factor: 100, where: {actions: gold_card}}]
"""


CAPS = """
contact:
  caps: [{{name: few, at_most: 1, per: action, window: 1d}}, {{name: many, at_most: {at_most}, per: everything, window: 7d}}]
"""


def problems(text: str, contract) -> list[str]:
    with pytest.raises(CatalogInvalid) as caught:
        parse_catalog(text, contract, "cat.yaml")
    return list(caught.value.problems)


def goes_on(text: str, contract) -> bool:
    """Whether it serves where it was published before."""
    document = yaml.safe_load(text)
    return load_catalog(document, contract).actions != ()


def test_a_value_must_stay_a_number_once_levers_and_weights_are_on_it(good, contract):
    """Levers of its own, its group and its issue make 1.5; a weight counts where it speaks of the action."""
    assert parse_catalog(good.replace("value: 120.0", "value: 1.0e+308"), contract)
    text = good.replace("value: 120.0", "value: 1.5e+308")
    assert problems(text, contract)[0].endswith(
        "Expected a value of at most 1.2e+308, on which levers (1.5) and weights (1) are put, got `1.5e+308` "
        "- at `actions[0].value`"
    )
    assert goes_on(text, contract)
    text = good.replace("value: 120.0", "value: 1.0e+307") + WEIGHTS
    assert "a value of at most 1.2e+306" in problems(text, contract)[0]
    assert parse_catalog(text.replace("gold_card}}", "Mens E-Mail}}"), contract)


@pytest.mark.parametrize(
    ("names", "alike", "where"),
    [
        (("home_hero", "mail_top"), ("page_172", "page_330"), "placements[1].id"),
        (("gold_card", "Mens E-Mail"), ("offer_74944", "offer_79905"), "actions[1].id"),
    ],
)
def test_ids_that_contacts_do_not_tell_apart_are_refused(good, contract, names, alike, where):
    """16 bits are kept of a placement, and 32 of an action: a cap of one would count the other."""
    text = good.replace(names[0], alike[0])
    assert parse_catalog(text, contract)
    text = text.replace(names[1], alike[1])
    [problem] = problems(text, contract)
    assert f"Expected an id that contacts tell from `{alike[0]}` by its hash: change one of the two" in problem
    assert problem.endswith(f"got `{alike[1]}` - at `{where}`")
    assert goes_on(text, contract)


def test_a_cap_must_be_one_that_can_be_reached(good, contract):
    """No more contacts of a customer are kept than 384, whoever they are with."""
    assert parse_catalog(good + CAPS.format(at_most=384), contract)
    text = good + CAPS.format(at_most=385)
    [problem] = problems(text, contract)
    assert problem.endswith(
        "Expected a number of at most 384, which is how many contacts of a customer are kept, got `385` "
        "- at `contact.caps[1].at_most`"
    )
    assert goes_on(text, contract)
