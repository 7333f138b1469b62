"""What the pipeline needs from outside. Each has an implementation and an in-memory twin in `service/stores`."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from service.decision.entities import CustomerState
from service.decision.records import DecisionRecord, OutcomeRecord


class Acknowledgement(msgspec.Struct, frozen=True):
    """How a call of outcomes was taken, once it is on disk. `orphans` are among the accepted."""

    accepted: int
    duplicates: int
    orphans: int


class CustomerReader(Protocol):
    """Reads what is known of customers."""

    async def read(self, customer_ids: Sequence[str], now: float) -> list[CustomerState]:
        """One state per id, in order; an unknown customer has no values. `now` decides which values are too old.

        Raises DependencyFailed where the store does not answer in time.
        """

    async def close(self) -> None:
        """Release connections."""


class DecisionLog(Protocol):
    """Keeps decisions and outcomes: when a call returns, its records are on disk."""

    async def append_decisions(self, records: Sequence[DecisionRecord]) -> None:
        """Write down decisions. Raises LogUnavailable, having acknowledged nothing."""

    async def append_outcomes(self, records: Sequence[OutcomeRecord]) -> Acknowledgement:
        """Write down outcomes whose id is new; an outcome of an unknown decision is written as an orphan.

        Raises LogUnavailable, having acknowledged nothing.
        """

    async def close(self) -> None:
        """Write down what is pending and release the files."""
