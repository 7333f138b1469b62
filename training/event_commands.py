"""`nextbest ingest | rebuild`, and `nextbest features`, whose check also compares what events have fed."""

import argparse
import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from features.commands import SHOWN
from features.commands import main as batch_features
from features.contract import LIVE_VIEW
from features.homes import home_contract
from features.layout import CustomerLayout, timestamp_field
from features.live import LiveFeatures
from features.live_offline import disagreement, event_table, live_values
from features.protobuf import decode_timestamp
from features.redis_server import resolve_redis
from service.stores.redis_link import RedisLink
from service.stores.resp import encode
from training.event_history import fed, read_events
from training.ingest import ingest
from training.progress import progress_bar
from training.rebuild import rebuild

SAMPLE = 500
TIMEOUT_MS = 60_000.0


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:
    """Exit code: 0 done, 1 where online and offline differ. Errors are raised for the command line to tell."""
    if argv[0] == "features":
        return _features(argv, home, redis_url)
    options = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace, Path, str], int] = options.run
    with resolve_redis(redis_url, home) as url:
        return run(options, home, url)


def _ingest(options: argparse.Namespace, home: Path, url: str) -> int:
    started = time.perf_counter()
    with progress_bar(f"Ingesting {options.file.name}") as tell:
        found = ingest(home, url, options.file, options.mapping, now=time.time(), progress=tell)
    seconds = time.perf_counter() - started
    print(f"{found.rows:,} rows in {seconds:.1f} s: {found.accepted:,} new events, {found.duplicates:,} known before")
    if found.undeclared:
        print(f"{found.undeclared:,} of them are of types that events.yaml does not declare: kept, and feeding nothing")
    if found.quarantined:
        print(f"{found.quarantined:,} were set aside with their reasons - at `{home / 'log' / 'quarantine'}`")
    return 0


def _rebuild(options: argparse.Namespace, home: Path, url: str) -> int:  # noqa: ARG001  # every verb is called alike
    with progress_bar("Rebuilding") as tell:
        found = rebuild(home, url, tell)
    print(
        f"in Redis again after {found.seconds:.1f} s: features of {found.features:,} customers, {found.events:,} events of "
        f"{found.customers_of_events:,}, contacts with {found.contacts:,}, {found.budgets} budgets"
    )
    return 0


def _features(argv: Sequence[str], home: Path, redis_url: str | None) -> int:
    code = batch_features(argv, home=home, redis_url=redis_url)
    if argv[1:2] != ["check"] or not home_contract(home).live:
        return code
    with resolve_redis(redis_url, home) as url:
        differences, customers = live_differences(home, url, SAMPLE)
    for difference in differences[:SHOWN]:
        print(difference)
    names = len(home_contract(home).live)
    print(f"{customers} customers, {customers * names} values that events fed: {len(differences)} differ")
    return 1 if differences else code


def live_differences(home: Path, redis_url: str, sample: int) -> tuple[list[str], int]:
    """What Redis has in Feast's layout against DuckDB over all events, as of each customer's last one; customers compared."""
    contract = home_contract(home)
    events = fed(read_events(home))
    everybody = sorted({customer for customer, _ in events})
    customers = random.Random(0).sample(everybody, min(sample, len(everybody)))  # noqa: S311  # a repeatable sample, no secret
    layout, stamp = CustomerLayout(contract), timestamp_field(LIVE_VIEW)
    replies = asyncio.run(_replies(redis_url, [layout.key(c) for c in customers], [*layout.fields, stamp]))
    moments = [decode_timestamp(reply[-1]) if reply[-1] else 0.0 for reply in replies]
    online = [layout.decode(reply[:-1], 0.0).values for reply in replies]
    wanted = set(customers)
    table = event_table([(customer, event) for customer, event in events if customer in wanted], contract)
    # a moment in Redis has whole microseconds: the last event must not lie after it
    asked = pa.table({"customer_id": pa.array(customers, pa.string()), "at": pa.array([m + 1e-6 for m in moments], pa.float64())})
    offline = live_values(contract, table, asked).to_pylist()
    features = LiveFeatures(contract).features
    found = [
        f"{customer}: `{one.name}` is {mine.get(one.name)!r} in Redis, {other.get(one.name)!r} offline"
        for customer, mine, other in zip(customers, online, offline, strict=True)
        for one in features if disagreement(mine, other, one)
    ]  # fmt: skip
    return found, len(customers)


async def _replies(redis_url: str, keys: Sequence[bytes], fields: Sequence[bytes]) -> list[Sequence[bytes | None]]:
    link = RedisLink(redis_url, timeout_ms=TIMEOUT_MS)
    try:
        return list(await link.ask(b"".join(encode("HMGET", key, *fields) for key in keys), len(keys)))
    finally:
        await link.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nextbest")
    verbs = parser.add_subparsers(dest="verb", required=True)
    purpose = "take in a history of events"
    ingesting = verbs.add_parser("ingest", help=purpose, description=purpose)
    ingesting.add_argument("file", type=Path, metavar="FILE", help="JSON lines, CSV or Parquet, .gz too")
    ingesting.add_argument("--mapping", type=Path, metavar="FILE", help="which name means what (TOML), where they differ")
    ingesting.set_defaults(run=_ingest)
    purpose = "put everything into Redis again, from log, lake and offline tables"
    rebuilding = verbs.add_parser("rebuild", help=purpose, description=purpose)
    rebuilding.set_defaults(run=_rebuild)
    return parser
