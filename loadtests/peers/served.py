"""`feast serve` beside FastAPI and LightGBM: features come over HTTP, from Feast's own server."""

import time
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import BaseModel

from features.definitions import MODELS
from features.request_time import request_time_values
from loadtests.peers.scoring import CUSTOMER, Model

UTC = "UTC"


class Asked(BaseModel):
    """The part of a request that this one understands."""

    customer_id: str
    context: dict[str, str] = {}


def served_app(home: Path, feast_url: str) -> FastAPI:
    """One endpoint, which asks Feast's server at `feast_url`."""
    model, client = Model.of(home, "lightgbm"), httpx.AsyncClient(base_url=feast_url)
    app = FastAPI()

    @app.post("/recommend")
    async def recommend(asked: Asked) -> dict[str, Any]:
        wanted = {"feature_service": MODELS[0], "entities": {CUSTOMER: [asked.customer_id]}}
        found = (await client.post("/get-online-features", json=wanted)).raise_for_status().json()
        names = found["metadata"]["feature_names"]
        told = {name: result["values"][0] for name, result in zip(names, found["results"], strict=True)}
        return model.best({**told, **asked.context, **request_time_values(time.time(), UTC)})

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app
