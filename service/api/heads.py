"""What the head of a request says: whose turn it is, how long all of it is, and, where it is known, what the parser made of it.

A client's heads are alike. What was learned of one holds for the next that is the same, byte for byte.
"""

from service.api.door import Asked

OUTCOMES, RECOMMEND, EVENTS, BULK = "outcomes", "recommend", "events", "bulk"
PRIORITIES = {  # by the first bytes of a request; what is not here is always let in
    b"POST /out": OUTCOMES, b"POST /con": OUTCOMES, b"POST /rec": RECOMMEND, b"POST /eve": EVENTS, b"POST /ide": EVENTS,
}  # fmt: skip
FIRST_BYTES = 9
LARGE_BYTES = 65_536  # bodies that count as bulk
MOST_DIGITS = 9  # of a length: a gigabyte is for the parser to refuse
SHORT_HEAD, KNOWN_HEADS = 1024, 1024  # bytes, and how many are remembered


def priority_of(method: str, path: str) -> str | None:
    """That of a request that the parser has read, apart from its size; None where it is always let in."""
    return PRIORITIES.get(f"{method} {path}"[:FIRST_BYTES].encode())


def content_length(head: bytes) -> int | None:
    """What a request says of the length of its body; None where that is for the parser to judge."""
    spelt = head.lower()
    _, found, rest = spelt.partition(b"\r\ncontent-length:")
    is_plain = (
        spelt.count(b"content-length") == 1 and b"transfer-encoding" not in spelt and spelt.count(b"\n") == spelt.count(b"\r")
    )
    if not (found and is_plain):
        return None  # read otherwise than the parser does, the rest of a body would be taken for a request
    value = rest.partition(b"\r\n")[0].strip()
    return int(value) if value.isdigit() and len(value) <= MOST_DIGITS else None


def size_of(data: bytes) -> int | None:
    """How long a request that begins here is, head and body; None where that is for the parser to judge."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = content_length(data[: end + 2])
    return None if length is None else end + 4 + length


class Head:
    """One that is not new. `asked`: what the parser made of it, once it has, where all such requests go the shorter way."""

    __slots__ = ("asked", "data", "priority")

    def __init__(self, data: bytes, priority: str) -> None:
        self.data, self.priority = data, priority
        self.asked: Asked | None = None


class Heads:
    """Those of lately. To read one takes 1 us, and to know it 0.13."""

    def __init__(self) -> None:
        self._known: dict[int, Head] = {}  # by the size of a whole request

    def __len__(self) -> int:
        return len(self._known)

    def known(self, data: bytes) -> Head | None:
        """The head of a request that is whole, where it is not new."""
        head = self._known.get(len(data))
        return head if head is not None and data.startswith(head.data) else None

    def judged(self, data: bytes) -> tuple[str | None, bool]:
        """The priority of a request that begins like this, None where it is always let in; and whether this is all of it."""
        priority = PRIORITIES.get(data[:FIRST_BYTES])
        if priority is None:
            return None, False
        size = size_of(data)
        if priority is EVENTS and (size or 0) > LARGE_BYTES:
            priority = BULK
        if size == len(data):
            self._remember(data, priority)
        return priority, size == len(data)

    def _remember(self, data: bytes, priority: str) -> None:
        end = data.find(b"\r\n\r\n") + 4
        if end <= SHORT_HEAD:
            if len(self._known) >= KNOWN_HEADS:
                self._known.clear()
            self._known[len(data)] = Head(data[:end], priority)
