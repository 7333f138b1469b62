"""Training as a library: what a notebook needs, from one place.

from training.library import evaluate, load_decisions, train
"""

from training.evaluate import evaluate
from training.fit import FitSettings
from training.frames import load_decisions
from training.learn import train
from training.promotion import promote, rollback
from training.retrain import retrain

__all__ = ["FitSettings", "evaluate", "load_decisions", "promote", "retrain", "rollback", "train"]
