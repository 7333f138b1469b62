"""Row 9: five million logged decisions become a training set, a model and a verdict, on one machine."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from service.catalog.commands import main as catalog_command
from tests.acceptance.row import Context, Measured, Row
from training.importing import import_table
from training.lake import MOMENT, OUTCOME_COLUMNS, read_tables, write_by_day
from training.simulate import Moment, World, write_world

Values = npt.NDArray[np.float64]

DECISIONS, TIMES = 100_000, 50  # made by the engine, and how often they are made again with new outcomes
CUSTOMERS = 20_000
END = 1_790_000_000.0
WITHIN_US = 10_000_000  # a decision made again comes up to ten seconds before or after
MOST_SECONDS, MOST_GB = 15 * 60.0, 8.0


class Ran(NamedTuple):
    """One command: how long it took, and the most memory that it had."""

    seconds: float
    gigabytes: float
    said: str


def measure(context: Context, times: int = TIMES) -> Measured:
    home = write_log(context.scratch / "millions", context, times)
    trained = run(home, context, "train", "--objective", "click")
    evaluated = run(home, context, "evaluate", "--objective", "click", "--json")
    report = msgspec.json.decode(evaluated.said)
    seconds, gigabytes = trained.seconds + evaluated.seconds, max(trained.gigabytes, evaluated.gigabytes)
    own = next(value for name, value in report["policies"].items() if name.startswith("bundle:"))
    figure = (
        f"{DECISIONS * times:,} decisions of {CUSTOMERS:,} customers: training set and fit {trained.seconds:.0f} s and "
        f"{trained.gigabytes:.1f} GB, evaluation of {report['rows']:,} rows {evaluated.seconds:.0f} s and "
        f"{evaluated.gigabytes:.1f} GB, {seconds / 60:.1f} min together; the bundle's value {own['value']:.4f} "
        f"[{own['ci'][0]:.4f}, {own['ci'][1]:.4f}], logged {report['policies']['logged']['value']:.4f}: {report['verdict']}"
    )
    return Measured(figure, seconds <= MOST_SECONDS and gigabytes <= MOST_GB and report["verdict"] == "promote")


def run(home: Path, context: Context, *command: str) -> Ran:
    """A command of `nextbest`, in a process of its own."""
    context.tell(f"nextbest {' '.join(command)}")
    begun = time.perf_counter()
    with (context.scratch / "said").open("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "--home", str(home), *command], stdout=said, cwd=context.root
        )  # it is this project's own
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise RuntimeError(f"Expected exit code 0 of `{command[0]}`, got {process.returncode}: {text[-500:]}")
    return Ran(time.perf_counter() - begun, used.ru_maxrss / 1e6, text)


def write_log(home: Path, context: Context, times: int) -> Path:
    """A home whose lake holds the world's decisions so many times, each time with outcomes of its own."""
    world = World(CUSTOMERS, context.seed)
    table, mapping = write_world(home / "source", world, DECISIONS, END, context.seed)
    report = import_table(home, table, mapping)
    catalog_command(["catalog", "publish", str(report.catalog)], home=home, redis_url=None)
    decisions = pa.concat_tables(read_tables(home, "decisions"))
    rates = true_rates(world, decisions)
    for again in range(1, times):
        context.tell(f"writing decisions: {again} of {times - 1}")
        _write_again(home, decisions, rates, again, np.random.default_rng([context.seed, again]))
    return home


def true_rates(world: World, decisions: pa.Table) -> Values:
    """How likely each decision is to be clicked: (decisions,)."""
    positions = {action.id: position for position, action in enumerate(world.actions)}
    names = (decisions[key].to_pylist() for key in ("customer_id", "decided_at", "placement", "context.device", "action_id"))
    rows = [
        (Moment(int(c[1:]), at.timestamp(), place, device), positions[a]) for c, at, place, device, a in zip(*names, strict=True)
    ]
    found: Values = world.rates([moment for moment, _ in rows])[np.arange(len(rows)), [action for _, action in rows]]
    return found


def _write_again(home: Path, decisions: pa.Table, rates: Values, again: int, chance: np.random.Generator) -> None:
    """The same customers at other moments, seconds later or earlier."""
    name, size = f"again-{again}", decisions.num_rows
    at = pc.add(decisions["decided_at"].cast(pa.int64()), pa.array(chance.integers(-WITHIN_US, WITHIN_US, size)))
    ids = pc.binary_join_element_wise(decisions["decision_id"], name, "-")
    moved = decisions.set_column(decisions.column_names.index("decision_id"), "decision_id", ids)
    moved = moved.set_column(moved.column_names.index("decided_at"), "decided_at", at.cast(MOMENT))
    write_by_day(home, "decisions", name, moved, "decided_at")
    clicked = pa.array(np.flatnonzero(chance.random(size) < rates))
    for kind, rows in (("impression", None), ("click", clicked)):
        own = moved if rows is None else moved.take(rows)
        columns = {
            "outcome_id": pc.binary_join_element_wise(own["decision_id"], kind, "-"), "decision_id": own["decision_id"],
            "type": pa.repeat(kind, own.num_rows), "value": pa.repeat(0.0, own.num_rows), "at": own["decided_at"],
            "placement": own["placement"], "action_id": own["action_id"],
        }  # fmt: skip
        outcomes = pa.table({key: columns[key].cast(wanted) for key, wanted in OUTCOME_COLUMNS.items()})
        write_by_day(home, "outcomes", f"{name}-{kind}", outcomes, "at")


ROW = Row(
    9,
    f"{DECISIONS * TIMES:,} logged decisions: training set, fit and evaluation with the command line's own commands",
    f"within {MOST_SECONDS / 60:.0f} minutes and {MOST_GB:.0f} GB on 2 cores",
    measure,
)
