"""`GET /nextbest.js`: the script for web pages."""

from pathlib import Path

from litestar import MediaType, Response, get

from service.api.guarding import NO_KEY

SCRIPT = (Path(__file__).parent / "nextbest.js").read_bytes()


@get("/nextbest.js", opt=NO_KEY, summary="The script for web pages", tags=["ingest"], media_type=MediaType.TEXT)
async def browser_script() -> Response[bytes]:
    """Page views, clicks, dwell time, `recommend()` and `outcome()`; nothing before consent."""
    return Response(SCRIPT, media_type="text/javascript; charset=utf-8", headers={"cache-control": "public, max-age=3600"})
