"""Explanations of logged decisions: found in the log, made with the engine of their time, outside of the hot path."""

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

from service.decision.engine import Engine
from service.decision.explain import Explanation, explain
from service.decision.records import DecisionRecord
from service.errors import BadRequest, UnknownDecision, nearest


class Engines(Protocol):
    """Gives the engine that made a decision."""

    def engine_of(self, record: DecisionRecord) -> Engine:
        """Raises RegistryError where it cannot be built any more."""


class Explainer:
    """`find` looks a decision up by its id."""

    def __init__(self, find: Callable[[str], DecisionRecord | None], engines: Engines) -> None:
        self._find = find
        self._engines = engines
        self._one_at_a_time = asyncio.Lock()  # an explanation takes 5 to 500 ms of a core that answers requests, too

    async def explain(self, decision_id: str, changes_for: frozenset[str] | None) -> Explanation:
        """Raises BadRequest, as UnknownDecision too, RegistryError and BundleRefused."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self.explain_now, decision_id, changes_for)

    def explain_now(self, decision_id: str, changes_for: frozenset[str] | None) -> Explanation:
        """The same, while the caller waits."""
        record = self._find(decision_id)
        if record is None:
            raise UnknownDecision(decision_id)
        engine = self._engines.engine_of(record)
        expect_actions(engine, record, changes_for or (), "changes")
        return explain(engine, record, changes_for=changes_for)


def expect_actions(engine: Engine, record: DecisionRecord, names: Collection[str], where: str) -> None:
    """Raises BadRequest for a name that is no action of the catalog that decided."""
    known = engine.of(record.experiment).positions
    for name in sorted(set(names) - known.keys()):
        raise BadRequest(
            f"Expected an action of the catalog that decided{nearest(name, list(known))}, got `{name}` - at `{where}`"
        )
