"""Decisions that a client asks for again under its own id, after a restart or at another worker: the log tells them again."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from service.decision.records import DecisionRecord
from service.errors import BundleRefused, RegistryError
from service.explaining import Engines
from service.pipeline import Answer


@dataclass(frozen=True, slots=True)
class LoggedPast:
    """`find` looks up by its id a decision that is on disk, or raises OSError; `engines` know the creatives that it names."""

    find: Callable[[str], DecisionRecord | None]
    engines: Engines

    async def answer(self, decision_id: str) -> Answer | None:
        """None where the log does not hold it or the disk refuses to, or where its catalog or bundle is gone."""
        return await asyncio.to_thread(self.answer_now, decision_id)

    def answer_now(self, decision_id: str) -> Answer | None:
        """The same, while the caller waits: 20 ms to find it among 64 MB, up to 500 ms where an engine has to be built."""
        try:
            record = self.find(decision_id)
            return None if record is None else Answer(record, self.engines.engine_of(record))
        except (BundleRefused, RegistryError, OSError):
            return None
