"""Whom a prediction is about at a moment, what was known of them then, and what they did afterwards.

Inputs are as of the moment, by the functions that `nextbest features check` trusts; labels are of the time after it. They never
meet: an input reads nothing later than the moment, a label nothing that is not.
"""

from collections.abc import Mapping
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.contract import CUSTOMER_VIEWS, PREDICTIONS_VIEW, TRANSACTIONS_VIEW, Contract, Feature
from features.event_types import home_event_types
from features.layout import JOIN_KEY
from features.ledger import Ledger, Values
from features.live_offline import event_table, live_values
from features.offline import EVENT_TIMESTAMP, offline_path, read_view, used_views, view_features
from features.predictions import VALUE, Label, Prediction
from features.transactions import sources_of, transaction_values
from features.vectors import Column, Matrix, vectorize
from service.errors import NotReady
from training.event_history import fed, read_aliases, read_events
from training.examples import Objective, load_examples
from training.left_out import LeftOut, left_out
from training.transactions import read_ledger

AS_OF = """
SELECT a.row, v.*, epoch_us(v.event_timestamp) / 1e6 AS true_at
FROM asked a ASOF LEFT JOIN known v ON a.customer_id = v.customer_id AND a.moment >= v.event_timestamp ORDER BY a.row
"""


def prediction_inputs(contract: Contract) -> tuple[Feature, ...]:
    """What a prediction is made from: what is known of a customer, but for other predictions, which would age twice."""
    return tuple(f for f in contract.customer if f.view != PREDICTIONS_VIEW)


