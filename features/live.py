"""Features that events feed: what is kept of a customer's events, and the values that follow from it at any moment.

A state is bounded, and does not depend on the order in which events arrive: buckets add up, moments are the latest, lists keep
the newest. So late events count, two states of one person merge into one, and the same events give the same values offline.
Windows move in steps, at most 32 to a window: `24h` are the current hour and the 23 before it.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from features.contract import Contract, FromEvents, step_of
from features.walk import US, Entry, JourneyFeatures

MOST_TYPES = 1000  # of events that are remembered with who reads them
MOST_VALUES = 64  # distinct values that are told apart; more count as so many
MOST_IDS = 128  # events of a customer whose repetition is noticed here
DAY = 86_400.0
CHANNEL = "channel"  # every event has one, beside its properties

Property = float | str
State = dict[str, Any]  # by what is kept, see `_key`


class Event(NamedTuple):
    """What a customer did, as far as features go. `at`: seconds since 1970 UTC, not later than it was received."""

    event_id: str
    type: str
    at: float
    properties: Mapping[str, Property | bool]  # `channel` among them; a truth counts as 1 or 0


class Live(NamedTuple):
    """One feature, and how its state is kept."""

    name: str
    key: str
    source: FromEvents
    categories: frozenset[str]
    max_age: float
    step: float  # seconds in which its window moves
    steps: int  # of its window

    def reads(self, event: Event) -> Property | None:
        """What an event of its types adds: 1 to a count, a number to a sum, a value to the others; None where it adds nothing."""
        source = self.source
        if source.where and any(event.properties.get(name) != wanted for name, wanted in source.where.items()):
            return None
        if source.property is None:
            return 1.0
        value = event.properties.get(source.property)
        if isinstance(value, bool):
            value = float(value)
        if source.aggregate == "sum":
            return value if isinstance(value, float) and math.isfinite(value) else None
        return None if value is None else str(value) if source.aggregate == "distinct" else value


def live_journey(contract: Contract) -> JourneyFeatures | None:
    """What tells where in the journey somebody is; None where no feature does."""
    return JourneyFeatures(contract) if any(f.journey is not None for f in contract.live) else None


def live_features(contract: Contract) -> tuple[Live, ...]:
    """The features of a contract that events feed, but for those of the journey."""
    return tuple(
        Live(
            f.name, _key(f.events), f.events, frozenset(f.categories), f.max_age or math.inf,
            step := step_of(f.events.window or 0.0), round((f.events.window or 0.0) / step),
        )
        for f in contract.customer if f.events is not None
    )  # fmt: skip


def _key(source: FromEvents) -> str:
    """Names what is kept: two features that need the same share it, and a renamed one finds it again."""
    kept = msgspec.structs.replace(source, position=1) if source.aggregate == "recent" else source
    return hashlib.sha256(msgspec.json.encode(kept, order="sorted")).hexdigest()[:8]


IDS = "ids"
LAST = "last"  # when the newest event happened, of whatever type


class LiveFeatures:
    """Applies events to states and reads values from them. Pure: no clock, no store."""

    def __init__(self, contract: Contract) -> None:
        self.features = live_features(contract)
        self.names: tuple[str, ...] = tuple(f.name for f in contract.live)
        self._journey = live_journey(contract)
        self._kept = {one.key: one for one in self.features}
        self._lengths = _lengths(self.features)
        self._reading: dict[str, list[Live]] = {}  # by type of event, filled as types come

    def __bool__(self) -> bool:
        return bool(self.names)

    def apply(self, state: State, events: Iterable[Event]) -> State:
        """The state with these events added; those it has seen before change nothing. The given state is left as it is."""
        new = {key: _copied(kept) for key, kept in state.items()}
        ids: list[int] = new.setdefault(IDS, [])
        known = set(ids)
        steps: list[Entry] = []
        for event in events:
            hashed = hash_of(event.event_id)
            if hashed in known:
                continue
            known.add(hashed)
            ids.append(hashed)
            new[LAST] = max(new.get(LAST, event.at), event.at)
            for one in self._reading.get(event.type) or self._who_reads(event.type):
                read = one.reads(event)
                if read is not None:
                    new[one.key] = self._added(new.get(one.key), one, event, read)
            if self._journey is not None and (kind := self._journey.walk.kind(event.type, event.properties)):
                steps.append((round(event.at * US), hashed, kind))
        if self._journey is not None and steps:
            new[self._journey.key] = self._journey.added(new.get(self._journey.key), steps)
        del ids[:-MOST_IDS]
        return self._bounded(new)

    def _who_reads(self, kind: str) -> list[Live]:
        """Those that read events of a type."""
        found = [one for one in self._kept.values() if not one.source.types or kind in one.source.types]
        if len(self._reading) < MOST_TYPES:
            self._reading[kind] = found
        return found

    def _bounded(self, state: State) -> State:
        """Without what no later moment will read."""
        for key, one in self._kept.items():
            kept, source = state.get(key), one.source
            if isinstance(kept, dict):
                state[key] = _latest(kept) if source.aggregate == "distinct" else _within(kept, one.steps)
        return state

    def _added(self, kept: Any, one: Live, event: Event, read: Property) -> Any:  # noqa: ANN401  # each aggregate keeps its own
        source = one.source
        if source.half_life is not None:
            return _decayed(kept or [0.0, event.at], float(read), event.at, source.half_life)
        match source.aggregate:
            case "since_last":
                return max(kept if kept is not None else event.at, event.at)
            case "recent":
                return _newest([*(kept or []), [event.at, event.event_id, read]], self._lengths[one.key])
        bucket, found = int(event.at // one.step), {} if kept is None else kept
        if source.aggregate == "distinct":
            found[read] = max(bucket, found.get(read, bucket))
        else:
            found[bucket] = found.get(bucket, 0.0) + float(read)
        return found

    def merge(self, first: State, second: State) -> State:
        """One state of two that belong to the same person; no event may be in both."""
        merged: State = {IDS: [*first.get(IDS, []), *second.get(IDS, [])][-MOST_IDS:]}
        moments = [s[LAST] for s in (first, second) if LAST in s]
        if moments:
            merged[LAST] = max(moments)
        for key, one in self._kept.items():
            pair = [s[key] for s in (first, second) if key in s]
            if pair:
                merged[key] = _copied(pair[0]) if len(pair) == 1 else self._merged(one, *pair)
        if self._journey is not None:
            one_journey = self._journey.joined(first.get(self._journey.key), second.get(self._journey.key))
            merged |= {self._journey.key: one_journey} if one_journey else {}
        return self._bounded(merged)

    def _merged(self, one: Live, first: Any, second: Any) -> Any:  # noqa: ANN401  # each aggregate keeps its own
        source = one.source
        if source.half_life is not None:
            return _decayed(list(first), second[0], second[1], source.half_life)
        match source.aggregate:
            case "since_last":
                return max(first, second)
            case "recent":
                return _newest([*first, *second], self._lengths[one.key])
            case "distinct":
                return {**first, **{value: max(bucket, first.get(value, bucket)) for value, bucket in second.items()}}
        return {**first, **{bucket: first.get(bucket, 0.0) + amount for bucket, amount in second.items()}}

    def values(self, state: State, now: float) -> dict[str, Property]:
        """What the features say at a moment not before the newest event; a missing one is left out.

        A sum beyond the largest float is missing, too: no record could hold it.
        """
        found: dict[str, Property] = {}
        for one in self.features:
            value = _value(one, state.get(one.key), now)
            if one.categories:
                if value in one.categories:
                    found[one.name] = value
            elif value is not None and (type(value) is not float or math.isfinite(value)):
                found[one.name] = value
        if self._journey is not None:
            found |= self._journey.values(state.get(self._journey.key), now)
        return found


def _value(one: Live, kept: Any, now: float) -> Property | None:  # noqa: ANN401  # each aggregate keeps its own
    source = one.source
    if source.half_life is not None:
        return float(kept[0] * 0.5 ** ((now - kept[1]) / source.half_life)) if kept else 0.0
    match source.aggregate:
        case "since_last":
            return None if kept is None or now - kept > one.max_age else (now - kept) / DAY
        case "recent":
            if not kept or len(kept) < source.position or now - kept[source.position - 1][0] > one.max_age:
                return None
            value: Property = kept[source.position - 1][2]
            return value
    return _in_window(one, kept, int(now // one.step)) if kept else 0.0


def _in_window(one: Live, kept: Mapping[Any, Any], last: int) -> float:
    """What the buckets until the last one say."""
    first = last - one.steps  # the newest bucket that is too old
    if one.source.aggregate == "distinct":
        return float(sum([first < bucket <= last for bucket in kept.values()]))
    return float(sum([amount for bucket, amount in kept.items() if first < bucket <= last]))


def _decayed(kept: list[float], amount: float, at: float, half_life: float) -> list[float]:
    """An amount that halves every `half_life` seconds, as of the later of two moments."""
    value, moment = kept
    if at >= moment:
        return [value * 0.5 ** ((at - moment) / half_life) + amount, at]
    return [value + amount * 0.5 ** ((moment - at) / half_life), moment]


def _within(buckets: dict[int, float], most: int) -> dict[int, float]:
    """Without the buckets that no later moment will read."""
    if len(buckets) <= most:
        return buckets
    oldest = max(buckets) - most
    return {bucket: amount for bucket, amount in buckets.items() if bucket > oldest}


def _latest(values: dict[str, int]) -> dict[str, int]:
    """Of values and when each was last seen, the 64 that were seen latest."""
    if len(values) <= MOST_VALUES:
        return values
    return dict(sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_VALUES])


def _newest(entries: list[list[Any]], most: int) -> list[list[Any]]:
    """By moment, then by id, newest first."""
    return sorted(entries, key=lambda entry: (-entry[0], entry[1]))[:most]


def _lengths(features: Sequence[Live]) -> dict[str, int]:
    """How many entries each list keeps: as far back as any feature looks."""
    lengths: dict[str, int] = {}
    for one in features:
        if one.source.aggregate == "recent":
            lengths[one.key] = max(lengths.get(one.key, 1), one.source.position)
    return lengths


def _copied(kept: Any) -> Any:  # noqa: ANN401  # each aggregate keeps its own
    return dict(kept) if isinstance(kept, dict) else list(kept) if isinstance(kept, list) else kept


def hash_of(event_id: str) -> int:
    """56 bits that stand for an event's id."""
    return int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=7).digest(), "little")


encode_state: Callable[[State], bytes] = msgspec.msgpack.Encoder().encode
"""A state as bytes."""


def decode_state(data: bytes | None) -> State:
    """The inverse; nothing is an empty state. Raises msgspec.DecodeError where it is something else."""
    return msgspec.msgpack.decode(data, type=dict) if data else {}
