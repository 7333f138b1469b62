"""FastAPI, the Feast SDK, and LightGBM or ONNX Runtime row by row: numpy in, one thread, no rules, no log."""

import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from features.definitions import MODELS, feature_store
from features.request_time import request_time_values
from loadtests.peers.scoring import CUSTOMER, Model

UTC = "UTC"


class Asked(BaseModel):
    """The part of a request that this one understands."""

    customer_id: str
    context: dict[str, str] = {}


def feast_app(home: Path, redis_url: str, kind: str) -> FastAPI:
    """One endpoint. The SDK's call blocks the loop: sent to a thread, it takes longer."""
    store, model = feature_store(home, redis_url), Model.of(home, kind)
    service = store.get_feature_service(MODELS[0])
    app = FastAPI()

    @app.post("/recommend")
    async def recommend(asked: Asked) -> dict[str, Any]:
        found = store.get_online_features(features=service, entity_rows=[{CUSTOMER: asked.customer_id}]).to_dict()
        told = {name: values[0] for name, values in found.items()}
        return model.best({**told, **asked.context, **request_time_values(time.time(), UTC)})

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app
