"""The floor: a bare ASGI callable that reads the same keys from Redis, calls the scorer once, and writes once."""

import os
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from features.homes import home_contract
from features.layout import CustomerLayout
from features.request_time import request_time_values
from features.vectors import RowEncoder
from service.bundles.loading import load_bundle
from service.catalog.validate import load_catalog
from service.decision.engine import by_priority
from service.registry import Registry
from service.stores.resp import Connection, connect, encode, parse_address

JSON = (b"content-type", b"application/json")
UTC = "UTC"


class Floor:
    """Nothing that a decision needs, but what no decision can do without."""

    def __init__(self, home: Path, redis_url: str) -> None:
        registry, contract = Registry(home / "registry"), home_contract(home)
        pointer = registry.current()
        catalog = load_catalog(registry.catalog(pointer.catalog or 0).document, contract)
        actions = by_priority(catalog)
        bundle = load_bundle(registry.bundle_folder(pointer.champion or ""), contract)
        self._scorer = bundle.scorer(actions)
        self._encoder = RowEncoder(self._scorer.inputs)
        self._names, self._values = [a.id for a in actions], np.array([a.value for a in actions])
        self._layout = CustomerLayout(contract.batch)
        self._address = parse_address(redis_url)
        self._connection: Connection | None = None
        self._file = os.open(home / "floor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401  # the protocol has no types of its own
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        body = b"{}"
        if scope["path"] == "/recommend":
            body = await self._answer((await receive())["body"])
        headers = [JSON, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, asked: bytes) -> bytes:
        request = msgspec.json.decode(asked)
        if self._connection is None or not self._connection.is_open:
            self._connection = await connect(self._address)
        customer, now = request["customer_id"], time.time()
        question = encode("HMGET", self._layout.key(customer), *self._layout.fields)
        replies = await self._connection.ask(question, 1)
        values, _ = self._layout.decode(replies[0], now)
        context = {**request["context"], **request_time_values(now, UTC)}
        rates = self._scorer.score(self._encoder.encode([values], [context]))[0]
        first = int(np.argmax(rates * self._values))
        answer = msgspec.json.encode({"action_id": self._names[first], "predicted_rate": float(rates[first])})
        os.write(self._file, answer + b"\n")
        return answer


async def _lifespan(receive: Any, send: Any) -> None:  # noqa: ANN401  # the protocol has no types of its own
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})
