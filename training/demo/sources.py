"""Where a demonstration gets its customers from: a simulated world, or a real randomised log of which a part comes later."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import ImportInvalid
from service.registry import Registry
from training.demo.traffic import Reaction, Visit
from training.evaluate import engine_of
from training.importing import import_features, write_customer_views
from training.mapping import LITERAL, TableMapping, read_mapping
from training.policies import BUNDLE
from training.simulate import BUYERS, CHANNELS, WHETHER, Moment, World, exploring_engine, probabilities, write_world
from training.tables import read_table

HISTORY = 8000  # decisions of the system before, in the simulated world
TRUTH_MOMENTS = 4000
HELD_BACK = 0.3  # share of a real log's customers who come while the service runs
HILLSTROM = "emails.csv.gz"
HILLSTROM_MAPPING = Path(__file__).parent / "hillstrom.toml"


class History(NamedTuple):
    """A table of logged decisions, and what its columns mean."""

    table: Path
    mapping: Path


class Source(Protocol):
    """Somebody else's log, and the customers who come later."""

    objective: str

    def history(self, folder: Path) -> History:
        """What the system before wrote down, as files in a folder."""

    def add_customers(self, home: Path) -> None:
        """Make those known who are not in the history."""

    def visits(self, count: int, seed: int) -> list[Visit]:
        """Customers who come by, and how each would respond."""

    def truth(self, home: Path, bundles: Sequence[str]) -> dict[str, float]:
        """What policies are worth in truth; empty where nobody knows."""


class SimulatedSource:
    """A world with known truth."""

    objective = "click"

    def __init__(self, seed: int) -> None:
        self.world = World(seed=seed)
        self._seed = seed
        self._today = (time.time(), time.time() + 60.0)

    def history(self, folder: Path) -> History:
        return History(*write_world(folder, self.world, HISTORY, self._today[0], self._seed))

    def add_customers(self, home: Path) -> None:
        """Everybody, also those who have not been there before."""
        moments = pa.array([round(time.time() * 1e6)] * len(self.world.customer_ids), pa.timestamp("us", tz="UTC"))
        values = {f"customer.{name}": column for name, column in self.world.features.items()}
        write_customer_views(home, self.world.contract, pa.array(self.world.customer_ids), moments, values)

    def visits(self, count: int, seed: int) -> list[Visit]:
        moments = self.world.moments(count, *self._today, seed)
        rates = self.world.rates(moments)
        draws = np.random.default_rng([seed, count, WHETHER]).random((count, 2))
        return [self._visit(moment, rates[row], draws[row]) for row, moment in enumerate(moments)]

    def _visit(self, moment: Moment, rates: Sequence[float], draws: Sequence[float]) -> Visit:
        positions = {action.id: position for position, action in enumerate(self.world.actions)}

        def react(action: str) -> tuple[Reaction, ...]:
            seen = (Reaction("impression"),)
            if action not in positions or draws[0] >= rates[positions[action]]:
                return seen
            if draws[1] >= BUYERS:
                return (*seen, Reaction("click"))
            return (*seen, Reaction("click"), Reaction("conversion", self.world.conversion_value(positions[action])))

        context = {"channel": CHANNELS[moment.placement], "device": moment.device}
        customer = self.world.customer_ids[moment.customer]
        return Visit({"customer_id": customer, "placement": moment.placement, "context": context}, react)

    def truth(self, home: Path, bundles: Sequence[str]) -> dict[str, float]:
        registry, world = Registry(home / "registry"), self.world
        moments = world.moments(TRUTH_MOMENTS, *self._today, self._seed + 3)
        requests = [world.request(moment, f"truth-{row}") for row, moment in enumerate(moments)]
        before = exploring_engine(world)
        allowed, rates = probabilities(before, requests) > 0.0, world.rates(moments)
        found = {"the system before": world.true_value(moments, probabilities(before, requests))}
        found["the best single action"] = max(world.true_value(moments, allowed * one) for one in np.eye(len(world.actions)))
        for bundle in bundles:
            engine = engine_of(registry, world.contract, world.catalog, bundle)
            found[f"{BUNDLE}{bundle}"] = world.true_value(moments, probabilities(engine, requests))
        return found | {"the best possible": float(np.where(allowed, rates, 0.0).max(axis=1).mean())}


class ReplayedSource:
    """A randomised log in two parts: one is imported, the customers of the other come while the service runs.

    How they respond is known for the one action they were shown in reality. Where the service shows them another, nothing is
    reported, and nothing is learned from it: what is kept is what the service would have seen (Li et al. 2011, section 3).
    """

    def __init__(self, table: Path, mapping: Path, objective: str | None, seed: int) -> None:
        self._mapping = mapping
        self._meaning = read_mapping(mapping)
        self.objective = objective or next(iter(self._meaning.outcomes))
        rows = read_table(table, self._meaning.texts)
        later = np.random.default_rng(seed).random(rows.num_rows) < HELD_BACK
        self._history, self._later = rows.filter(pa.array(~later)), rows.filter(pa.array(later))
        self._folder: Path | None = None

    def history(self, folder: Path) -> History:
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(self._history, folder / "history.parquet")
        pq.write_table(self._later, folder / "later.parquet")
        self._folder = folder
        return History(folder / "history.parquet", self._mapping)

    def add_customers(self, home: Path) -> None:
        if self._folder is not None:
            import_features(home, self._folder / "later.parquet", self._mapping)

    def visits(self, count: int, seed: int) -> list[Visit]:
        picked = np.random.default_rng(seed).permutation(self._later.num_rows)[:count]
        return [_replayed(row, self._meaning) for row in self._later.take(pa.array(picked)).to_pylist()]

    def truth(self, home: Path, bundles: Sequence[str]) -> dict[str, float]:  # noqa: ARG002  # nobody knows it
        return {}


def _replayed(row: dict[str, object], meaning: TableMapping) -> Visit:
    placement = meaning.placement.removeprefix(LITERAL) if meaning.placement.startswith(LITERAL) else row[meaning.placement]
    shown = meaning.action_id.removeprefix(LITERAL) if meaning.action_id.startswith(LITERAL) else row[meaning.action_id]
    values = {name: _number(row[name]) for name in meaning.outcomes}
    responses = tuple(Reaction(name, value) for name, value in values.items() if value)

    def react(action: str) -> tuple[Reaction, ...]:
        return (Reaction("impression"), *responses) if action == str(shown) else ()

    context = {name: row[name] for name in meaning.context if row[name] is not None}
    return Visit({"customer_id": str(row[meaning.customer_id or ""]), "placement": placement, "context": context}, react)


def _number(value: object) -> float:
    """What an import takes for an outcome: a number, or a truth; 0 where there is none."""
    return float(value) if isinstance(value, bool) else float(str(value or 0))


def source_from(data: Path | None, mapping: Path | None, objective: str | None, seed: int) -> Source:
    """The source that the options name. Raises ImportInvalid where a table or its mapping cannot be used."""
    if data is None:
        return SimulatedSource(seed)
    table = data / HILLSTROM if data.is_dir() else data
    chosen = mapping or (HILLSTROM_MAPPING if table.name == HILLSTROM else None)
    if chosen is None:
        raise ImportInvalid([f"Expected `--mapping FILE` for a table other than `{HILLSTROM}`, got none - at `--data {data}`"])
    if read_mapping(chosen).customer_id is None:
        raise ImportInvalid([f"{chosen.name}: Expected `customer_id`, for customers who come back, got none - at `log`"])
    return ReplayedSource(table, chosen, objective, seed)
