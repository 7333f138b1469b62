"""`nextbest retrain`: train, evaluate and promote if proven, once or every so often."""

import argparse
import contextlib
import datetime as dt
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from features.contract import ContractError, seconds
from service.errors import NotReady
from training.progress import progress_bar
from training.retrain import Plan, Round, retrain, rounds
from training.trackers import Told, Tracker, add_tracker_option, open_tracker
from training.training_options import add_training_options, manner_of

SAID = {
    "promoted": "`{}` serves",
    "ready": "`{}` may serve, and was not promoted: `--stage none`",
    "kept": "`{}` does not serve: the gate keeps what there is",
    "skipped": "nothing to do, `{}` goes on serving",
}


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:  # noqa: ARG001  # every command is called alike
    """Exit code: 0 done, also where the gate keeps the champion; 1 an error to mend. With `--every`: 0, after SIGTERM."""
    options = _parser().parse_args(argv[1:])
    plan = Plan(options.objective, options.share, manner_of(options), options.stage)

    def run() -> Round:
        with progress_bar("Retraining") as tell:
            return retrain(home, plan, tell)

    tracker = open_tracker(home, options.mlflow)
    if options.every is None:
        _tell(done := run())
        _track(tracker, done)
        return 0
    with _until_told_to_stop() as wait:
        follow(run, options.every, wait, tracker)
    return 0


def follow(run: Callable[[], Round], every: float, wait: Callable[[float], bool], tracker: Tracker) -> None:
    """Tell each round, and keep what it did; a tracker that fails is told as well, and ends nothing."""
    for found in rounds(run, every, wait):
        _tell(found)
        try:
            _track(tracker, found)
        except NotReady as error:
            _tell(error)


def _track(tracker: Tracker, found: Round | Exception) -> None:
    if isinstance(found, Round) and found.result != "skipped":
        tracker.track(Told(found.bundle, found.trained, found.report, found.result == "promoted"))


def _tell(found: Round | Exception) -> None:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(found, Exception):
        print(f"{now} error: {str(found) or type(found).__name__}", file=sys.stderr, flush=True)
        return
    print(f"{now} {SAID[found.result].format(found.bundle)}: {'; '.join(found.told)}", flush=True)


@contextlib.contextmanager
def _until_told_to_stop() -> Iterator[Callable[[float], bool]]:
    """A wait of so many seconds that SIGTERM ends at once; False from then on. A round under way is ended first."""
    told, tell = os.pipe()
    before = signal.signal(signal.SIGTERM, lambda *_: os.write(tell, b"."))
    try:
        yield lambda wait: not select.select([told], [], [], wait)[0]
    finally:
        signal.signal(signal.SIGTERM, before)
        os.close(told)
        os.close(tell)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nextbest retrain",
        description="Train, evaluate, and promote if the evaluation proves it; say what was done and why.",
    )
    parser.add_argument("--every", type=_duration, metavar="6h", help="again every so often, until SIGTERM (default: once)")
    add_training_options(parser)
    add_tracker_option(parser)
    parser.add_argument(
        "--stage", choices=("promote", "none"), default="promote", help="what a proven bundle comes to (default: it serves)"
    )
    return parser


def _duration(text: str) -> float:
    try:
        found = seconds(text)
    except ContractError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if found <= 0.0:
        raise argparse.ArgumentTypeError(f"Expected a duration above 0, got `{text}`")
    return found
