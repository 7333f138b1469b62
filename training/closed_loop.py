"""A small world that is decided for, learned from, and decided for again: from a cold start, and through a change of its ways.

Nobody tells the loop what the world is like, or that it has changed: it knows what it showed, with which probability, and what
came of it. A model is trained anew whenever a tenth more is known. Where clicks fall behind what was predicted by more than
chance allows, what came before is another world: it is forgotten, and more is explored until the new one is known.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from features.vectors import Matrix, RowEncoder
from service.bundles.matching import Matching
from service.bundles.onnx_scorer import OnnxModel, OnnxScorer, action_matrix
from service.catalog.entities import Exploration
from service.decision.arbitration import draw
from service.decision.decide import choice_table
from service.decision.engine import Engine, build_engine
from service.decision.entities import DecisionRequest
from service.decision.records import Versions
from service.decision.scoring import FlatScorer, Scorer
from training.export import export_onnx
from training.fit import FEWEST_POSITIVES, FEWEST_ROWS, FitSettings, fit
from training.pairs import with_pairs
from training.simulate import DAY, Moment, World

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]

STEP = 250  # decisions between two looks at what came of them
GROWTH = 0.1  # of the rows that are known: so many more, and a model is trained anew
LEAST_EPSILON, MOST_EPSILON = 0.03, 0.5
EXPLORING = 4.0  # epsilon is this through the root of the rows known: an error of the rates falls as slowly
LATELY = 1000  # decisions whose clicks are compared with what was predicted
SETTLED = 4000  # rows from which a model is believed: one of fewer promises too much of the best
FAR = 4.0  # standard errors by which they may fall behind
MEMBERS, VOICES = (
    5,
    2,
)  # models that are trained, and how many of them, drawn anew for each step, are averaged: all five agree too
# early (85 % of the oracle's for good), one alone is worse at every choice (87 % over 30,000 decisions, and two 89 %)
SPAN_DAYS = 60.0
SMALLEST_LEAF, LARGEST_LEAF, LEAVES_OF = 20, 100, 250  # rows of a leaf: one of so many parts of those that are known


class Result(NamedTuple):
    """Step after step, (steps,) each: how many decisions were made by then, and what a decision of the step brings on average.

    By the truth: of the loop, of who knows it, of the best single action, of any action at random. `least_share`: the smallest
    part of epsilon that an eligible action had, 1 is all that it is due. `trained` and `noticed`: decisions until a training, and
    until a change was noticed.
    """

    decisions: Values
    loop: Values
    oracle: Values
    static: Values
    uniform: Values
    least_share: float
    trained: tuple[int, ...]
    noticed: tuple[int, ...]

    def cumulative(self, of: Values, start: int = 0, end: int | None = None) -> float:
        """The sum of rewards of the decisions between two of the numbers made."""
        sizes = np.diff(np.concatenate([[0.0], self.decisions]))
        inside = (self.decisions > start) & (self.decisions <= (np.inf if end is None else end))
        return float((of * sizes)[inside].sum())


class _Step(NamedTuple):
    """Some moments as they are decided for: what may be shown, what it brings, and how likely it is: (moments, actions)."""

    requests: list[DecisionRequest]
    allowed: Mask
    truth: Values
    probabilities: Values
    predicted: Values


class _Known:
    """Rows that were shown, newest last. `start`: where the world as it is now begins."""

    def __init__(self) -> None:
        self._inputs: list[Matrix] = []
        self._labels: list[Values] = []
        self._predicted: list[Values] = []
        self.start = 0
        self.size = 0

    def add(self, inputs: Matrix, labels: Values, predicted: Values) -> None:
        self._inputs.append(inputs)
        self._labels.append(labels)
        self._predicted.append(predicted)
        self.size += len(labels)

    def current(self) -> tuple[Matrix, Values]:
        """Inputs and labels."""
        return np.concatenate(self._inputs)[self.start :], np.concatenate(self._labels)[self.start :]

    def has_changed(self) -> bool:
        """Whether the latest clicks fall behind what was predicted, further than chance allows."""
        labels, predicted = (np.concatenate(parts[-(LATELY // STEP) :]) for parts in (self._labels, self._predicted))
        error = float(np.sqrt((predicted * (1.0 - predicted)).sum()))
        return float(predicted.sum() - labels.sum()) > FAR * error > 0.0

    def forget(self) -> None:
        """Only the latest rows are of this world, as far as anybody knows: it takes about so many to notice."""
        self.start = max(self.start, self.size - LATELY // 2)


def run(
    world: World, decisions: int, *, change_at: int, turned: int, seed: int = 0, progress: Progress = lambda _done, _of: None
) -> Result:
    """The whole loop. `change_at`: the decision from which tastes have `turned` by so many categories."""
    loop = _Loop(world, seed)
    moments = world.moments(decisions, 0.0, SPAN_DAYS * DAY, seed)
    found, epsilons = [], []
    for start in range(0, decisions, STEP):
        epsilons.append(loop.epsilon)
        step = loop.decide(moments[start : start + STEP], start, turned if start >= change_at else 0)
        found.append(step)
        progress(start + len(step.requests), decisions)
    return _result(found, epsilons, loop)


class _Mean:
    """The mean of several scorers' rates: which action seems best depends less on the chance of one training."""

    def __init__(self, members: Sequence[OnnxScorer]) -> None:
        self.inputs = members[0].inputs
        self._members = members

    def score(self, requests: Matrix) -> Values:
        found: Values = np.mean([member.score(requests) for member in self._members], axis=0)
        return found


