"""`nextbest decide`: for every customer of a table. Loads no trainer: that takes 1.1 s."""

import argparse
import datetime as dt
import math
from collections.abc import Sequence
from pathlib import Path

from features.redis_server import resolve_redis
from service.catalog.entities import Scalar
from service.catalog.placing import MOST_SLOTS
from service.decision.entities import PlacementRequest
from service.errors import NotReady
from training.batch import decide_table
from training.batch_parts import Campaign, PartsFolder
from training.progress import progress_bar
from training.spreading import add_workers, workers_of


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:
    """Exit code 0. Errors are raised for the command line to tell."""
    parser = _parser()
    options = parser.parse_args(argv[1:])
    named = [placement.id for placement in options.placement]
    if len(set(named)) < len(named):
        parser.error(f"Expected each placement once, got {', '.join(f'`{name}`' for name in named)} - at `--placement`")
    workers = workers_of(options)
    if options.out.exists():
        raise NotReady(
            f"Expected a new file: deciding twice contacts everyone twice; found one, perhaps of a dry run - at `{options.out}`"
        )
    begun = PartsFolder.beside(options.out).begun()  # perhaps yesterday, when the campaign had another name
    today = f"{options.table.stem}-{dt.datetime.now(dt.UTC):%Y-%m-%d}"
    name = options.campaign or (begun.campaign.name if begun else today)
    if not name.isprintable():
        parser.error(f"Expected a name of printable characters, got {name!a} - at `--campaign`")
    campaign = Campaign(name, tuple(options.placement), dict(options.context), options.dry_run)
    with progress_bar("Deciding") as tell, resolve_redis(redis_url, home) as url:
        report = decide_table(home, url, campaign, options.table, options.out, workers=workers, progress=tell)
    trace = "; a dry run: nothing was logged or counted" if options.dry_run else ""
    print(
        f"decided for {report.customers:,} customers in {report.seconds:.1f} s, {report.fallbacks:,} of them get a fallback"
        f"{f'; {report.before:,} were decided in a run before' if report.before else ''}"
        f"{trace}\nwrote {options.out}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    purpose = "decide for every customer of a table"
    deciding = argparse.ArgumentParser(prog="nextbest decide", description=purpose)
    deciding.add_argument("table", type=Path, metavar="TABLE", help="CSV or Parquet with a column `customer_id`")
    deciding.add_argument("--out", type=Path, required=True, metavar="FILE", help="Parquet, one row an item")
    deciding.add_argument(
        "--placement", type=_placement, action="append", required=True, metavar="ID[:SLOTS]", help="may be given several times"
    )
    deciding.add_argument("--context", type=_pair, action="append", default=[], metavar="NAME=VALUE", help="the same for all")
    deciding.add_argument("--campaign", metavar="NAME", help="a send is made once under a name (default: table and day)")
    deciding.add_argument("--dry-run", action="store_true", help="leave no trace")
    add_workers(deciding)
    return deciding


def _placement(text: str) -> PlacementRequest:
    name, colon, slots = text.partition(":")
    if not name or (colon and not (slots.isdecimal() and 1 <= int(slots) <= MOST_SLOTS)):
        raise argparse.ArgumentTypeError(
            f"Expected a placement like `mail_top` or `mail_top:3`, of 1 to {MOST_SLOTS} slots, got `{text}`"
        )
    return PlacementRequest(name, int(slots or 1))


def _pair(text: str) -> tuple[str, Scalar]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"Expected `name=value`, got `{text}`")
    try:
        number = float(value)
    except ValueError:
        return name, value
    return name, number if math.isfinite(number) else value  # JSON, in which a plan is kept, has no infinite ones
