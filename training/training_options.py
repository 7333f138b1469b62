"""The options that say how a model is learned: the same for `nextbest train` and `nextbest retrain`."""

import argparse

from service.errors import NotReady
from training.fit import FitSettings
from training.learn import Manner
from training.split import TRAIN_SHARE
from training.spreading import positive


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """What is learned, from how many rows, and how."""
    parser.add_argument(
        "--objective",
        help="outcome whose rate is learned; `value:OUTCOME`: what it brings (default: the champion's, or the only one)",
    )
    parser.add_argument(
        "--uplift", action="store_true", help="learn what actions change against `nothing`, which must be in the log"
    )
    parser.add_argument("--share", type=share, default=TRAIN_SHARE, help="of the rows to learn from; the rest prove it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument(
        "--tune", type=positive, default=0, metavar="30", help="so many trials for better settings (needs optuna)"
    )
    parser.add_argument(
        "--weights",
        choices=("none", "choice"),
        help="of the rows: alike, or by 1 / choice probability (default: learning.toml's)",
    )
    parser.add_argument("--engine", choices=("local", "dask"), default="local", help="who works (default: this machine)")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS",
        help="of a Dask cluster, like tcp://10.0.0.1:8786; without one `--engine dask` starts `--threads` processes here",
    )  # fmt: skip


def manner_of(options: argparse.Namespace) -> Manner:
    """What was asked for. Raises NotReady where a scheduler is named and its engine is not."""
    if options.scheduler is not None and options.engine != "dask":
        raise NotReady("Expected `--engine dask` with `--scheduler`, got it without")
    if options.uplift and (options.tune or options.engine != "local" or options.weights == "choice"):
        raise NotReady(
            "Expected `--uplift` by itself and on this machine, got it with `--tune`, `--engine` or `--weights`: what it learns "
            "from is weighed already"
        )
    settings = FitSettings(seed=options.seed, threads=options.threads)
    return Manner(settings, options.tune, options.engine, options.scheduler, options.weights, options.uplift)


def share(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.0 < found < 1.0:
        raise argparse.ArgumentTypeError(f"Expected a share between 0 and 1, got `{text}`")
    return found
