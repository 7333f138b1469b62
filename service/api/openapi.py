"""The OpenAPI document: request bodies are decoded by hand for speed, so their schemas are attached here."""

from dataclasses import dataclass
from typing import Any

import msgspec
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Components, OpenAPIMediaType, Operation, Reference, RequestBody

from service.api import examples
from service.api.problems import MEDIA_TYPE
from service.api.wire import OUTCOMES_PER_CALL, Outcome, Problem, RecommendRequest

PROBLEMS: dict[int, ResponseSpec] = {
    status: ResponseSpec(Problem, description=what, media_type=MEDIA_TYPE, generate_examples=False)
    for status, what in (
        (400, "Malformed: what was expected, what was found, where"),
        (404, "Unknown placement: the known ones are named"),
        (413, "The body is too large"),
        (422, "A `decision_id` that named another request before"),
        (503, "Nothing was published yet, or the log cannot be written: see Retry-After"),
    )
}


def _body(name: str, example: dict[str, Any]) -> RequestBody:
    schema = Reference(ref=f"#/components/schemas/{name}")
    return RequestBody(content={"application/json": OpenAPIMediaType(schema=schema, example=example)}, required=True)


@dataclass
class RecommendOperation(Operation):
    """Adds the request body."""

    def __post_init__(self) -> None:
        self.request_body = _body("RecommendRequest", examples.RECOMMEND_REQUEST)


@dataclass
class OutcomesOperation(Operation):
    """Adds the request body."""

    def __post_init__(self) -> None:
        self.request_body = _body("OutcomesRequest", examples.OUTCOMES_REQUEST)


def openapi_config(version: str) -> OpenAPIConfig:
    """The document served under `/schema`."""
    _, schemas = msgspec.json.schema_components([RecommendRequest, Outcome], ref_template="#/components/schemas/{name}")
    schemas["OutcomesRequest"] = {
        "title": "OutcomesRequest",
        "type": "object",
        "additionalProperties": False,
        "required": ["outcomes"],
        "properties": {
            "outcomes": {
                "type": "array",
                "minItems": 1,
                "maxItems": OUTCOMES_PER_CALL,
                "items": {"$ref": "#/components/schemas/Outcome"},
            }
        },
    }
    return OpenAPIConfig(title="nextbest", version=version, components=Components(schemas=schemas))
