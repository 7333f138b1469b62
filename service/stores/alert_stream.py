"""Alerts in Redis: a stream for whoever acts on them, and which customers have raised one lately. And their twin in memory."""

from collections.abc import Callable, Sequence

import msgspec

from service.decision.records import AlertRaised
from service.ids import customer_key
from service.stores.erasures import NEVER, ask_erased, until_in
from service.stores.links import Link
from service.stores.resp import encode

STREAM = "nb:alerts"
LONGEST = 100_000  # entries, about: 21 MB, and 12 MB for the marks of their ids; the oldest go, and stay in the log
MARKED_S = 30 * 86_400  # how long an id is remembered as sent
PAGE = 1_000  # entries that are looked through at once

# KEYS: the stream, the mark of this id. ARGV: seconds to keep the mark, most entries, then fields and values.
SEND = """
if not redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[1]) then return 0 end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', unpack(ARGV, 3))
return 1
"""
# KEYS: what holds a customer back. ARGV: the alert that lets go of it.
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1"

_json = msgspec.json.Encoder()


def held_key(alert: AlertRaised) -> str:
    """Holds the id of the alert that a customer raised last, as long as it may not be raised again."""
    return f"nb:alert:held:{alert.name}:{{{customer_key(alert.customer_id)}}}"


def sent_key(alert_id: str) -> str:
    """Says that an alert is in the stream, or was; it lies where the stream lies."""
    return f"nb:alert:sent:{{{STREAM}}}:{alert_id}"


def send_command(alert: AlertRaised) -> bytes:
    """One command that adds an alert to the stream; it answers 0 where its id was there before."""
    fields = msgspec.structs.asdict(alert) | {"at": f"{alert.at:.3f}", "because": _json.encode(alert.because).decode()}
    del fields["once_per"]
    pairs = [part for pair in fields.items() for part in pair]
    return encode("EVAL", SEND, "2", STREAM, sent_key(alert.alert_id), str(MARKED_S), str(LONGEST), *pairs)


def hold_commands(alert: AlertRaised, for_s: float) -> bytes:
    """Two commands; the reply to the second is the id that holds from now on: this one's, or an earlier one's."""
    key = held_key(alert)
    return encode("SET", key, alert.alert_id, "NX", "EX", str(max(1, round(for_s)))) + encode("GET", key)


class RedisAlerts:
    """The real thing."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def erased_until(self, customer_ids: Sequence[str]) -> list[float]:
        """Until when what was of each id is forgotten. Raises DependencyFailed."""
        return [*map(until_in, await self._link.ask(ask_erased(map(customer_key, customer_ids)), len(customer_ids)))]

    async def first(self, alerts: Sequence[AlertRaised]) -> list[bool]:
        """Whether each is a customer's first, or the same again. Raises DependencyFailed."""
        commands = b"".join(hold_commands(alert, alert.once_per or 0.0) for alert in alerts)
        replies = await self._link.ask(commands, 2 * len(alerts))
        return [holder == alert.alert_id.encode() for alert, holder in zip(alerts, replies[1::2], strict=True)]

    async def release(self, alerts: Sequence[AlertRaised]) -> None:
        """Hold nobody back for these. Raises DependencyFailed."""
        commands = [encode("EVAL", RELEASE, "1", held_key(alert), alert.alert_id) for alert in alerts]
        await self._link.ask(b"".join(commands), len(commands))

    async def publish(self, alerts: Sequence[AlertRaised]) -> None:
        """Add to the stream. Raises DependencyFailed."""
        await self._link.ask(b"".join(map(send_command, alerts)), len(alerts))

    async def forget(self, alerts: Sequence[AlertRaised]) -> None:
        """Take alerts out of the stream, and let their customers raise the same again. Raises DependencyFailed."""
        if not alerts:
            return
        held = b"".join(encode("DEL", held_key(alert)) for alert in alerts)
        await self._link.ask(held, len(alerts))
        start, ids = "-", {alert.alert_id.encode() for alert in alerts}
        while True:
            [page] = await self._link.ask(encode("XRANGE", STREAM, start, "+", "COUNT", str(PAGE)), 1)
            found = [entry for entry, fields in page if fields[1] in ids]  # its first field is the alert's id
            if found:
                await self._link.ask(encode("XDEL", STREAM, *found), 1)
            if len(page) < PAGE:
                return
            start = page[-1][0].decode()  # seen twice: servers before 6.2 know of no page that begins after an entry


class MemoryAlerts:
    """The twin in memory: what was sent is in `stream`. `clock` tells seconds since 1970 UTC."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.stream: dict[str, AlertRaised] = {}
        self.erased: dict[str, float] = {}  # by id, until when
        self._held: dict[str, tuple[str, float]] = {}
        self._clock = clock

    async def erased_until(self, customer_ids: Sequence[str]) -> list[float]:
        return [self.erased.get(name, NEVER) for name in customer_ids]

    async def first(self, alerts: Sequence[AlertRaised]) -> list[bool]:
        return [self._is_first(alert) for alert in alerts]

    def _is_first(self, alert: AlertRaised) -> bool:
        now, key = self._clock(), held_key(alert)
        holder, until = self._held.get(key, ("", 0.0))
        if until <= now:
            holder = alert.alert_id
            self._held[key] = (holder, now + (alert.once_per or 0.0))
        return holder == alert.alert_id

    async def release(self, alerts: Sequence[AlertRaised]) -> None:
        for alert in alerts:
            if self._held.get(held_key(alert), ("", 0.0))[0] == alert.alert_id:
                del self._held[held_key(alert)]

    async def publish(self, alerts: Sequence[AlertRaised]) -> None:
        for alert in alerts:
            self.stream.setdefault(alert.alert_id, alert)
