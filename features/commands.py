"""`nextbest features apply | materialize | check`."""

import argparse
import datetime as dt
import sys
from collections.abc import Sequence
from pathlib import Path

from redis.exceptions import RedisClusterException, RedisError

from features.materialize import CheckReport, apply, check, materialize
from features.redis_server import resolve_redis

SHOWN = 20  # differences; the rest are counted


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:
    """Exit code: 0 done, 1 where Redis and the offline tables differ, or Redis does not answer."""
    options = parse(argv)
    with resolve_redis(redis_url, home) as url:
        try:
            return _run(options, home, url)
        except (RedisError, RedisClusterException) as error:
            print(f"error: Expected Redis to answer, got: {error} - at `{url.rsplit('@')[-1]}`", file=sys.stderr)
            return 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """What was asked for: `verb`, and `at` for `materialize`, which is now where nothing is said."""
    return _parser().parse_args(argv[1:])


def _run(options: argparse.Namespace, home: Path, url: str) -> int:
    if options.verb == "apply":
        return _show("registered {count} features of `{view}`", apply(home, url), home)
    if options.verb == "materialize":
        return _show("`{view}` of {count} customers is in Redis", materialize(home, url, options.at), home)
    return report(check(home, url, options.sample))


def report(found: CheckReport) -> int:
    """Say what a check found; its exit code."""
    for difference in found.differences[:SHOWN]:
        print(
            f"{difference.customer_id}: `{difference.feature}` is {difference.online!r} in Redis, {difference.offline!r} offline"
        )
    if len(found.differences) > SHOWN:
        print(f"... and {len(found.differences) - SHOWN} more")
    print(f"{found.customers} customers, {found.values} values: {len(found.differences)} differ, {found.stale} past their age")
    return 1 if found.differences else 0


def _show(line: str, counts: dict[str, int], home: Path) -> int:
    for view, count in counts.items():
        print(line.format(view=view, count=count))
    if not counts:
        print(f"no offline tables - at `{home / 'features' / 'offline'}`")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nextbest features", description="Customer features: definitions, copies, proof.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("apply", help="make Feast's registry say what features.yaml says")
    copying = verbs.add_parser("materialize", help="work out what transactions say, and copy the latest offline values to Redis")
    copying.add_argument("--at", type=_moment, default=None, metavar="MOMENT", help="as of when, RFC 3339 (default now)")
    checker = verbs.add_parser("check", help="compare Redis with the offline tables, value for value")
    checker.add_argument("--sample", type=_count, default=500, help="how many customers to compare (default 500)")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"Expected a number of customers, 1 or more, got `{text}`")
    return int(text)


def _moment(text: str) -> dt.datetime:
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"Expected a moment such as `2026-01-31T09:00:00Z`, got `{text}`") from error
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
