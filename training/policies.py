"""Rules for choosing, as tables of probabilities: a fixed action, uniform, a bundle with its catalog."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.catalog.entities import Scalar
from service.decision.decide import ChoiceTable, Earlier, choice_table
from service.decision.engine import Engine
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from training.circumstances import PLAIN, Circumstances, decoded
from training.examples import Examples
from training.off_policy import Mask, Rows

Values = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]

ROWS_AT_ONCE = 4096  # 4,096 rows x 100 actions x 3 tables of float64 are 10 MB
UNKNOWN = -1  # in place of an action that the catalog does not have (any more)
ALWAYS = "always:"
UNIFORM = "uniform"
BUNDLE = "bundle:"


class Chunk(NamedTuple):
    """Some rows of the log at one placement. `rows` are positions in the examples; the served action is at `served`.

    `earlier`: what the answers showed before.
    """

    rows: Positions
    requests: Sequence[DecisionRequest]
    served: Positions
    placement: str
    earlier: Sequence[Sequence[Earlier]] = ()

    def choices(self, engine: Engine) -> ChoiceTable:
        """What an engine would have chosen in place of the log, all else as it was: (rows, actions)."""
        return choice_table(engine, self.requests, self.placement, self.earlier)


def chunks(examples: Examples, engine: Engine) -> Iterator[Chunk]:
    """The rows, placement by placement. Rows of a placement that the catalog does not have are left out."""
    served = np.array([engine.positions.get(a, UNKNOWN) for a in examples.action_id.tolist()], np.intp)
    slots = _earlier_slots(examples)
    for placement in engine.plans:
        here = np.flatnonzero(examples.placement == placement)
        for start in range(0, len(here), ROWS_AT_ONCE):
            rows = here[start : start + ROWS_AT_ONCE]
            some = examples.take(rows)
            known = decoded(some.circumstances) if some.circumstances is not None else [None] * len(rows)
            earlier = [one.earlier if one else slots.get(row, ()) for row, one in zip(rows.tolist(), known, strict=True)]
            yield Chunk(rows, _requests(some, [one or PLAIN for one in known]), served[rows], placement, earlier)


def _earlier_slots(examples: Examples) -> Mapping[int, tuple[Earlier, ...]]:
    """For a row of a later slot: what the slots before it show, as far as they are rows. Those of our own log know more."""
    shown: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for row in np.flatnonzero(examples.slot > 1).tolist():
        shown[examples.decision_id[row].as_py(), str(examples.placement[row])] = []
    if not shown:
        return {}
    keys = list(zip(examples.decision_id.to_pylist(), examples.placement.tolist(), strict=True))
    for row, key in enumerate(keys):
        if key in shown:
            shown[key].append((int(examples.slot[row]), str(examples.action_id[row])))
    return {
        row: tuple(Earlier(key[1], action) for slot, action in sorted(shown[key]) if slot < examples.slot[row])
        for row, key in enumerate(keys) if key in shown
    }  # fmt: skip


def _requests(some: Examples, known: Sequence[Circumstances]) -> list[DecisionRequest]:
    """The logged requests, as far as a choice for one slot depends on them. `known`: the circumstances of each."""
    customers, contexts = (known_values(some, scope) for scope in ("customer", "context"))
    columns = some.decision_id.to_pylist(), some.customer_id.tolist(), some.decided_at.tolist(), some.placement.tolist()
    return [
        DecisionRequest(
            decision_id, customer_id, at, CustomerState(customer, contacts=own.contacts), context,
            own.placements or (PlacementRequest(placement, 1),),
            exclude_actions=own.exclude_actions, candidates=own.candidates, exhausted=own.exhausted,
        )
        for decision_id, customer_id, at, placement, customer, context, own
        in zip(*columns, customers, contexts, known, strict=True)
    ]  # fmt: skip


def known_values(some: Examples, scope: str) -> list[dict[str, Scalar]]:
    """What was known of each row, by name."""
    named = [(key.partition(".")[2], column) for key, column in some.values.items() if key.startswith(f"{scope}.")]
    names, columns = [name for name, _ in named], [column.to_pylist() for _, column in named]
    rows = zip(*columns, strict=True) if columns else iter([()] * len(some))
    return [{name: value for name, value in zip(names, row, strict=True) if value is not None} for row in rows]


class PolicyRows:
    """Collects, chunk by chunk, what the estimators need of every policy.

    Where a policy has nothing to offer, it does what the log did: weight 1, and the reward as it was. It has not decided there.
    """

    def __init__(self, examples: Examples) -> None:
        self._reward = examples.label
        self._logged = examples.choice_probability
        self._columns: dict[str, tuple[Values, Values, Values, Mask]] = {}

    def add(self, policy: str, chunk: Chunk, probabilities: Values, rates: Values) -> None:
        """One policy's choices for a chunk, and what a reward model expects of each: (rows, actions) both."""
        if policy not in self._columns:
            size = len(self._reward)
            self._columns[policy] = (np.ones(size), self._reward.copy(), self._reward.copy(), np.zeros(size, np.bool_))
        weight, predicted, expected, decided = self._columns[policy]
        every = np.flatnonzero(probabilities.sum(axis=1) > 0.0)
        rows, served = chunk.rows[every], chunk.served[every]
        weight[rows] = np.where(served == UNKNOWN, 0.0, probabilities[every, served]) / self._logged[rows]
        predicted[rows] = rates[every, served]
        expected[rows] = (probabilities * rates).sum(axis=1)[every]
        decided[rows] = True

    def rows(self, policy: str) -> Rows:
        """Every row of the log as the policy sees it."""
        weight, predicted, expected, decided = self._columns[policy]
        return Rows(weight, self._reward, predicted, expected, decided)

    @property
    def policies(self) -> list[str]:
        return list(self._columns)


def uniform(allowed: npt.NDArray[np.bool_]) -> Values:
    """Every allowed action with the same probability: (rows, actions)."""
    table: Values = allowed / np.maximum(allowed.sum(axis=1, keepdims=True), 1)
    return table


def always(allowed: npt.NDArray[np.bool_], position: int) -> Values:
    """One action wherever it may be offered; nothing elsewhere: (rows, actions)."""
    table = np.zeros(allowed.shape)
    table[:, position] = allowed[:, position]
    return table
