"""The OpenAPI document: request bodies are decoded by hand for speed, so their schemas are attached here."""

from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Request, Router
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import RedocRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition

from service.api import examples
from service.api.guarding import NO_KEY
from service.api.problems import MEDIA_TYPE
from service.api.wire import (
    CONSENTS_PER_CALL,
    EVENTS_PER_CALL,
    OUTCOMES_PER_CALL,
    ConsentSent,
    ConsentsRequest,
    EventSent,
    EventsRequest,
    IdentitiesRequest,
    Outcome,
    OutcomesRequest,
    Problem,
    RecommendRequest,
)

REDOC = "https://cdn.jsdelivr.net/npm/redoc@2.5.0/bundles/redoc.standalone.js"
PROBLEMS: dict[int, ResponseSpec] = {
    status: ResponseSpec(Problem, description=what, media_type=MEDIA_TYPE, generate_examples=False)
    for status, what in (
        (400, "Malformed: what was expected, what was found, where"),
        (401, "No active key: see `nextbest keys`"),
        (403, "A key for something else"),
        (404, "Unknown placement, whose known ones are named; or unknown decision"),
        (409, "A version that is needed does not exist any more"),
        (413, "The body is too large"),
        (422, "A `decision_id` that named another request before"),
        (429, "More than the key allows: see Retry-After"),
        (503, "Nothing was published yet, or the log cannot be written: see Retry-After"),
    )
}


def _body(kind: type, example: dict[str, Any], **properties: dict[str, Any]) -> RequestBody:
    """A body of this type; `properties` replace what msgspec says of a field."""
    (reference,), definitions = msgspec.json.schema_components([kind], ref_template="{name}")
    schema = _inlined(reference, definitions)
    schema["properties"] |= properties
    content = OpenAPIMediaType(schema=schema, example=example)
    return RequestBody(content={"application/json": content}, required=True)


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:  # noqa: ANN401  # JSON Schema nests freely
    """References replaced by what they refer to: Litestar drops components that no response uses."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items()}


def _list_of(kind: type, most: int) -> dict[str, Any]:
    (reference,), definitions = msgspec.json.schema_components([kind], ref_template="{name}")
    return {"type": "array", "minItems": 1, "maxItems": most, "items": _inlined(reference, definitions)}


@dataclass
class RecommendOperation(Operation):
    """Adds the request body."""

    def __post_init__(self) -> None:
        self.request_body = _body(RecommendRequest, examples.RECOMMEND_REQUEST)


@dataclass
class OutcomesOperation(Operation):
    """Adds the request body, whose outcomes the service decodes one by one."""

    def __post_init__(self) -> None:
        self.request_body = _body(OutcomesRequest, examples.OUTCOMES_REQUEST, outcomes=_list_of(Outcome, OUTCOMES_PER_CALL))


@dataclass
class EventsOperation(Operation):
    """Adds the request body, whose events the service decodes one by one."""

    def __post_init__(self) -> None:
        self.request_body = _body(EventsRequest, examples.EVENTS_REQUEST, events=_list_of(EventSent, EVENTS_PER_CALL))


@dataclass
class ConsentsOperation(Operation):
    """Adds the request body, whose consents the service decodes one by one."""

    def __post_init__(self) -> None:
        self.request_body = _body(ConsentsRequest, examples.CONSENTS_REQUEST, consents=_list_of(ConsentSent, CONSENTS_PER_CALL))


@dataclass
class IdentitiesOperation(Operation):
    """Adds the request body."""

    def __post_init__(self) -> None:
        self.request_body = _body(IdentitiesRequest, examples.IDENTITIES_REQUEST)


class SpeltFigures(OpenAPISchemaPlugin):
    """Says what figures are that are JSON already."""

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        return field_definition.annotation is msgspec.Raw

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: object) -> Schema:  # noqa: ARG002  # Litestar's names
        return Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.NUMBER))


class SchemaPage(RedocRenderPlugin):
    """The document for people. Where the script cannot be fetched, the page is a link to the document for programs."""

    def __init__(self) -> None:
        super().__init__(js_url=REDOC, google_fonts=False, favicon="<link rel='icon' href='data:,'>")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        link = f"<a href='{self.get_openapi_json_route(request)}'>openapi.json</a>"
        text = f"<p>This page needs a script that is fetched from the internet; without it: {link}</p>"
        page = super().render(request, openapi_schema)
        return page.replace(b"<div id='redoc-container'/>", b"<div id='redoc-container'>%s</div>" % text.encode())


def openapi_config(version: str) -> OpenAPIConfig:
    """The document served under `/schema`."""
    undocumented = Router("/schema", route_handlers=[], opt=NO_KEY, include_in_schema=False)
    pages = [SchemaPage(), YamlRenderPlugin()]
    return OpenAPIConfig(title="nextbest", version=version, openapi_router=undocumented, render_plugins=pages)
