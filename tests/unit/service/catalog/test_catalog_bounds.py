"""What is refused so that a catalog does what it says once it serves; one that was published before goes on."""

import pytest
import yaml

from service.catalog.validate import load_catalog, parse_catalog
from service.errors import CatalogInvalid

WEIGHTS = """
weights: [{name: young, when: "customer.age < 30", factor: 100, where: {actions: gold_card}}]
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
