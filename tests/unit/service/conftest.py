"""Tiny worlds: catalogs of a few actions whose right answer is obvious."""

from collections.abc import Mapping, Sequence

import pytest

from features.contract import Contract, Feature
from service.catalog.entities import Action, Catalog, CompiledRule, Exploration, Fallback, Placement, Treatment
from service.decision.engine import Engine, build_engine
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.decision.records import Versions
from service.decision.scoring import FlatScorer

CONTRACT = Contract(
    (
        Feature("age", "number", "profile", max_age=86400.0),
        Feature("complaint", "number", "attitude", default=0.0, max_age=86400.0),
        Feature("device", "category", "context", categories=("mobile", "desktop")),
    )
)
KINDS = ("offer", "content", "service", "nothing")
VERSIONS = Versions(1, "tiny", CONTRACT.fingerprint)


class Tiny:
    """Builders with defaults that do not matter to the test at hand."""

    contract = CONTRACT

    @staticmethod
    def rule(name: str, passes, *, key: str | None = None, layer="eligibility") -> CompiledRule:
        return CompiledRule(name, name, key or name, passes, (), layer)

    @staticmethod
    def action(
        name: str, *, placements: Sequence[str] = ("hero",), kind="offer", value=1.0, lever=1.0, priority=0.0, rules=(),
        span=(None, None), attributes: Mapping[str, float | str] | None = None, group="all", **given,
    ) -> Action:  # fmt: skip
        treatment = Treatment(f"{name}_creative", tuple(placements), {"title": name})
        return Action(
            name, kind, "sales", group, value, lever, priority, *span, dict(attributes or {}), tuple(rules),
            given.pop("treatments", (treatment,)), **given,
        )  # fmt: skip

    @staticmethod
    def placement(
        name: str = "hero", *, slots: int = 1, epsilon: float = 0.0, accepts=("offer", "content", "service", "nothing"), **given
    ) -> Placement:
        fallback = Fallback("welcome", "welcome_creative", "content", {"title": "Hi"})
        explore = given.pop("explore", Exploration(epsilon=epsilon))
        return Placement(name, given.pop("channel", "web"), slots, tuple(accepts), fallback, explore, **given)

    @staticmethod
    def catalog(actions: Sequence[Action], placements: Sequence[Placement], **given) -> Catalog:
        names = tuple(a.id for a in actions)
        return Catalog(
            tuple(actions),
            {p.id: p for p in placements},
            (Feature("id", "category", "action", categories=names),),
            fingerprint="tiny",
            **given,
        )

    @classmethod
    def engine(
        cls, actions: Sequence[Action], *placements: Placement, rates: Mapping[str, float] | None = None, evidence=None, **given
    ) -> Engine:
        catalog = cls.catalog(actions, placements or (cls.placement(),), **given)
        ordered = sorted(actions, key=lambda a: -a.priority)
        scorer = FlatScorer([(rates or {}).get(a.id, 0.0) for a in ordered])
        return build_engine(catalog, CONTRACT, scorer, VERSIONS, evidence)

    @staticmethod
    def request(decision_id: str = "d1", *placements: tuple[str, int], **given) -> DecisionRequest:
        asked = tuple(PlacementRequest(*p) for p in placements or (("hero", 1),))
        customer = given.pop("state", None) or CustomerState(given.pop("customer", {}))
        context = given.pop("context", {})
        return DecisionRequest(
            decision_id, given.pop("customer_id", "c1"), given.pop("at", 1e9), customer, context, asked, **given
        )


@pytest.fixture(scope="session")
def tiny() -> type[Tiny]:
    return Tiny
