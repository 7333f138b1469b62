"""What each input adds to a predicted rate adds up to that rate."""

import math

import pytest

from service.bundles.loading import read_manifest
from service.registry import Registry
from training.batch import serving_engine
from training.contributions import BASE, contributions
from training.decision_log import read_decisions


@pytest.fixture(scope="module")
def told(busy_home):
    """Every candidate of twenty decisions: its logged rate, and its contributions."""
    registry = Registry(busy_home / "registry")
    manifest = read_manifest(registry.bundle_folder(registry.bundles()[0]))
    attributes = {action.id: action.attributes for action in serving_engine(busy_home).actions}
    found = []
    for logged in list(read_decisions(busy_home))[:20]:
        placement = logged.record.placements[0]
        for action, rate in zip(placement.candidates, placement.predicted_rates, strict=True):
            found.append((logged.record, rate, contributions(registry, manifest, logged.record, action, attributes[action])))
    return found


def test_contributions_sum_to_the_logit_of_the_rate_that_was_logged(told):
    """TreeSHAP is additive; calibration is a slope and an intercept of the same logit."""
    for _, rate, parts in told:
        assert sum(part.margin for part in parts) == pytest.approx(math.log(rate / (1 - rate)), abs=1e-4)
    assert len(told) > 50


def test_the_largest_come_first_and_the_average_last(told):
    """In either direction."""
    for _, _, parts in told:
        sizes = [abs(part.margin) for part in parts[:-1]]
        assert sizes == sorted(sizes, reverse=True)
        assert parts[-1].name == BASE


def test_each_tells_the_value_that_the_model_saw(told):
    """Of the customer, the context, the action; None where it was missing."""
    for record, _, parts in told:
        for part in parts[:-1]:
            scope, _, name = part.name.partition(".")
            if scope == "customer":
                assert part.value == record.customer.get(name)
            if scope == "context":
                assert part.value == record.context.get(name)
