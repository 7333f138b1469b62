"""Reading a document value by value, collecting every mistake with its place instead of stopping at the first."""

import datetime as dt
import math
import re
import sys
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from features.contract import ContractError, seconds
from service.errors import nearest

LONGEST_ID = 128
LONGEST_WINDOW = 3653 * 86_400.0  # ten years
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
LARGEST = sys.float_info.max


class Problems:
    """Mistakes, each `where: line N: Expected ..., got ... - at path`. `lines` is empty for documents without them.

    `is_new`: the document is to be published; else it was once, and what was let pass then still is.
    """

    def __init__(self, where: str, lines: Mapping[str, int], *, is_new: bool = False) -> None:
        self.found: list[str] = []
        self.is_new = is_new
        self._where = where
        self._lines = lines

    def add(self, path: str, message: str) -> None:
        line = f"line {self._lines[path]}: " if path in self._lines else ""
        self.found.append(f"{self._where}: {line}{message} - at `{path or '$'}`")


class Place:
    """A value and where it stands. Reading it as what it is not adds a problem and gives a stand-in."""

    def __init__(self, value: Any, path: str, problems: Problems) -> None:  # noqa: ANN401  # what a document may hold
        self.value = value
        self.path = path
        self._problems = problems

    def refuse(self, expected: str, got: object = None) -> None:
        self._problems.add(self.path, f"Expected {expected}, got `{self.value if got is None else got}`")

    def refuse_new(self, expected: str, got: object = None) -> None:
        """A problem of what is to be published: formerly it passed."""
        if self._problems.is_new:
            self.refuse(expected, got)

    def refuse_with(self, message: str) -> None:
        """A problem that somebody else put into words."""
        self._problems.add(self.path, message)

    def fields(self, known: Collection[str], required: Collection[str] = ()) -> dict[str, "Place"]:
        """The entries of a mapping: unknown keys and missing ones are problems."""
        entries = self.entries()
        for key in entries.keys() - set(known):
            entries[key].refuse(f"a known key{nearest(key, list(known))}", key)
        for key in required:
            if key not in entries:
                self._problems.add(self.path, f"Expected key `{key}`, got none")
        return {key: place for key, place in entries.items() if key in known}

    def entries(self) -> dict[str, "Place"]:
        """The entries of a mapping with keys of any name."""
        if not isinstance(self.value, Mapping):
            self.refuse("a mapping")
            return {}
        return {k: Place(v, f"{self.path}.{k}" if self.path else str(k), self._problems) for k, v in self.value.items()}

    def items(self) -> list["Place"]:
        """The items of a list."""
        if not isinstance(self.value, Sequence) or isinstance(self.value, str):
            self.refuse("a list")
            return []
        return [Place(v, f"{self.path}[{i}]", self._problems) for i, v in enumerate(self.value)]

    def at_least_one(self) -> list["Place"]:
        """The items of a list that must not be empty."""
        if self.value == []:
            self.refuse("at least one", "none")
        return self.items()

    def is_mapping(self) -> bool:
        """Whether it is one; a problem where it is not."""
        if not isinstance(self.value, Mapping):
            self.refuse("a mapping")
            return False
        return True

    def text(self) -> str:
        """A name: any text without control characters."""
        if not isinstance(self.value, str) or not 0 < len(self.value) <= LONGEST_ID or any(map(_is_control, self.value)):
            self.refuse(f"a text of 1 to {LONGEST_ID} characters, none a control character")
            return ""
        return self.value

    def number(self, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number within bounds, both included."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not abs(self.value) <= LARGEST:
            self.refuse("a finite number")
            return max(low, 0.0)
        if not low <= self.value <= high:
            self.refuse(f"a number {_bounds(low, high)}")
        return float(self.value)

    def whole(self, low: int, high: int) -> int:
        """A whole number within bounds, both included."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not low <= self.value <= high:
            self.refuse(f"a whole number {_bounds(low, high)}")
            return low
        return self.value

    def choice(self, known: Sequence[str]) -> str:
        """One of a few words."""
        if self.value not in known:
            self.refuse(f"one of {', '.join(f'`{k}`' for k in known)}")
            return known[0]
        return str(self.value)

    def texts(self) -> tuple[str, ...]:
        """One name, or a list of at least one."""
        if isinstance(self.value, str):
            return (self.text(),)
        if self.value == []:
            self.refuse_new("at least one", "none")
        return tuple(item.text() for item in self.items())

    def truth(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            self.refuse("`true` or `false`")
            return False
        return self.value

    def new_text(self) -> str:
        """A name; in what was published once, whatever there is."""
        return self.text() if self._problems.is_new else str(self.value)

    def duration(self) -> float:
        """`30 min`, `24h` or `7d`, as seconds."""
        try:
            length = seconds(str(self.value))
        except ContractError:
            length = 0.0
        if not 0.0 < length <= LONGEST_WINDOW:
            self.refuse("a duration such as `30 min`, `24h` or `7d`, at most ten years")
            return LONGEST_WINDOW
        return length

    def hour(self) -> float:
        """`21:30` as 21.5 hours."""
        match = CLOCK.fullmatch(str(self.value))
        if match is None:
            self.refuse("an hour such as `21:30`, in quotes")
            return 0.0
        return int(match[1]) + int(match[2]) / 60

    def moment(self) -> float | None:
        """A date or RFC 3339 time, as seconds since 1970 UTC; a date is its first moment in UTC."""
        expected, text = "a date such as `2026-01-31` or a time such as `2026-01-31T09:00:00Z`", str(self.value)
        try:
            moment = dt.datetime.fromisoformat(text)
        except ValueError:
            self.refuse(expected)
            return None
        if DATE.fullmatch(text) is None and (moment.tzinfo is None or DATE.match(text) is None):
            self.refuse_new(expected)
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cs"}


def _bounds(low: float, high: float) -> str:
    return f"from {low:.12g} to {high:.12g}" if math.isfinite(high) else f"of at least {low:.12g}"


def unique(places: Sequence[tuple[str, Place]], what: str) -> Iterator[tuple[str, Place]]:
    """The named places; a name that comes again is a problem, and is still checked."""
    seen: set[str] = set()
    for name, place in places:
        if name and name in seen:
            place.refuse(f"each {what} once", name)
        seen.add(name)
        yield name, place
