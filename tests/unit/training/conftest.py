"""Tiny worlds to learn from: rows whose success rate is written down, and models of a few trees."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import lightgbm
import msgspec
import numpy as np
import pytest
import yaml

from features.contract import Feature
from features.vectors import UNSEEN, Matrix
from service.cli import main
from service.decision.decide import decide
from service.decision.records import DecisionRecord, OutcomeRecord, encode_line
from service.registry import Registry
from tests.conftest import SHOP_ENDS, WEEK
from training.batch import serving_engine
from training.calibrate import IDENTITY
from training.fit import FitSettings, Fitted, fit
from training.promotion import promote_without_evidence
from training.simulate import Moment, World

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


BUSY_DECISIONS = 3000
EXPERIMENT = {"id": "levels", "share": 0.5, "arms": [{"id": "as_it_is"}, {"id": "chance", "ablation": "random"}]}


@pytest.fixture(scope="session")
def busy_home(trained_home: Path, shop: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop with its bundle promoted, an experiment, and 3,000 decisions in the log with what came of them. Leave it so."""
    home = Path(shutil.copytree(trained_home, tmp_path_factory.mktemp("busy") / "home"))
    document = {**yaml.safe_load((home / "catalog.yaml").read_text()), "experiments": [EXPERIMENT]}
    (home / "busy.yaml").write_text(yaml.safe_dump(document))
    assert main(["--home", str(home), "catalog", "publish", str(home / "busy.yaml")]) == 0
    promote_without_evidence(home, Registry(home / "registry").bundles()[0], "for tests")
    moments = shop.moments(BUSY_DECISIONS, SHOP_ENDS, SHOP_ENDS + WEEK, seed=9)
    records = decide(serving_engine(home), [shop.request(m, f"busy-{n}") for n, m in enumerate(moments)])
    write_log(home, records, list(outcomes_of(shop, moments, records)))
    return home


def write_log(home: Path, records: Sequence[DecisionRecord], outcomes: Sequence[OutcomeRecord] = ()) -> None:
    """As the service writes it: a segment of decisions, a segment of outcomes."""
    for kind, written in (("decisions", records), ("outcomes", outcomes)):
        folder = home / "log" / kind
        folder.mkdir(parents=True, exist_ok=True)
        lines = b"".join(encode_line(msgspec.json.encode(one)) for one in written)
        (folder / f"{len(list(folder.iterdir())):013d}-tests-1.log").write_bytes(lines)


def outcomes_of(shop: World, moments: Sequence[Moment], records: Sequence[DecisionRecord]) -> Iterator[OutcomeRecord]:
    """Every item is seen, and clicked as the truth of the shop has it."""
    positions = {action.id: position for position, action in enumerate(shop.actions)}
    shown = [(m, r) for m, r in zip(moments, records, strict=True) if not r.placements[0].fallback]
    items = [r.placements[0].items[0] for _, r in shown]
    clicks, _ = shop.respond([m for m, _ in shown], np.array([positions[i.action_id] for i in items], np.intp), seed=9)
    for (_, record), item, clicked in zip(shown, items, clicks.tolist(), strict=True):
        for kind in ["impression", "click"][: 1 + int(clicked)]:
            name, place = f"{record.decision_id}-{kind}", record.placements[0].id
            yield OutcomeRecord(name, record.decision_id, kind, record.at, record.at, place, item.action_id)


@pytest.fixture
def own_busy_home(busy_home: Path, tmp_path: Path) -> Path:
    """A copy of the busy home, to change."""
    return Path(shutil.copytree(busy_home, tmp_path / "home"))


@pytest.fixture(scope="session")
def learning() -> type[Learning]:
    return Learning
