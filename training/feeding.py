"""Features in Redis know the events of the lake: one process at a time feeds them, and a mark says that it has not ended.

Whoever was killed between the lake and Redis leaves the mark. The same events cannot be fed again, since a state knows only the
latest ids of a customer: states are worked out from all events instead. The log knows an event before Redis does. So the marks of
states are read first, then the log, and a state is written only where its mark is still the same: what came in between has moved
it, and that customer is taken once more.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from multiprocessing import parent_process
from pathlib import Path

from features.homes import features_folder, home_contract
from features.live import Event, LiveFeatures
from service.errors import DependencyFailed
from service.files import DISK, locked, put_file
from service.stores.links import Link
from service.stores.live_features import MARK, LiveUpdates, live_key
from service.stores.resp import encode
from training.event_history import fed, read_aliases, read_erasures, read_events

AT_ONCE = 1000  # customers in a round trip
ROUNDS = 20


@contextlib.contextmanager
def only_feeder(home: Path) -> Iterator[None]:
    """One process at a time adds to the lake and feeds from it, or puts states back; others wait."""
    with locked(features_folder(home) / "feeding.lock"):
        with locked(_parts_lock(home)):
            pass  # somebody who was killed may have left processes behind: they come to their end first
        yield


@contextlib.contextmanager
def part_of_feeding(home: Path) -> Iterator[bool]:
    """For the processes of the only feeder: whether it is still there; if so, the next one waits for this."""
    with locked(_parts_lock(home), shared=True):
        parent = parent_process()
        yield parent is None or parent.is_alive()


def _parts_lock(home: Path) -> Path:
    return features_folder(home) / "feeding.parts.lock"


def _unfed(home: Path) -> Path:
    return features_folder(home) / "unfed"


def has_unfed(home: Path) -> bool:
    """Whether the lake may have events that features in Redis do not know."""
    return _unfed(home).exists()


def set_unfed(home: Path) -> None:
    """From now on, until `set_fed`. On disk when this returns."""
    put_file(DISK, _unfed(home), b"")


def set_fed(home: Path) -> None:
    """Features know everything. A power loss may take this back: then states are put back once more."""
    _unfed(home).unlink(missing_ok=True)


async def put_back(home: Path, link: Link) -> tuple[int, int]:
    """Put states back from all events, while the service goes on; how many events, and of how many customers.

    For the only feeder. Raises DependencyFailed.
    """
    contract = home_contract(home)
    live, updates = LiveFeatures(contract), LiveUpdates(link, contract)
    if not live:
        set_fed(home)
        return 0, 0
    everybody = set(_by_customer(home))
    waiting, count = everybody | set(read_erasures(home)) | set(read_aliases(home)), 0
    for _ in range(ROUNDS):
        marks = await _marks(link, sorted(waiting))
        events = {customer: some for customer, some in _by_customer(home).items() if customer in waiting}
        count = count or sum(map(len, events.values()))
        for some in _slices(sorted(waiting - events.keys())):  # erased, and nothing came since; aliases: their customers have it
            await updates.remove({c: marks[c] for c in some if marks[c]})
        waiting = set(events)
        for some in _slices(sorted(events)):
            waiting -= {*await updates.write({c: (marks[c], live.apply({}, events[c])) for c in some})}
        if not waiting:
            set_fed(home)
            return count, len(everybody)
    raise DependencyFailed(f"Expected states to stay as they are for a moment, found {len(waiting)} that never did")


def _by_customer(home: Path) -> dict[str, list[Event]]:
    found: defaultdict[str, list[Event]] = defaultdict(list)
    for customer, event in fed(read_events(home), read_aliases(home)):
        found[customer].append(event)
    return found


async def _marks(link: Link, customers: Sequence[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for some in _slices(customers):
        commands = b"".join(encode("GETRANGE", live_key(c), "0", str(MARK - 1)) for c in some)
        found |= dict(zip(some, await link.ask(commands, len(some)), strict=True))
    return found


def _slices(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE))
