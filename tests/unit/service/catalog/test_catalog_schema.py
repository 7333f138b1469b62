"""The JSON Schema of catalogs: it accepts what the validator accepts, and knows the same keys."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from service.catalog import contacting, experimenting, placing, validate
from service.catalog.commands import schema_text
from service.catalog.schema import catalog_schema

HOUSE = Path(__file__).resolve().parents[4]
HERE = Path(__file__).parent
GOOD = [HERE / "good.yaml", HERE / "rich.yaml", HOUSE / "training" / "demo" / "catalog.yaml"]
SCHEMA = catalog_schema()
CONTACT = SCHEMA["properties"]["contact"]["properties"]


def text_of(path: Path):
    """As an editor reads it: dates stay text."""
    return json.loads(json.dumps(yaml.safe_load(path.read_text()), default=str))


def check(document) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(document)


def test_the_schema_is_one():
    """Draft 2020-12 says so itself."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_a_good_catalog_is_accepted(path):
    """Everything that a catalog can say is in one of these."""
    check(text_of(path))


@pytest.mark.parametrize(
    ("part", "spoiled"),
    [
        ("kind: offer", "kind: promo"),
        ("per: kind, window: 7d", "per: kind"),
        ("window: 7d", "window: week"),
        ("epsilon: 0.1", "epsilon: 3"),
        ("mandatory: true", "mandatory: maybe"),
        ("slots: 3", "slots: 0"),
        ("lever: 1.5", "levers: 1.5"),
        ("fallback: {action: none, kind: content}", "fallback: {action: none}"),
        ("at_most: 1, where", "at_most: 1, at_most_share: 1, where"),
        ("name: three_offers", "name: Three offers"),
        ("ablation: random", "ablation: none"),
        ("holdout: {share: 0.05}", "holdout: {share: 5}"),
        ("otherwise: 2}", "other: 2}"),
        ("temperature: 0.2", "temperature: 0"),
    ],
)
def test_a_mistake_of_shape_is_seen_while_writing(part, spoiled):
    """An editor underlines it before anything is checked."""
    text = (HERE / "rich.yaml").read_text().replace(part, spoiled, 1)
    assert text != (HERE / "rich.yaml").read_text()
    with pytest.raises(jsonschema.ValidationError):
        check(json.loads(json.dumps(yaml.safe_load(text), default=str)))


@pytest.mark.parametrize(
    ("part", "keys"),
    [
        (SCHEMA, validate.TOP_LEVEL),
        (SCHEMA["properties"]["issues"]["items"], validate.ISSUE_KEYS),
        (SCHEMA["properties"]["groups"]["items"], validate.GROUP_KEYS),
        (SCHEMA["properties"]["actions"]["items"], validate.ACTION_KEYS),
        (SCHEMA["properties"]["actions"]["items"]["properties"]["treatments"]["items"], validate.TREATMENT_KEYS),
        (SCHEMA["properties"]["weights"]["items"], validate.WEIGHT_KEYS),
        (SCHEMA["properties"]["placements"]["items"], placing.PLACEMENT_KEYS),
        (SCHEMA["properties"]["placements"]["items"]["properties"]["explore"], placing.EXPLORE_KEYS),
        (SCHEMA["properties"]["placements"]["items"]["properties"]["fallback"], placing.FALLBACK_KEYS),
        (SCHEMA["properties"]["contact"], contacting.POLICY_KEYS),
        (CONTACT["caps"]["items"], contacting.CAP_KEYS),
        (CONTACT["caps"]["items"]["properties"]["where"], contacting.SELECTOR_KEYS),
        (CONTACT["cool_downs"]["items"], contacting.COOL_DOWN_KEYS),
        (CONTACT["quiet_hours"]["items"], contacting.QUIET_KEYS),
        (CONTACT["exclusions"]["items"], contacting.EXCLUSION_KEYS),
        (CONTACT["budgets"]["items"], contacting.BUDGET_KEYS),
        (SCHEMA["properties"]["constraints"]["items"], contacting.CONSTRAINT_KEYS),
        (SCHEMA["properties"]["experiments"]["items"], experimenting.EXPERIMENT_KEYS),
        (SCHEMA["properties"]["experiments"]["items"]["properties"]["arms"]["items"], experimenting.ARM_KEYS),
        (SCHEMA["properties"]["holdout"], experimenting.HOLDOUT_KEYS),
    ],
)
def test_the_schema_and_the_validator_know_the_same_keys(part, keys):
    """A key that one of them learns, the other must learn too."""
    assert set(part["properties"]) == set(keys)
    assert part["additionalProperties"] is False


def test_the_published_schema_is_the_current_one():
    """docs/catalog.schema.json is what editors point at: `nextbest catalog schema` writes it."""
    assert (HOUSE / "docs" / "catalog.schema.json").read_text() == schema_text()
