"""`python -m loadtests.peers NAME --home HOME --redis-url URL --port PORT`: one of them, until it is told to stop."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn
from feast.feature_server import get_app

from features.definitions import feature_store
from loadtests.peers.feast_app import feast_app
from loadtests.peers.floor import Floor
from loadtests.peers.served import served_app

NAMES = ("feast-lightgbm", "feast-onnx", "served", "feast", "floor")


def main(argv: Sequence[str]) -> int:
    """Serve on loopback, with uvloop and httptools as ours does."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.peers", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--redis-url", default="")
    parser.add_argument("--feast-url", default="", help="of `feast`, for `served`")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(argv)
    uvicorn.run(_app(options), host="127.0.0.1", port=options.port, log_level="warning", loop="uvloop", http="httptools")
    return 0


def _app(options: argparse.Namespace) -> Any:  # noqa: ANN401  # an ASGI callable, of whichever framework
    match options.name:
        case "floor":
            return Floor(options.home, options.redis_url)
        case "feast":  # what `feast serve` runs, without its manager of processes
            return get_app(feature_store(options.home, options.redis_url), registry_ttl_sec=3600)
        case "served":
            return served_app(options.home, options.feast_url)
    return feast_app(options.home, options.redis_url, options.name.removeprefix("feast-"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
