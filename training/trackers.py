"""Where trainings are tracked: nowhere, or in MLflow, whose packages are loaded when somebody asks for it."""

import argparse
import importlib
import logging
import os
from pathlib import Path
from typing import NamedTuple, Protocol

from training.judging import Report
from training.learn import Trained

VARIABLE = "NEXTBEST_MLFLOW_URI"
LOCAL = "local"  # instead of an address: a store in the home


class Told(NamedTuple):
    """What became of a bundle: how it was trained, how it was judged, whether it serves now. None is not known."""

    bundle: str
    trained: Trained | None = None
    report: Report | None = None
    promoted: bool = False


class Tracker(Protocol):
    """Whoever keeps what trainings tell."""

    def track(self, told: Told) -> None:
        """Keep it: one run per bundle, added to by whatever is told later. Raises NotReady where it cannot be kept."""


class NoTracker:
    """Keeps nothing: manifests and the history of the registry say what has to be known."""

    def track(self, told: Told) -> None:
        """Nothing happens."""


def add_tracker_option(parser: argparse.ArgumentParser) -> None:
    """The option that says where trainings are tracked."""
    parser.add_argument(
        "--mlflow", nargs="?", const=LOCAL, default=os.environ.get(VARIABLE) or None, metavar="URI",
        help=f"track in MLflow: at an address, or in the home (default: {VARIABLE}, else not at all)",
    )  # fmt: skip


def open_tracker(home: Path, uri: str | None) -> Tracker:
    """The tracker at an address, `local` for a store in the home, None for none. Raises NotReady, and ModuleNotFoundError."""
    if uri is None:
        return NoTracker()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow calls home otherwise, from its import on
    module = importlib.import_module("training.tracking")
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells each table that it makes
    tracker: Tracker = module.MlflowTracker(home, None if uri == LOCAL else uri)
    return tracker
