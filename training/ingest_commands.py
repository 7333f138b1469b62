"""`nextbest ingest`. Loads no Feast, whose import takes longer than 100,000 events."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from features.redis_server import resolve_redis
from training.ingest import ingest, ingest_quarantine
from training.progress import progress_bar


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:
    """Exit code: 0 done. Errors are raised for the command line to tell."""
    parser = _parser()
    options = parser.parse_args(argv[1:])
    started = time.perf_counter()
    if (options.file is None) != options.quarantine:
        parser.error("Expected either a file or `--quarantine`")
    with progress_bar("Ingesting") as tell, resolve_redis(redis_url, home) as url:
        if options.quarantine:
            found = ingest_quarantine(home, url, now=time.time(), progress=tell)
        else:
            found = ingest(home, url, options.file, options.mapping, now=time.time(), progress=tell)
    seconds = time.perf_counter() - started
    print(f"{found.rows:,} rows in {seconds:.1f} s: {found.accepted:,} new events, {found.duplicates:,} known before")
    if found.undeclared:
        print(f"{found.undeclared:,} of them are of types that events.yaml does not declare: kept, and feeding nothing")
    if found.quarantined and options.quarantine:
        print(f"{found.quarantined:,} still cannot be taken")
    elif found.quarantined:
        print(f"{found.quarantined:,} were set aside with their reasons - at `{home / 'log' / 'quarantine'}`")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nextbest ingest", description="Take in a history of events.")
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="JSON lines, CSV or Parquet, .gz too")
    parser.add_argument("--mapping", type=Path, metavar="FILE", help="which name means what (TOML), where they differ")
    parser.add_argument("--quarantine", action="store_true", help="what was set aside, after its reason is mended")
    return parser
