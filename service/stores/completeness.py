"""Whether Redis holds all it should: a mark that goes with everything else when somebody empties it.

Without the mark, what Redis does not know may have happened all the same: caps count as reached, consents as denied, and
features that events feed are missing, until `nextbest rebuild` is through. Where nothing was ever written down there is nothing
to miss. In a cluster each slot has a mark of its own, which goes and moves with it: what a node has lost is doubted, and no more.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from service.stores.links import Link
from service.stores.resp import encode
from service.stores.slots import slot_of, slot_tags

COMPLETE = "nb:complete:2"  # the number changes with the names of keys: what lies under earlier ones is not found
AT_ONCE = 1000  # marks in a round trip
INGESTED = "lake/events"
WRITTEN = (
    "log/decisions", "log/outcomes", "log/events", "log/identities", "log/consents", INGESTED, "lake/decisions/manifests",
    "lake/outcomes/manifests", "lake/identities/manifests", "lake/consents/manifests",
)  # fmt: skip
ELSEWHERE = "lake.url"  # the lake lies elsewhere: what is in it is not asked for at every start


def nothing_written(home: Path, but: str | None = None) -> bool:
    """Whether nothing has happened that Redis could have forgotten, but for what lies in one of the folders."""
    kinds = [kind for kind in WRITTEN if kind != but]
    return not (home / ELSEWHERE).exists() and not any(path.is_file() for kind in kinds for path in (home / kind).rglob("*"))


def mark_of(link: Link, key: str) -> str:
    """The mark that goes when a key is lost with everything around it."""
    return f"{COMPLETE}:{{{slot_tags()[slot_of(key.encode())]}}}" if link.has_slots else COMPLETE


def _all_marks(link: Link) -> Iterator[Sequence[str]]:
    """Every mark that a complete Redis has, in parts."""
    marks = [f"{COMPLETE}:{{{tag}}}" for tag in slot_tags()] if link.has_slots else [COMPLETE]
    return (marks[start : start + AT_ONCE] for start in range(0, len(marks), AT_ONCE))


async def is_complete(link: Link) -> bool:
    """Whether no mark is missing. Raises DependencyFailed."""
    for some in _all_marks(link):
        if None in await link.ask(b"".join(encode("GET", mark) for mark in some), len(some)):
            return False
    return True


async def set_complete(link: Link) -> None:
    """From now on, what Redis does not know has not happened. Raises DependencyFailed."""
    for some in _all_marks(link):
        await link.ask(b"".join(encode("SET", mark, "1") for mark in some), len(some))
