"""Row 3: a new bundle takes over while customers are being answered."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from tests.acceptance.prepared import prepared_home
from tests.acceptance.processes import clean_environment, nextbest, run_or_not
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.footprint import placement_of, serving
from training.demo.traffic import Tally, Visit, steady

PER_SECOND = 50.0
BEFORE_S, AFTER_S = 4.0, 6.0
WITHIN_S = 5.0


def measure(context: Context) -> Measured:
    home = prepared_home(context)
    bundle = another_bundle(home, context)
    with serving(home, context) as (_, url, _ready):
        tally = Tally()
        with steady(url, visits(home, placement_of(home)), tally, PER_SECOND):
            time.sleep(BEFORE_S)
            promote = nextbest("--home", str(home), "promote", bundle, "--force", "--why", "acceptance: a swap under load")
            run_or_not(promote, context.root, clean_environment(), limit=300)
            written = (home / "registry" / "current").stat().st_mtime  # when the pointer moved, by the wall clock
            moved = time.perf_counter() - (time.time() - written)
            time.sleep(AFTER_S)
    return judged(tally, bundle, moved)


def visits(home: Path, placement: str) -> Iterator[Visit]:
    """Known customers, one after the other, for ever; they look and do nothing."""
    table = pq.read_table(home / "features" / "offline" / "profile.parquet", columns=["customer_id"])
    for customer in itertools.cycle(table.column("customer_id").unique().to_pylist()):
        yield Visit(
            {"customer_id": customer, "placement": placement, "context": {"channel": "web", "device": "mobile"}}, lambda _: ()
        )


def another_bundle(home: Path, context: Context) -> str:
    """A bundle that nobody has seen yet."""
    before = {p.name for p in (home / "registry" / "bundles").iterdir()}
    train = nextbest("--home", str(home), "train", "--seed", str(context.seed + 1))
    run_or_not(train, context.root, clean_environment(), limit=300)
    [made] = {p.name for p in (home / "registry" / "bundles").iterdir()} - before
    return made


def judged(tally: Tally, bundle: str, moved: float) -> Measured:
    """No failed request, and the new version seen in time."""
    seen = tally.first_seen.get(bundle)
    after = f"{max(0.0, seen - moved):.2f} s after" if seen else "never"
    failed = f"{len(tally.failures)} failed{': ' + tally.failures[0] if tally.failures else ''}"
    figure = (
        f"{tally.answered} answered at {PER_SECOND:.0f}/s, {failed}; new version {after}; p99 {tally.percentile(0.99):.1f} ms"
    )
    enough = tally.answered >= 0.8 * PER_SECOND * (BEFORE_S + AFTER_S)  # else the load was not what it claims to be
    return Measured(figure, not tally.failures and enough and seen is not None and seen - moved <= WITHIN_S)


ROW = Row(3, "a bundle is promoted under 50 requests/s", f"no failed request; new version within {WITHIN_S:.0f} s", measure)
