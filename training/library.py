"""Training as a library: what a notebook needs, from one place.

from training.library import evaluate, load_decisions, train
"""

from training.evaluate import evaluate
from training.fit import FitSettings
from training.frames import load_decisions
from training.learn import Manner, train
from training.promotion import promote, rollback
from training.retrain import Plan, retrain

__all__ = ["FitSettings", "Manner", "Plan", "evaluate", "load_decisions", "promote", "retrain", "rollback", "train"]
