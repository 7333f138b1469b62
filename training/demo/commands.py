"""`nextbest demo`: import, train, serve, learn, prove, swap; told as it happens."""

import argparse
import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from features.materialize import check, materialize
from features.redis_server import resolve_redis
from service.catalog.commands import main as catalog_command
from service.errors import NotReady
from training.demo.running import RunningServer, interrupted_by_sigterm, running_server, unused
from training.demo.sources import Source, source_from
from training.demo.traffic import WORKERS, Tally, play, steady
from training.evaluate import evaluate
from training.fit import FitSettings
from training.importing import import_table
from training.judging import Report
from training.learn import train
from training.progress import progress_bar
from training.promotion import promote
from training.summary import evaluation_table, plain_table, terminal

VISITS = 12_000
CHECKED = 500  # customers whose features are compared, online with offline
FIRST_SHARE = 0.5
SECOND_SHARE = 0.65  # of the rows, the older ones: the rest still holds the visits that prove the second bundle
SWAP_RATE = 50.0  # requests a second while the bundle is swapped
SWAP_PATIENCE_S = 5.0
AROUND_SWAP_S = 1.0  # of traffic before and after


class Loop(NamedTuple):
    """What every step works on."""

    source: Source
    home: Path
    seed: int
    console: Console
    steps: list[str]

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Tells a step when it is done: its name, its time, and what the block put into its list."""
        started, told = time.perf_counter(), list[str]()
        yield told
        self.steps.append(name)
        first, *rest = told
        self.console.print(f"{len(self.steps)}. {name} ({time.perf_counter() - started:.1f} s): {first}")
        for line in rest:
            self.console.print(f"   {line}")


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:
    """Exit code: 0 the loop is closed, 1 something failed on the way."""
    options = _parser().parse_args(argv[1:])
    if not options.once:
        unused(options.port)  # before anything is changed under whoever serves there, perhaps from this home
    started = time.perf_counter()
    source = source_from(options.data, options.mapping, options.objective, options.seed)
    loop = Loop(source, home, options.seed, terminal(), [])
    with interrupted_by_sigterm(), resolve_redis(redis_url, home) as url:
        _prepare(loop, url)
        first = _prove(loop, "first bundle", FIRST_SHARE, options.seed)
        if first.verdict == "promote":
            promote(loop.home, first, why="demo")
        with _serving(loop, url, None if options.once else options.port) as server:
            tally = _play(loop, server, options.visits)
            second = _prove(loop, "second bundle", SECOND_SHARE, options.seed + 1)
            _swap(loop, server, second, tally)
            _summarize(loop, first, second, tally, time.perf_counter() - started)
            if not options.once:
                _stay(loop, server)
    return 1 if tally.failures else 0


def _prepare(loop: Loop, redis_url: str) -> None:
    """Somebody else's log becomes decisions, a catalog, and features in Redis."""
    with loop.step("import") as told:
        history = loop.source.history(loop.home / "demo")
        with progress_bar("Importing") as tell:
            report = import_table(loop.home, history.table, history.mapping, tell)
        loop.source.add_customers(loop.home)
        told.append(f"{report.rows:,} logged decisions, {report.outcomes:,} outcomes, {len(report.actions)} actions")
    with loop.step("catalog") as told:
        if catalog_command(["catalog", "publish", str(report.catalog)], home=loop.home, redis_url=redis_url):
            raise NotReady(f"Expected a catalog that can be published, found mistakes - at `{report.catalog}`")
        told.append("serves as soon as there is a service")
    with loop.step("features, by Feast to Redis") as told:
        counts, found = materialize(loop.home, redis_url), check(loop.home, redis_url, CHECKED)
        told.append(f"{max(counts.values()):,} customers in {len(counts)} views")
        told.append(f"{found.values:,} values compared with the offline tables: {len(found.differences)} differ")


def _prove(loop: Loop, name: str, share: float, seed: int) -> Report:
    """Train and evaluate; what follows from the verdict is the caller's."""
    with loop.step(name) as told:
        with progress_bar("Training") as tell:
            bundle = train(loop.home, loop.source.objective, share, FitSettings(seed=seed), tell)
        with progress_bar("Evaluating") as tell:
            report = evaluate(loop.home, loop.source.objective, bundle, progress=tell)
        told += [f"{bundle}: verdict {report.verdict}", *report.reasons]
    return report


