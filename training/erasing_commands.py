"""`nextbest erase`: needs Redis and the log, and none of the 3 s that Feast takes to load."""

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from features.redis_server import resolve_redis
from service.errors import BadRequest
from training.erasing import erase
from training.reaching import reach


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:
    """Exit code: 0 done. Errors are raised for the command line to tell."""
    purpose = "Forget a customer under all of their ids: out of Redis, and out of everything that learns, judges or rebuilds."
    parser = argparse.ArgumentParser(prog="nextbest erase", description=purpose)
    parser.add_argument("customer", metavar="CUSTOMER_ID")
    name = parser.parse_args(argv[1:]).customer
    if not name:
        raise BadRequest("Expected the id of a customer, got an empty text - at `CUSTOMER_ID`")
    with resolve_redis(redis_url, home) as url:
        asyncio.run(reach(url))
        ids = erase(home, url, name, time.time())
    print(f"forgotten: {', '.join(f'`{one}`' for one in ids)}")
    print("Log and lake keep their lines, from which nothing learns any more; tables that feed features are yours to change.")
    return 0
