"""`GET /status`: what the service promises and where it stands, for machines as JSON and for people as a page."""

import html
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.openapi.datastructures import ResponseSpec

from service.api.guarding import OPERATE

Sections = Mapping[str, Callable[[], Any]]
STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem }
h2 { font-size: 1rem; margin: 1.5rem 0 .25rem }
table { border-collapse: collapse; width: 100% }
td { padding: .2rem 0; border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent) }
td:first-child { width: 45%; opacity: .7 }
"""


class Standing:
    """What every worker tells of itself."""

    def __init__(self, package: str, clock: Callable[[], float]) -> None:
        self._package, self._clock = package, clock
        self._started = clock()

    def process(self) -> dict[str, Any]:
        """Which one answers, and since when."""
        return {"worker": os.getpid(), "package": self._package, "up_s": round(self._clock() - self._started)}


@get(
    "/status",
    opt=OPERATE,
    summary="What it promises, and where it stands",
    tags=["operate"],
    responses={200: ResponseSpec(dict[str, dict[str, Any]], description="One section for each part", generate_examples=False)},
)
async def status(request: Request[Any, Any, Any]) -> Response[bytes]:
    """One section for each part that has something to say; a page where a browser asks."""
    sections: Sections = request.app.state.status
    told = {name: msgspec.to_builtins(tell()) for name, tell in sections.items()}
    if "text/html" in request.headers.get("accept", ""):
        return Response(page(told).encode(), media_type=MediaType.HTML)
    return Response(msgspec.json.encode(told), media_type=MediaType.JSON)


def page(told: Mapping[str, Any]) -> str:
    """Everything as tables, on one page that loads nothing."""
    parts = "".join(f"<h2>{html.escape(name)}</h2><table>{_rows(section)}</table>" for name, section in told.items())
    now = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>nextbest</title><style>{STYLE}</style>'
    )
    return f"<!doctype html><html lang=en>{head}<h1>nextbest</h1><p>{now}</p>{parts}</html>"


def _rows(section: Any, prefix: str = "") -> str:  # noqa: ANN401  # sections nest freely
    if not isinstance(section, Mapping):
        return f"<tr><td>{html.escape(prefix)}</td><td>{html.escape(str(section))}</td></tr>"
    return "".join(_rows(value, f"{prefix} {name}".strip()) for name, value in section.items())