@contextlib.contextmanager
def _serving(loop: Loop, redis_url: str, port: int | None) -> Iterator[RunningServer]:
    with contextlib.ExitStack() as stack:
        with loop.step("serve") as told:
            server = stack.enter_context(running_server(loop.home, redis_url, port))
            told.append(f"{server.url}, ready after {server.ready_after:.1f} s")
        yield server


def _play(loop: Loop, server: RunningServer, count: int) -> Tally:
    tally = Tally()
    with loop.step("customers") as told:
        visits = loop.source.visits(count, loop.seed + 1)
        with progress_bar("Customers") as tell:
            play(server.url, visits, tally, lambda: tell(tally.answered, len(visits)))
        told.append(f"{tally.answered:,} recommendations, {tally.outcomes:,} outcomes, {len(tally.failures)} failed")
        told.append(f"median {tally.percentile(0.5):.1f} ms, 99 % within {tally.percentile(0.99):.1f} ms, {WORKERS} at a time")
    return tally


def _swap(loop: Loop, server: RunningServer, report: Report, tally: Tally) -> None:
    """Promote under load, if the verdict says so; the seconds until an answer carries the new bundle."""
    with loop.step(f"swap under {SWAP_RATE:.0f} requests/s") as told:
        if report.verdict != "promote":
            told.append("left out: the second bundle is not proven, what served goes on serving")
            return
        answered, failed = tally.answered, len(tally.failures)
        with steady(server.url, cycle(loop.source.visits(1000, loop.seed + 2)), tally, SWAP_RATE):
            time.sleep(AROUND_SWAP_S)
            promote(loop.home, report, why="demo")
            moved = time.perf_counter()
            while report.bundle not in tally.first_seen and time.perf_counter() < moved + SWAP_PATIENCE_S:
                time.sleep(0.01)
            time.sleep(AROUND_SWAP_S)
        if report.bundle not in tally.first_seen:
            tally.fail(f"no answer carried `{report.bundle}` within {SWAP_PATIENCE_S:g} s")
        after = tally.first_seen.get(report.bundle, float("inf")) - moved
        told.append(f"new bundle after {max(0.0, after):.2f} s")
        told.append(f"{tally.answered - answered} answered meanwhile, {len(tally.failures) - failed} failed")


def _summarize(loop: Loop, first: Report, second: Report, tally: Tally, seconds: float) -> None:
    evaluation_table(second, loop.console)
    truth = loop.source.truth(loop.home, [first.bundle, second.bundle])
    if truth:
        table = plain_table(
            "policy,true rate", "true rate", title=f"The truth of this world: {loop.source.objective} per decision"
        )
        for name, value in truth.items():
            table.add_row(name, f"{value:.4f}")
        loop.console.print(table)
    for failure in tally.failures[:3]:
        loop.console.print(f"failed: {failure}")
    closed = "the loop is closed" if not tally.failures else f"{len(tally.failures)} requests failed"
    loop.console.print(f"{closed}: {len(loop.steps)} steps in {seconds:.0f} s, everything under `{loop.home}`")


def _stay(loop: Loop, server: RunningServer) -> None:
    """Serve until Ctrl-C."""
    request = json.dumps(loop.source.visits(1, loop.seed)[0].request)
    asked = f"  curl -s {server.url}/recommend -d '{request}'"
    loop.console.print(f"\nThe service goes on until Ctrl-C. Ask it:\n{asked}", soft_wrap=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nextbest demo", description="The whole loop, on a simulated world or on a real log.")
    parser.add_argument("--once", action="store_true", help="end after the summary instead of serving on")
    parser.add_argument("--data", type=Path, help="a table of logged decisions, or a folder that holds emails.csv.gz (Hillstrom)")
    parser.add_argument("--mapping", type=Path, metavar="FILE", help="what the columns of --data mean")
    parser.add_argument("--objective", help="outcome to learn (default: the first of the mapping)")
    parser.add_argument("--visits", type=int, default=VISITS, help=f"customers who come by (default {VISITS})")
    parser.add_argument("--port", type=int, default=8080, help="where to serve on (default 8080)")
    parser.add_argument("--seed", type=int, default=0)
    return parser
