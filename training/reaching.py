"""Whether Redis is there, asked before anything begins that takes long or speaks of its absence in words of its own."""

from service.errors import DependencyFailed
from service.stores.links import open_link
from service.stores.resp import encode

TIMEOUT_MS = 60_000.0


async def reach(url: str) -> None:
    """Raises DependencyFailed where Redis does not answer."""
    link = open_link(url, timeout_ms=TIMEOUT_MS)
    try:
        await link.ask(encode("PING"), 1)
    except DependencyFailed as error:
        raise DependencyFailed(f"{error} - at `{url.rsplit('@', maxsplit=1)[-1]}`") from error
    finally:
        await link.close()