class History:
    """Everything that a home knows, as of any moment. Reads each part once, when it is first asked for."""

    def __init__(self, home: Path, contract: Contract) -> None:
        self.home = home
        self.contract = contract
        self.inputs = prediction_inputs(contract)
        self.types = tuple(home_event_types(home, contract).types)
        self._ledgers: list[tuple[Label, Ledger]] = []
        self._events: pa.Table | None = None
        self._out: LeftOut | None = None
        self.everything = read_ledger(home, self.types, None)

    @property
    def first(self) -> float:
        """When the first event happened. Raises NotReady where there is none."""
        return float(self._moments().min())

    @property
    def last(self) -> float:
        """When the last event happened: later than that, nobody knows."""
        return float(self._moments().max())

    def _moments(self) -> Values:
        if not len(self.everything.at):
            raise NotReady("Expected events to learn from, found none: send some, or run `nextbest ingest FILE`")
        moments: Values = self.everything.at
        return moments

    def ledger(self, label: Label) -> Ledger:
        """The entries that a label counts."""
        key = Label("sum", 0.0, label.types, label.amount, label.objective, label.where)
        for known, ledger in self._ledgers:
            if known == key:
                return ledger
        if label.objective:
            read = self._successes(label.objective)
        else:
            read = read_ledger(self.home, label.types, label.amount, label.where)
        self._ledgers.append((key, read))
        return read

    def _successes(self, objective: str) -> Ledger:
        """Decisions with an outcome, at the moment of the decision."""
        examples = load_examples(self.home, Objective(objective), Contract(()))
        aliases, hit = read_aliases(self.home), np.flatnonzero(examples.label)
        names = [aliases.get(name, name) for name in examples.customer_id[hit].tolist()]
        return Ledger.of(pa.array(names, pa.string()), examples.decided_at[hit], examples.label[hit])

    def customers(self, prediction: Prediction, at: float) -> pa.Array:
        """Whom it is about at a moment: those it is declared among, or everybody who was known by then. Sorted.

        Customers who were erased since, or do not want to be known, are left out (`training.left_out`).
        """
        if prediction.among is None:
            return self._without(self.known(at), at)
        ledger = self.ledger(prediction.among)
        count = _span(ledger, np.arange(len(ledger.customers)), np.full(len(ledger.customers), at), -prediction.among.within)
        return self._without(ledger.customers.filter(pa.array(count[1] > count[0])), at)

    def _without(self, names: pa.Array, at: float) -> pa.Array:
        out = self._left_out().mask(np.array(names.to_pylist(), np.str_), np.full(len(names), at))
        return names.filter(pa.array(~out))

    def _left_out(self) -> LeftOut:
        if self._out is None:
            self._out = left_out(self.home)
        return self._out

    def _known_view(self, view: str) -> pa.Table:
        """An offline table, without what it still says of customers who were erased, from until then."""
        table, erased = read_view(self.home, view), self._left_out().erased
        if not erased:
            return table
        about = table[JOIN_KEY].to_numpy()
        places = np.flatnonzero(np.isin(about.astype(np.str_), list(erased)))
        at = table[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()[places] / 1e6
        kept = np.ones(len(about), np.bool_)
        kept[places] = at > [erased[name] for name in about[places].tolist()]
        return table.filter(pa.array(kept))

    def known(self, at: float) -> pa.Array:
        """Everybody who has an event, or a row in an offline table, by a moment. Sorted."""
        starts = self.everything.starts[:-1]
        first = self.everything.at[starts] if len(starts) else np.zeros(0)
        names = [self.everything.customers.filter(pa.array(first <= at))]
        for view in self._imported():
            table = self._known_view(view)
            early = pc.less_equal(table[EVENT_TIMESTAMP].cast(pa.int64()), round(at * 1e6))
            names += table[JOIN_KEY].filter(early).chunks
        return pc.unique(pa.chunked_array(names, pa.string())).sort()

    def _imported(self) -> list[str]:
        return [v for v in used_views(self.contract) if v in CUSTOMER_VIEWS and offline_path(self.home, v).exists()]

    def matrix(self, asked: pa.Table) -> Matrix:
        """The inputs of each row of `asked` (`customer_id`, `at` in seconds): float32, (rows, inputs)."""
        columns: dict[str, Column] = {}
        if self.contract.live:
            columns |= _columns(self.contract.live, live_values(self.contract, self._event_table(), asked))
        if sources := sources_of(self.contract):
            source = next(iter(sources.values()))
            ledger = self.ledger(Label("sum", 0.0, source.types, source.amount))
            measured = transaction_values(self.contract, ledger, asked).table
            columns |= _columns(view_features(self.contract, TRANSACTIONS_VIEW), measured)
        for view in self._imported():
            columns |= _columns(view_features(self.contract, view), self._as_of(view, asked))
        return vectorize(self.inputs, columns, asked.num_rows)

    def _event_table(self) -> pa.Table:
        if self._events is None:
            self._events = event_table(fed(read_events(self.home), read_aliases(self.home)), self.contract)
        return self._events

    def _as_of(self, view: str, asked: pa.Table) -> pa.Table:
        """The latest row of each customer by the moment, without values past their age: what the reader would have found."""
        moments = pa.array(np.round(asked["at"].to_numpy() * 1e6).astype(np.int64)).cast(pa.timestamp("us", tz="UTC"))
        numbered = pa.table({JOIN_KEY: asked[JOIN_KEY], "moment": moments, "row": pa.array(np.arange(asked.num_rows))})
        with duckdb.connect() as database:
            database.register("asked", numbered)
            database.register("known", self._known_view(view))
            found = database.execute(AS_OF).to_arrow_table()
        age = asked["at"].to_numpy() - pc.fill_null(found["true_at"], 0.0).to_numpy()
        columns = {}
        for feature in view_features(self.contract, view):
            fresh = pa.array(age <= (feature.max_age if feature.max_age is not None else np.inf))
            columns[feature.name] = pc.if_else(fresh, found[feature.name], pa.scalar(None, found[feature.name].type))
        return pa.table(columns)

    def labels(self, label: Label, asked: pa.Table) -> Values:
        """What happened in the time after each row's moment, up to `within` later: 0 or 1, a count, or a sum. (rows,)."""
        ledger = self.ledger(label)
        begin, end = _span(ledger, ledger.codes(asked[JOIN_KEY]), asked["at"].to_numpy(), label.within)
        count: Values = (end - begin).astype(np.float64)
        match label.kind:
            case "none_of":
                nothing: Values = (count == 0).astype(np.float64)
                return nothing
            case "count":
                return count
            case "sum":
                return ledger.total(begin, end)
        happened: Values = (count > 0).astype(np.float64)
        return ledger.total(begin, end) if (label.objective or "").startswith(VALUE) else happened


def _span(
    ledger: Ledger, codes: npt.NDArray[np.int64], moments: Values, seconds: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Places of the entries after the earlier moment up to the later one, that included."""
    edges = sorted([0.0, seconds])
    return ledger.until(codes, moments + edges[0]), ledger.until(codes, moments + edges[1])


def _columns(features: tuple[Feature, ...], table: pa.Table) -> Mapping[str, Column]:
    """Columns as `vectorize` takes them; missing is NaN, or None for a category."""
    return {
        f.key: table[f.name].to_pylist() if f.type == "category" else table[f.name].to_numpy(zero_copy_only=False)
        for f in features
    }  # fmt: skip
