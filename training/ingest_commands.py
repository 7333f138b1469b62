"""`nextbest ingest`. Loads no Feast, whose import takes longer than 100,000 events."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from features.redis_server import resolve_redis
from training.ingest import ingest
from training.progress import progress_bar


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:
    """Exit code: 0 done. Errors are raised for the command line to tell."""
    options = _parser().parse_args(argv[1:])
    started = time.perf_counter()
    with progress_bar(f"Ingesting {options.file.name}") as tell, resolve_redis(redis_url, home) as url:
        found = ingest(home, url, options.file, options.mapping, now=time.time(), progress=tell)
    seconds = time.perf_counter() - started
    print(f"{found.rows:,} rows in {seconds:.1f} s: {found.accepted:,} new events, {found.duplicates:,} known before")
    if found.undeclared:
        print(f"{found.undeclared:,} of them are of types that events.yaml does not declare: kept, and feeding nothing")
    if found.quarantined:
        print(f"{found.quarantined:,} were set aside with their reasons - at `{home / 'log' / 'quarantine'}`")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nextbest ingest", description="Take in a history of events.")
    parser.add_argument("file", type=Path, metavar="FILE", help="JSON lines, CSV or Parquet, .gz too")
    parser.add_argument("--mapping", type=Path, metavar="FILE", help="which name means what (TOML), where they differ")
    return parser
