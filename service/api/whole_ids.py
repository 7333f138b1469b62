"""Ids in paths, as they were sent: one may hold slashes, which the framework takes for steps of the path."""

from typing import Any
from urllib.parse import unquote

from litestar import Request


def id_after(prefix: str, request: Request[Any, Any, Any]) -> str:
    """What follows the first `prefix` of a path. The framework drops slashes at its ends, and of several in a row all but one."""
    sent: bytes | None = request.scope.get("raw_path")
    path = request.scope["path"] if sent is None else unquote(sent.partition(b"?")[0].decode("latin-1"))
    return path.partition(prefix)[2]
