"""What is known of customers: from Redis in one round trip, or from memory."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from features.contract import ContractError
from features.layout import CustomerLayout
from service.catalog.entities import Scalar
from service.decision.entities import UNKNOWN_CUSTOMER, CustomerState
from service.errors import DependencyFailed
from service.stores.resp import Connection, bulk, check, connect, parse_address

FAILURES = 3  # in a row, then the store counts as down
COOL_DOWN_S = 0.5  # how long it is left alone before one read tries it again


class RedisCustomerReader:
    """Reads Feast's layout directly. While Redis is down, most reads fail at once instead of each waiting for its time-out."""

    def __init__(
        self, url: str, layout: CustomerLayout, *, timeout_ms: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._address = parse_address(url)
        self._layout = layout
        self._timeout = timeout_ms / 1000
        self._clock = clock
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._failures = 0
        self._try_again = 0.0
        self._command = b"*%d\r\n%b" % (2 + len(layout.fields), bulk("HMGET"))
        self._fields = b"".join(map(bulk, layout.fields))

    async def read(self, customer_ids: Sequence[str], now: float) -> list[CustomerState]:
        """One state per id, in order. Raises DependencyFailed."""
        if not self._layout.fields:
            return [UNKNOWN_CUSTOMER] * len(customer_ids)
        distinct = list(dict.fromkeys(customer_ids))
        replies = await self._ask(distinct)
        states = {c: self._state(c, reply, now) for c, reply in zip(distinct, replies, strict=True)}
        return [states[c] for c in customer_ids]

    def _state(self, customer_id: str, reply: Sequence[bytes | None], now: float) -> CustomerState:
        try:
            values, stale = self._layout.decode(reply, now)
        except ContractError as error:
            raise DependencyFailed(f"{error} - of customer `{customer_id}`") from error
        return CustomerState(cast("dict[str, Scalar]", values), stale)

    async def _ask(self, customer_ids: Sequence[str]) -> Sequence[Any]:
        self._check_breaker()
        commands = b"".join([self._command + bulk(self._layout.key(c)) + self._fields for c in customer_ids])
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._connected()
                replies = check(await connection.ask(commands, len(customer_ids)))
        except (OSError, DependencyFailed) as error:  # TimeoutError is an OSError
            raise self._failed(error) from error
        self._failures = 0
        return replies

    def _check_breaker(self) -> None:
        if self._failures >= FAILURES:
            if self._clock() < self._try_again:
                raise DependencyFailed(f"Expected Redis to answer, found it down ({self._failures} failures in a row)")
            self._try_again = self._clock() + COOL_DOWN_S  # this read tries; those beside it do not

    def _failed(self, error: Exception) -> DependencyFailed:
        self._failures += 1
        self._try_again = self._clock() + COOL_DOWN_S
        if isinstance(error, TimeoutError):
            if self._connection is not None:
                self._connection.abort()  # its replies would come too late for anyone
            return DependencyFailed(f"Expected Redis to answer within {self._timeout * 1000:g} ms, got nothing")
        return DependencyFailed(str(error))

    async def _connected(self) -> Connection:
        """The open connection; reads that find none wait for the same new one."""
        if self._connection is not None and self._connection.is_open:
            return self._connection
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(connect(self._address))
        self._connection = await asyncio.shield(self._opening)
        return self._connection

    async def close(self) -> None:
        """Release the connection."""
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        if self._connection is not None:
            self._connection.abort()


class MemoryCustomerReader:
    """The twin in memory: states by customer id."""

    def __init__(self, states: Mapping[str, CustomerState]) -> None:
        self._states = states

    async def read(self, customer_ids: Sequence[str], now: float) -> list[CustomerState]:  # noqa: ARG002  # ages are given
        return [self._states.get(c, UNKNOWN_CUSTOMER) for c in customer_ids]

    async def close(self) -> None:
        """Nothing is open."""
