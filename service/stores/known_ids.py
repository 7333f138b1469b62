"""Which ids were seen: a bounded memory of 64-bit hashes."""

from collections.abc import Iterable
from hashlib import blake2b

import msgspec

GENERATION = 250_000  # ids; two generations of 64-bit integers in sets are about 35 MB when full


class KnownIds:
    """Remembers at least the last `generation` ids, at most twice as many. A false yes has odds of 1 in 10^13."""

    def __init__(self, generation: int = GENERATION) -> None:
        self._generation = generation
        self._young: set[int] = set()
        self._old: set[int] = set()

    def __contains__(self, hashed: int) -> bool:
        return hashed in self._young or hashed in self._old

    def add(self, hashed: Iterable[int]) -> None:
        for one in hashed:
            self._young.add(one)
            if len(self._young) >= self._generation:
                self._old, self._young = self._young, set()


def hash_id(name: str) -> int:
    """64 bits of an id."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


class _FirstField(msgspec.Struct):
    decision_id: str = ""
    outcome_id: str = ""
    event_id: str = ""


_decoder = msgspec.json.Decoder(_FirstField)


def id_of(payload: bytes, field: str) -> str:
    """The id of a record, which is its first field. Reads no further where the id has no escape: 0.3 us against 4 us."""
    start = b'{"%b":"' % field.encode()
    if payload.startswith(start):
        raw, quote, _ = payload[len(start) :].partition(b'"')
        if quote and b"\\" not in raw:
            return raw.decode()
    name: str = getattr(_decoder.decode(payload), field)
    return name
