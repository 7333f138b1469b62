"""Which of its 16,384 slots Redis Cluster keeps a key in: that of the part in braces where it has one, else of all of it."""

from binascii import crc_hqx
from functools import cache
from itertools import count

SLOTS = 16_384


def slot_of(key: bytes) -> int:
    """CRC-16 (XMODEM), as the specification of Redis Cluster says."""
    begin = key.find(b"{")
    if begin >= 0:
        end = key.find(b"}", begin)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key, 0) % SLOTS


@cache
def slot_tags() -> tuple[str, ...]:
    """For each slot, a word that lies in it."""
    found: dict[int, str] = {}
    for number in count():
        tag = f"{number:x}"
        found.setdefault(slot_of(tag.encode()), tag)
        if len(found) == SLOTS:
            return tuple(found[slot] for slot in range(SLOTS))
    raise AssertionError  # count has no end
