"""What scoring one request costs: trees compiled for a catalog, ONNX Runtime row by row, LightGBM; in turn, in one process."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import lightgbm
import numpy as np

from features.homes import home_contract
from features.vectors import Matrix
from loadtests.world import catalog_document
from service.bundles.loading import load_bundle
from service.bundles.manifest import BOOSTER_FILE
from service.bundles.onnx_scorer import OnnxScorer, action_matrix
from service.catalog.validate import load_catalog
from service.decision.engine import by_priority
from service.registry import Registry

ROUNDS, SECONDS = 5, 0.3


class ScoringCost(NamedTuple):
    """Microseconds for one request, medians of five rounds; and how far compiled trees are from ONNX Runtime."""

    actions: int
    compiled_us: float
    onnx_us: float
    lightgbm_us: float
    difference: float


def scoring(home: Path, actions: int) -> ScoringCost:
    """For a catalog of so many actions, with the bundle that serves in `home`. LightGBM has one thread."""
    registry, contract = Registry(home / "registry"), home_contract(home)
    folder = registry.bundle_folder(registry.current().champion or "")
    bundle = load_bundle(folder, contract)
    catalog = load_catalog(catalog_document(actions), contract)
    ordered, inputs = by_priority(catalog), bundle.manifest.inputs
    compiled, reference = bundle.scorer(ordered), OnnxScorer(bundle.model, inputs, ordered)
    booster = lightgbm.Booster(model_file=folder / BOOSTER_FILE)
    known = action_matrix([f for f in inputs if f.is_of_catalog], ordered)
    rows = np.hstack([np.zeros((actions, len(inputs) - known.shape[1]), np.float32), known])
    requests = bundle.warmup[:, : len(compiled.inputs)]

    def by_lightgbm(request: Matrix) -> None:
        rows[:, : request.shape[1]] = request
        booster.predict(rows, num_threads=1)

    ways: tuple[Callable[[Matrix], object], ...] = (compiled.score, reference.score, by_lightgbm)
    rounds = [[_median(way, requests) for way in ways] for _ in range(ROUNDS)]
    compiled_us, onnx_us, lightgbm_us = (statistics.median(column) * 1e6 for column in zip(*rounds, strict=True))
    difference = float(np.abs(compiled.score(requests) - reference.score(requests)).max())
    return ScoringCost(actions, compiled_us, onnx_us, lightgbm_us, difference)


def _median(way: Callable[[Matrix], object], requests: Matrix) -> float:
    times, number, until = list[float](), 0, time.perf_counter() + SECONDS
    way(requests[:1])
    while time.perf_counter() < until or len(times) < 3:  # noqa: PLR2004  # fewer say nothing
        one = requests[number % len(requests)][None, :]
        started = time.perf_counter()
        way(one)
        times.append(time.perf_counter() - started)
        number += 1
    return statistics.median(times)
