"""Tiny worlds to learn from: rows whose success rate is written down, and models of a few trees."""

from collections.abc import Sequence
from typing import NamedTuple

import lightgbm
import numpy as np
import pytest

from features.contract import Feature
from features.vectors import UNSEEN, Matrix
from training.calibrate import IDENTITY
from training.fit import FitSettings, Fitted, fit

COLUMNS = (
    Feature("age", "number", "profile", max_age=86400.0),
    Feature("device", "category", "context", categories=("mobile", "desktop")),
    Feature("id", "category", "action", categories=("a", "b", "c")),
    Feature("price", "number", "action"),
)


class LearnedRows(NamedTuple):
    """Rows, what came of them, and the rates that they were drawn with."""

    inputs: Matrix
    labels: np.ndarray
    rates: np.ndarray


class Learning:
    """Builders with settings that learn a tiny world in a blink."""

    columns = COLUMNS
    settings = FitSettings(rounds=20, rows_per_leaf=20, threads=1, identity_dropout=0.0)

    @staticmethod
    def world(rows: int = 1000, *, missing: float = 0.0, seed: int = 3) -> LearnedRows:
        """Success is likelier with age, on a desktop, and for an action that costs nothing; ids add nothing to prices."""
        chance = np.random.default_rng(seed)
        action = chance.integers(0, 3, rows)
        age, device = chance.standard_normal(rows), chance.choice([UNSEEN, 0.0, 1.0], rows)
        price = np.array([0.0, 2.5, 2.5])[action]
        rates = 1 / (1 + np.exp(-(age + device - price / 2)))
        inputs = np.column_stack([age, device, action, price]).astype(np.float32)
        inputs[chance.random((rows, 4)) < missing] = np.nan
        return LearnedRows(inputs, (chance.random(rows) < rates).astype(float), rates)

    @classmethod
    def model(cls, **changes) -> Fitted:
        world = cls.world(**changes)
        return fit(world.inputs, world.labels, cls.columns, cls.settings)

    @classmethod
    def two_values(cls, low: float, high: float) -> Fitted:
        """One input of two values: one in five succeeds at the low one, four in five at the high one."""
        inputs = np.repeat(np.array([low, high], np.float32), 100)[:, None]
        return cls.trees(inputs, np.repeat([[1, 0, 0, 0, 0], [0, 1, 1, 1, 1]], 20, axis=0).reshape(-1))

    @staticmethod
    def trees(inputs: Matrix, labels: np.ndarray, *, categories: Sequence[int] = (), **parameters) -> Fitted:
        """Five trees by LightGBM itself, with parameters that the project does not train with."""
        chosen = {"objective": "binary", "num_leaves": 4, "min_data_in_leaf": 5, "num_threads": 1, "verbosity": -1, **parameters}
        rows = lightgbm.Dataset(inputs, labels, categorical_feature=list(categories), params={"verbosity": -1})
        booster = lightgbm.train(chosen, rows, 5)
        booster.best_iteration = 5
        columns = tuple(Feature(f"x{i}", "number", "profile", max_age=1.0) for i in range(inputs.shape[1]))
        return Fitted(booster, IDENTITY, columns, FitSettings(), {})


@pytest.fixture(scope="session")
def learning() -> type[Learning]:
    return Learning
