"""Row 8: twice, five and ten times as many requests as the server can answer, and how it is afterwards."""

import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import httpx
import uvloop

from tests.acceptance.flood import Flood, Seen
from tests.acceptance.open_loop import Call, call, percentile
from tests.acceptance.prepared import prepared_home
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.footprint import placement_of, resident_megabytes, serving

SECONDS = 4.0
ROUNDS = 3  # the machine is shared: the median of them
LONG_S = 10.0
GOODPUT = {2.0: 0.90, 5.0: 0.75, 10.0: 0.50}  # of capacity, by how many times too much
DEADLINE_S = 0.1
MOST_MEMORY = 50.0
NORMAL_WITHIN_S = 5.0
OUTCOMES_TAKEN = 0.999
PROBES, PROBE_S = (600.0, 20_000.0), 1.0  # requests a second between which the capacity lies
LESS = 0.6  # of the capacity that was found last: where the next search begins


def measure(context: Context) -> Measured:
    home = prepared_home(context)
    placement, told, holds = placement_of(home), list[str](), True
    with serving(home, context) as (process, url, _ready):
        address = httpx.URL(url)

        def flood(calls: Iterator[Call], per_second: float, seconds: float) -> list[Seen]:
            return uvloop.run(Flood(address.host, address.port or 80).run(calls, per_second, seconds))

        found = [_capacity(flood, placement, PROBES[0])]
        before = resident_megabytes(process.pid)
        seen: dict[float, list[_Round]] = {times: [] for times in GOODPUT}
        for _ in range(ROUNDS):
            floods = {times: flood(asks(placement), times * found[-1], SECONDS) for times in GOODPUT}
            found.append(_capacity(flood, placement, LESS * found[-1]))  # before and after: a shared machine changes
            for times, answers in floods.items():
                seen[times].append(_round(answers, 0.5 * (found[-2] + found[-1])))
        for times, share in GOODPUT.items():
            goodput, p99, sent = (statistics.median(values) for values in zip(*seen[times], strict=True))
            told.append(f"x{times:.0f}: goodput {goodput:.2f}, p99 {p99 * 1000:.0f} ms, {sent:.0%} sent")
            context.tell(f"{told[-1]}: {', '.join(f'{one.goodput:.2f} ({one.p99 * 1000:.0f} ms)' for one in seen[times])}")
            holds &= goodput >= share and p99 <= DEADLINE_S
        most = found[-1]
        flood(asks(placement), 5 * most, LONG_S)
        again = [served_in_time(flood(asks(placement), 0.5 * most, 1.0), 1.0) for _ in range(5)]
        normal = next((n for n, (rate, p99) in enumerate(again, 1) if rate >= 0.49 * most and p99 <= DEADLINE_S), None)
        grown = resident_megabytes(process.pid) - before
        mixed = flood(mixture(placement), 2 * most, SECONDS)
    outcomes = [s for s in mixed if s.path == "/outcomes"]
    taken = sum(s.status == httpx.codes.ACCEPTED for s in outcomes) / max(1, len(outcomes))
    told.append(f"after {LONG_S:.0f} s at x5 normal within {normal} s" if normal else "not normal within 5 s")
    told.append(f"memory +{grown:.0f} MB; outcomes at x2 {taken:.2%} of {len(outcomes)}")
    holds &= normal is not None and grown <= MOST_MEMORY and taken >= OUTCOMES_TAKEN
    capacities = ", ".join(f"{one:.0f}" for one in found)
    return Measured(f"capacity {capacities}/s; " + "; ".join(told), holds)


class _Round(NamedTuple):
    """Goodput as a share of capacity; the 99th percentile in seconds; how much was sent, for the sender may be the limit."""

    goodput: float
    p99: float
    sent: float


def _round(seen: Sequence[Seen], most: float) -> _Round:
    served, p99 = served_in_time(seen, SECONDS)
    return _Round(served / most, p99, sum(bool(s.path) for s in seen) / len(seen))


def _capacity(flood: Callable[[Iterator[Call], float, float], list[Seen]], placement: str, rate: float) -> float:
    """What is answered a second, and in time, at the best of the rates that are tried from this one on.

    The best of several tries flatters, so that rate is measured once more, for as long as what is compared with it.
    """
    best, most = rate, 0.0
    while rate <= PROBES[1]:
        served, p99 = served_in_time(flood(asks(placement), rate, PROBE_S), PROBE_S)
        if p99 <= DEADLINE_S and served > most:
            best, most = rate, served
        if served < 0.8 * rate:
            break
        rate *= 1.25
    return served_in_time(flood(asks(placement), best, SECONDS), SECONDS)[0]


def served_in_time(seen: Sequence[Seen], seconds: float) -> tuple[float, float]:
    """Requests a second that were answered with 200 within the deadline, and the 99th percentile of all that were served."""
    served = [s.seconds for s in seen if s.status == httpx.codes.OK]
    return sum(s <= DEADLINE_S for s in served) / seconds, percentile(served, 0.99)


def asks(placement: str) -> Iterator[Call]:
    """Known customers, encoded beforehand: the client must not be what is slow."""
    context = {"channel": "web", "device": "mobile"}
    made = [call("/recommend", {"customer_id": f"c{n}", "placement": placement, "context": context}) for n in range(2000)]
    return itertools.cycle(made)


def mixture(placement: str) -> Iterator[Call]:
    """Of ten requests six ask, two tell outcomes, two tell events."""
    questions = asks(placement)
    for number in itertools.count():
        match number % 5:
            case 1:
                outcome = {"outcome_id": f"o{number}", "decision_id": f"d{number}", "type": "click", "at": "2026-01-01T00:00:00Z"}
                yield call("/outcomes", {"outcomes": [outcome]})
            case 3:
                event = {"event_id": f"e{number}", "customer_id": f"c{number % 2000}", "type": "app_opened", "channel": "app"}
                yield call("/events", {"events": [event]})
            case _:
                yield next(questions)


ROW = Row(
    8,
    f"overload: 2, 5 and 10 times the measured capacity, open loop, the median of {ROUNDS}; ten seconds at 5; mixed load at 2",
    "goodput 0.90, 0.75, 0.50 of capacity; p99 of served within 100 ms; memory +50 MB at most; normal within 5 s; 99.9% of "
    "outcomes",
    measure,
)
