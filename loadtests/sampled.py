"""`python -m loadtests.sampled FILE ARGUMENTS...`: `nextbest` with these arguments, which tells where its processor time goes.

Every four milliseconds of processor time a signal looks at what is being worked on. SIGUSR1 writes what was seen to FILE and
begins anew. A stage is where the innermost frame is that belongs to one; C code belongs to whoever calls it.
"""

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

from service.cli import main as nextbest

EVERY_S = 0.004  # the tick of a kernel with 250 in a second: a timer of 2 ms rang 257 times in a second
LOOP = "event loop, sockets, kernel"
STAGES = {  # by what a path contains; the first that fits
    "HTTP: parse, admit, render, encode": ("/service/api/", "/uvicorn/protocols/"),
    "batches, metrics, claims' bookkeeping": (
        "/service/pipeline.py", "/service/booking.py", "/service/claims.py", "/service/metrics.py",
    ),
    "requests to the decision's terms": ("/service/asks.py", "/service/ids.py", "/features/request_time.py"),
    "customers read: ask, decode": ("/service/stores/customer_reader.py", "/features/layout.py", "/features/protobuf.py"),
    "contacts claimed": ("/service/stores/contact_history.py", "/service/stores/budgets.py"),
    "Redis protocol": ("/service/stores/redis_link.py", "/service/stores/resp.py"),
    "log: encode, hand over": (
        "/service/stores/segment", "/service/stores/known_ids.py", "/service/stores/id_index.py", "/service/decision/again.py",
    ),
    "rules": ("/service/decision/eligibility.py", "/service/decision/conditions.py", "/service/catalog/"),
    "contact policy": ("/service/decision/contact", "/service/decision/past.py", "/service/decision/limits.py"),
    "scoring": ("/service/bundles/", "/features/vectors.py", "/service/decision/scoring.py"),
    "worth, exploration, slates": (
        "/service/decision/arbitration.py", "/service/decision/worth.py", "/service/decision/slates.py",
        "/service/decision/experiments.py",
    ),
    "board and record": ("/service/decision/",),
}  # fmt: skip
OTHERS = "log: the thread that writes"


class Seen(NamedTuple):
    """Samples by stage; seconds of processor time of the main thread, and of all."""

    samples: dict[str, int]
    main_s: float
    process_s: float


class Sampler:
    """Counts what is being worked on."""

    def __init__(self, told: Path) -> None:
        self._told = told
        self._known: dict[CodeType, str | None] = {}
        self._begin()

    def start(self) -> None:
        """From now on."""
        signal.signal(signal.SIGPROF, self._look)
        signal.signal(signal.SIGUSR1, self._tell)
        signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)

    def _begin(self) -> None:
        self._samples: Counter[str] = Counter()
        self._main, self._process = time.thread_time(), time.process_time()

    def _look(self, _number: int, frame: FrameType | None) -> None:
        while frame is not None:
            code = frame.f_code
            if code not in self._known:
                self._known[code] = stage_of(code.co_filename)
            if (stage := self._known[code]) is not None:
                self._samples[stage] += 1
                return
            frame = frame.f_back
        self._samples[LOOP] += 1

    def _tell(self, _number: int, _frame: FrameType | None) -> None:
        seen = Seen(dict(self._samples), time.thread_time() - self._main, time.process_time() - self._process)
        unfinished = self._told.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(seen))
        unfinished.replace(self._told)
        self._begin()


def stage_of(path: str) -> str | None:
    """The stage that a file belongs to; None where its caller has to be asked."""
    return next((stage for stage, parts in STAGES.items() if any(part in path for part in parts)), None)


def main(argv: Sequence[str]) -> int:
    """Serve, and be looked at."""
    Sampler(Path(argv[0])).start()
    return nextbest(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