class _Loop:
    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._chance = np.random.default_rng([seed, 4])
        self._seed = seed
        self._columns = (*world.contract.features, *world.catalog.attributes)
        self._actions = action_matrix([c for c in self._columns if c.scope == "action"], world.actions)
        self._encoder = RowEncoder([c for c in self._columns if c.is_of_request])
        self._matching = Matching(self._columns, world.actions)
        self._known = _Known()
        self._learned_from = 0
        self._scorer: Scorer = FlatScorer([0.0] * len(world.actions))
        self._has_model = False
        self._engine = self._made(1.0)
        self.trained: list[int] = []
        self.noticed: list[int] = []

    def decide(self, moments: list[Moment], number: int, turned: int) -> _Step:
        """Decide for some moments, see what comes of it, and learn if enough has come."""
        self._redraw()
        requests = [self._world.request(moment, f"l{number + n}") for n, moment in enumerate(moments)]
        step = self._step(requests, moments, turned)
        there = np.flatnonzero(step.allowed.any(axis=1))  # to whom nothing may be shown is nobody's choice
        chosen = draw(step.probabilities, self._chance.random(len(requests)))[there]
        clicks = (self._chance.random(len(there)) < step.truth[there, chosen]).astype(float)
        inputs = self._inputs([requests[row] for row in there.tolist()], chosen)
        self._known.add(inputs, clicks, step.predicted[there, chosen])
        self._learn(number + len(moments))
        return step

    def _redraw(self) -> None:
        """Some members decide until the next look: where they do not agree, that explores (bootstrapped Thompson sampling)."""
        if self._has_model:
            picked = self._chance.choice(len(self._members), min(VOICES, len(self._members)), replace=False)
            self._scorer = _Mean([self._members[n] for n in picked.tolist()])
            self._engine = self._made(self.epsilon)

    def _step(self, requests: list[DecisionRequest], moments: list[Moment], turned: int) -> _Step:
        shape = len(requests), len(self._world.actions)
        allowed, probabilities, predicted = np.zeros(shape, np.bool_), np.zeros(shape), np.zeros(shape)
        for placement in self._engine.plans:
            rows = [row for row, request in enumerate(requests) if request.placements[0].id == placement]
            if rows:
                table = choice_table(self._engine, [requests[row] for row in rows], placement)
                allowed[rows], probabilities[rows], predicted[rows] = table.allowed, table.probabilities, table.predicted_rates
        return _Step(requests, allowed, self._world.rates(moments, turned), probabilities, predicted)

    def _inputs(self, requests: list[DecisionRequest], chosen: npt.NDArray[np.intp]) -> Matrix:
        """The rows of a training set: float32 (rows, columns)."""
        of_requests = self._encoder.encode([r.customer.values for r in requests], [r.context for r in requests])
        return np.concatenate([of_requests, self._actions[chosen], self._matching.values_of(of_requests, chosen)], axis=1)

    def _learn(self, number: int) -> None:
        known = self._known
        if self._has_model and known.size - known.start > SETTLED and known.has_changed():
            known.forget()
            self.noticed.append(number)
            self._learned_from = 0
        if known.size - known.start >= max(FEWEST_ROWS, (1.0 + GROWTH) * self._learned_from):
            self._train(*known.current(), number)

    def _train(self, inputs: Matrix, labels: Values, number: int) -> None:
        if not 2 * FEWEST_POSITIVES <= labels.sum() <= len(labels) - FEWEST_POSITIVES:
            return
        leaf = int(np.clip(len(labels) / LEAVES_OF, SMALLEST_LEAF, LARGEST_LEAF))
        members = []
        for member in range(MEMBERS):  # each stops and calibrates on a fifth of its own
            order = np.random.default_rng([self._seed, number, member]).permutation(len(labels))
            settings = FitSettings(seed=member, rows_per_leaf=leaf)
            columns, rows = with_pairs(self._columns, inputs[order], labels[order])
            fitted = fit(rows, labels[order], columns, settings)
            members.append(OnnxScorer(OnnxModel(export_onnx(fitted), len(columns)), columns, self._world.actions))
        self._members = members
        self._has_model, self._learned_from = True, len(labels)
        self.epsilon = float(np.clip(EXPLORING / len(labels) ** 0.5, LEAST_EPSILON, MOST_EPSILON))
        self.trained.append(number)

    def _made(self, epsilon: float) -> Engine:
        """The engine that ranks by the predicted rate, and explores so much."""
        self.epsilon = epsilon
        placements = {
            name: msgspec.structs.replace(
                p,
                explore=Exploration(epsilon=epsilon),
                factors=("rate",),
            )
            for name, p in self._world.catalog.placements.items()
        }
        catalog = msgspec.structs.replace(self._world.catalog, placements=placements)
        return build_engine(catalog, self._world.contract, self._scorer, Versions(0, None, self._world.contract.fingerprint))


