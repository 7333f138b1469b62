"""Forgetting a customer: out of Redis, and written down, so that nothing that reads the log counts what was before."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from features.contract import Contract
from features.homes import home_contract
from features.layout import CustomerLayout
from service.decision.records import AlertRaised, ErasureRecord
from service.ids import customer_key
from service.stores.alert_stream import RedisAlerts
from service.stores.aliases import alias_key, aliases_key
from service.stores.consents import consents_key
from service.stores.contact_history import contacts_key
from service.stores.erasures import erased_command
from service.stores.identities import joined_key
from service.stores.links import open_link
from service.stores.live_features import live_key
from service.stores.resp import encode
from training.alerts import read_alerts
from training.event_history import ERASURES, read_aliases, read_erasures
from training.live_log import write_segment

AT_ONCE = 1000  # customers in a round trip
TIMEOUT_MS = 60_000.0


def erase(home: Path, redis_url: str, name: str, now: float) -> tuple[str, ...]:
    """Forget a customer, under whichever of their ids. Returns all of them, the customer's first.

    What they do from now on is of somebody who is new. Log and lake keep their lines, which nothing that learns or rebuilds
    reads any more. Raises DependencyFailed, with nothing written down: then it must be asked for again.
    """
    aliases, contract = read_aliases(home), home_contract(home)
    customer = aliases.get(name, name)
    ids = (customer, *sorted(alias for alias, leads_to in aliases.items() if leads_to == customer))
    records = [ErasureRecord(one, now) for one in ids]
    asyncio.run(_forget(redis_url, records, contract, _alerts_about(home, ids)))
    write_segment(home, ERASURES, "erase", records, now)
    asyncio.run(_forget(redis_url, records, contract, _alerts_about(home, ids)))  # what has come, or was put back, meanwhile
    return ids


def forget_features(home: Path, redis_url: str) -> None:
    """Take away what a copy of tables to Redis has brought back of erased customers: values from until they were erased.

    The tables may hold it still: those that somebody wrote are theirs to change. Raises DependencyFailed.
    """
    erased = [*read_erasures(home).items()]
    if erased:
        asyncio.run(_forget_features(redis_url, erased, CustomerLayout(home_contract(home).batch)))


async def _forget_features(redis_url: str, erased: Sequence[tuple[str, float]], layout: CustomerLayout) -> None:
    link = open_link(redis_url, timeout_ms=TIMEOUT_MS)
    try:
        for start in range(0, len(erased) if layout.stamps() else 0, AT_ONCE):
            some = [(layout.key(name), until) for name, until in erased[start : start + AT_ONCE]]
            told = await link.ask(b"".join(encode("HMGET", key, *layout.stamps()) for key, _ in some), len(some))
            stale = [(key, layout.until(stamps, until)) for (key, until), stamps in zip(some, told, strict=True)]
            commands = [encode("HDEL", key, *fields) for key, fields in stale if fields]
            await link.ask(b"".join(commands), len(commands))
    finally:
        await link.close()


def _alerts_about(home: Path, ids: tuple[str, ...]) -> list[AlertRaised]:
    return [one.alert for one in read_alerts(home, forgotten=True).values() if one.alert.customer_id in ids]


async def _forget(redis_url: str, records: Sequence[ErasureRecord], contract: Contract, alerts: Sequence[AlertRaised]) -> None:
    link, layout = open_link(redis_url, timeout_ms=TIMEOUT_MS), CustomerLayout(contract.batch)
    ids, names = [record.customer_id for record in records], list[str | bytes]()
    for alias in ids[1:]:
        names += [alias_key(alias), joined_key(alias, ids[0])]
    for one in ids:
        names += [layout.key(one), live_key(one), contacts_key(customer_key(one)), consents_key(one), aliases_key(one)]
    try:
        marks = [erased_command(record.customer_id, record.at) for record in records]
        await link.ask(b"".join([*marks, *(encode("DEL", name) for name in names)]), len(marks) + len(names))
        await RedisAlerts(link).forget(alerts)
    finally:
        await link.close()
