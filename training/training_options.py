"""The options that say how a model is learned: the same for `nextbest train` and `nextbest retrain`."""

import argparse

from training.fit import FitSettings
from training.split import TRAIN_SHARE


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """What is learned, from how many rows, and how."""
    parser.add_argument("--objective", help="outcome whose rate is learned (default: the champion's, or the only one)")
    parser.add_argument("--share", type=share, default=TRAIN_SHARE, help="of the rows to learn from; the rest prove it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=positive, default=2)


def settings_of(options: argparse.Namespace) -> FitSettings:
    """What was asked for."""
    return FitSettings(seed=options.seed, threads=options.threads)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"Expected a whole number, 1 or more, got `{text}`")
    return int(text)


def share(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.0 < found < 1.0:
        raise argparse.ArgumentTypeError(f"Expected a share between 0 and 1, got `{text}`")
    return found
