"""A contract and a good catalog to spoil."""

from pathlib import Path

import pytest

from features.contract import Contract, Feature


@pytest.fixture(scope="session")
def contract() -> Contract:
    return Contract(
        (
            Feature("age", "number", "profile"),
            Feature("region", "category", "profile", categories=("north", "south")),
            Feature("visits_30d", "number", "activity"),
            Feature("spend_12m", "number", "value"),
            Feature("complaint", "number", "attitude", default=0.0),
            Feature("channel", "category", "context", categories=("web", "app", "email")),
        )
    )


@pytest.fixture(scope="session")
def good() -> str:
    return (Path(__file__).parent / "good.yaml").read_text()
