"""The newest records of the log, and those that come."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from service.decision.records import decode_lines
from training.sealing import log_segments

POLL_S = 0.25

Told = tuple[str, bytes]  # kind, record


def latest(home: Path, kinds: Sequence[str], count: int) -> Iterator[Told]:
    """The last so many readable records of each kind that are in segments, oldest first."""
    for kind in kinds:
        newest: deque[bytes] = deque(maxlen=count)
        for path in reversed(log_segments(home, kind)):
            lines = [line.payload for line in decode_lines(path.read_bytes()) if line.payload is not None]
            newest.extendleft(reversed(lines[max(0, len(lines) - (count - len(newest))) :]))
            if len(newest) >= count:
                break
        yield from ((kind, record) for record in newest)


def follow(home: Path, kinds: Sequence[str], pause: Callable[[float], object] = time.sleep) -> Iterator[Told]:
    """What comes from now on, as soon as its line has an end; for ever."""
    ends = {path: path.stat().st_size for kind in kinds for path in log_segments(home, kind)}
    while True:
        for kind in kinds:
            for path in log_segments(home, kind):
                begin = ends.get(path, 0)
                if path.stat().st_size > begin:
                    whole = _lines_from(path, begin)
                    ends[path] = begin + len(whole)
                    yield from ((kind, line.payload) for line in decode_lines(whole) if line.payload is not None)
        pause(POLL_S)


def _lines_from(path: Path, begin: int) -> bytes:
    with path.open("rb") as segment:
        segment.seek(begin)
        data = segment.read()
    return data[: data.rfind(b"\n") + 1]
