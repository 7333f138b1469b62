"""`GET /nextbest.js`: the script for web pages."""

from pathlib import Path

from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec

from service.api.guarding import NO_KEY

SCRIPT = (Path(__file__).parent / "nextbest.js").read_bytes()
JAVASCRIPT = "text/javascript"


@get(
    "/nextbest.js",
    opt=NO_KEY,
    summary="The script for web pages",
    tags=["ingest"],
    responses={200: ResponseSpec(str, media_type=JAVASCRIPT, generate_examples=False)},
)
async def browser_script() -> Response[bytes]:
    """Page views, clicks, dwell time, `recommend()` and `outcome()`; nothing before consent."""
    return Response(SCRIPT, media_type=JAVASCRIPT, headers={"cache-control": "public, max-age=3600"})