def _result(steps: list[_Step], epsilons: list[float], loop: _Loop) -> Result:
    """Rewards by the truth; where nothing may be shown nobody has any."""
    sizes = [len(step.requests) for step in steps]
    everything = [(step.truth * step.allowed, step.allowed) for step in steps]
    single = np.array([_single(truth, allowed) for truth, allowed in everything])  # (steps, actions)
    best = int((single * np.array(sizes)[:, None]).sum(axis=0).argmax())
    shares = [_least_share(step, epsilon) for step, epsilon in zip(steps, epsilons, strict=True)]
    return Result(
        np.cumsum(sizes).astype(np.float64),
        np.array([float((step.truth * step.probabilities).sum(axis=1).mean()) for step in steps]),
        np.array([float(truth.max(axis=1).mean()) for truth, _ in everything]),
        single[:, best],
        np.array([float(_uniform(truth, allowed).mean()) for truth, allowed in everything]),
        min(shares), tuple(loop.trained), tuple(loop.noticed),
    )  # fmt: skip


def _uniform(truth: Values, allowed: Mask) -> Values:
    """What any eligible action brings on average: (moments,)."""
    found: Values = truth.sum(axis=1) / np.maximum(allowed.sum(axis=1), 1)
    return found


def _single(truth: Values, allowed: Mask) -> Values:
    """What each action brings that is shown wherever it may be, and any eligible one elsewhere: (actions,)."""
    found: Values = np.where(allowed, truth, _uniform(truth, allowed)[:, None]).mean(axis=0)
    return found


def _least_share(step: _Step, epsilon: float) -> float:
    """The smallest chance of an eligible action, as a part of what epsilon owes it."""
    due = epsilon / np.maximum(step.allowed.sum(axis=1, keepdims=True), 1)
    return float((step.probabilities / due)[step.allowed].min(initial=np.inf))
