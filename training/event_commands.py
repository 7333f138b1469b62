"""`nextbest rebuild | unlink`, and `nextbest features` with what the log adds to it: transactions, what events fed."""

import argparse
import asyncio
import datetime as dt
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from features.commands import SHOWN, parse
from features.commands import main as batch_features
from features.contract import LIVE_VIEW
from features.homes import home_contract
from features.layout import CustomerLayout, timestamp_field
from features.live import Event
from features.live_offline import disagreement, event_table, live_values
from features.protobuf import decode_timestamp
from features.redis_server import resolve_redis
from service.stores.links import open_link
from service.stores.resp import encode
from training.attribution import ids_kept_s
from training.erasing import forget_features
from training.event_history import fed, read_aliases, read_events
from training.progress import progress_bar
from training.reaching import TIMEOUT_MS, reach
from training.rebuild import rebuild, unlink
from training.transactions import add_snapshot

SAMPLE = 500


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:
    """Exit code: 0 done, 1 where online and offline differ. Errors are raised for the command line to tell."""
    if argv[0] == "features":
        return _features(argv, home, redis_url)
    if argv[0] == "unlink":
        return _unlink(argv, home, redis_url)
    purpose = "Put everything into Redis again, from log, lake and offline tables."
    argparse.ArgumentParser(prog="nextbest rebuild", description=purpose).parse_args(argv[1:])
    with resolve_redis(redis_url, home) as url:
        code = _rebuild(home, url)
    if redis_url is None:
        print("that Redis is the home's own, and ends with who uses it: where a service had lost it, start the service anew")
    return code


def _rebuild(home: Path, url: str) -> int:
    asyncio.run(reach(url))
    with progress_bar("Rebuilding") as tell:
        found = rebuild(home, url, tell, ids_kept_s=ids_kept_s())
    print(
        f"in Redis again after {found.seconds:.1f} s: features of {found.features:,} customers, {found.events:,} events of "
        f"{found.customers_of_events:,}, contacts with {found.contacts:,}, {found.budgets} budgets, "
        f"{found.alerts:,} open alerts"
    )
    return 0


def _unlink(argv: Sequence[str], home: Path, redis_url: str | None) -> int:
    purpose = "An alias is a customer of its own again: events and contacts go back to whom they came from."
    parser = argparse.ArgumentParser(prog="nextbest unlink", description=purpose)
    parser.add_argument("alias", metavar="ALIAS")
    alias = parser.parse_args(argv[1:]).alias
    with resolve_redis(redis_url, home) as url, progress_bar("Rebuilding") as tell:
        asyncio.run(reach(url))
        customer = unlink(home, url, alias, time.time(), tell, ids_kept_s=ids_kept_s())
    print(f"`{alias}` is not `{customer}` any more")
    return 0


def _features(argv: Sequence[str], home: Path, redis_url: str | None) -> int:
    options = parse(argv)
    if options.verb == "materialize":
        _add_snapshot(home, time.time() if options.at is None else options.at.timestamp())
    code = batch_features(argv, home=home, redis_url=redis_url)
    if options.verb == "materialize" and not code:
        with resolve_redis(redis_url, home) as url:
            forget_features(home, url)
    if argv[1:2] != ["check"] or not home_contract(home).live:
        return code
    with resolve_redis(redis_url, home) as url:
        differences, customers = live_differences(home, url, SAMPLE)
    for difference in differences[:SHOWN]:
        print(difference)
    names = len(home_contract(home).live)
    print(f"{customers} customers, {customers * names} values that events fed: {len(differences)} differ")
    return 1 if differences else code


def _add_snapshot(home: Path, at: float) -> None:
    """What transactions say goes first into the offline tables, and from there to Redis with the rest."""
    found = add_snapshot(home, at)
    for problem in found.problems if found else ():
        print(problem)


def live_differences(home: Path, redis_url: str, sample: int) -> tuple[list[str], int]:
    """What Redis has in Feast's layout against DuckDB over all events, as of each customer's last one there; customers compared.

    A customer whose last event Redis does not know is a difference, too.
    """
    contract = home_contract(home)
    events = fed(read_events(home), read_aliases(home))
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
    found = _unknown(customers, moments, events)
    found += [
        f"{customer}: `{one.name}` is {mine.get(one.name)!r} in Redis, {other.get(one.name)!r} offline"
        for customer, mine, other in zip(customers, online, offline, strict=True)
        for one in contract.live if disagreement(mine, other, one)
    ]  # fmt: skip
    return found, len(customers)


def _unknown(customers: Sequence[str], moments: Sequence[float], events: Sequence[tuple[str, Event]]) -> list[str]:
    """Of whom the last event is newer than what Redis was told last, at these moments."""
    last: dict[str, float] = {}
    for customer, event in events:
        last[customer] = max(event.at, last.get(customer, event.at))
    return [
        f"{customer}: the event of {dt.datetime.fromtimestamp(last[customer], dt.UTC):%Y-%m-%dT%H:%M:%SZ} is not known in Redis"
        for customer, moment in zip(customers, moments, strict=True) if last[customer] > moment + 1e-6
    ]  # fmt: skip


async def _replies(redis_url: str, keys: Sequence[bytes], fields: Sequence[bytes]) -> list[Sequence[bytes | None]]:
    link = open_link(redis_url, timeout_ms=TIMEOUT_MS)
    try:
        return list(await link.ask(b"".join(encode("HMGET", key, *fields) for key in keys), len(keys)))
    finally:
        await link.close()
