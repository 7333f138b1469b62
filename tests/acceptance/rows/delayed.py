"""Row 6: outcomes that take from minutes to days, and what is known of their rate before they have come."""

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa

from features.contract import Contract, Feature
from tests.acceptance.row import Context, Measured, Row
from training.examples import Examples, Objective, load_examples
from training.lake import DECISION_COLUMNS, OUTCOME_COLUMNS, write_by_day
from training.maturity import corrected, mature

DECISIONS, DAYS = 400_000, 10.0
RATE_FIRST, RATE_LAST = 0.15, 0.35  # of the oldest decisions and of the newest: whoever waits is behind
WINDOW = 7 * 86_400.0
MINUTES, TYPICAL_S, SPREAD = 60.0, 1.5 * 86_400.0, 1.6  # a delay: never below a minute, 1.5 days in the middle, log-normal
RECENT_S = 2 * 86_400.0
END = dt.datetime(2026, 9, 22, tzinfo=dt.UTC).timestamp()
WITHIN, BEYOND = 0.01, 0.05
CONTRACT = Contract((Feature("age", "number", "profile"),))


def measure(context: Context) -> Measured:
    """The last two days, as they look on the evening of the last one."""
    truth, everybody = write_log(context.scratch, np.random.default_rng(context.seed))
    naive = load_examples(context.scratch, Objective("conversion"), CONTRACT)
    told = corrected(load_examples(context.scratch, Objective("conversion", WINDOW), CONTRACT), WINDOW)
    waited = mature(load_examples(context.scratch, Objective("conversion", WINDOW), CONTRACT), WINDOW)
    found = {name: abs(_recent(rows) - truth) for name, rows in (("naive", naive), ("corrected", told))}
    overall = float(told.label.mean())
    figure = (
        f"true rate of the last two days {truth:.4f}: corrected {_recent(told):.4f}, naive join {_recent(naive):.4f}; of all "
        f"ten days {everybody:.4f}: corrected {overall:.4f}, naive {naive.label.mean():.4f}; who waits for the seven days of the "
        f"window knows {len(waited):,} of {len(naive):,} rows, and {waited.label.mean():.4f}"
    )
    within = found["corrected"] <= WITHIN and abs(overall - everybody) <= WITHIN
    return Measured(figure, within and found["naive"] > BEYOND)


def _recent(rows: Examples) -> float:
    return float(rows.label[rows.decided_at >= END - RECENT_S].mean())


def write_log(home: Path, chance: np.random.Generator) -> tuple[float, float]:
    """Ten days of decisions with the outcomes that have come by the end; the true rate of the last two days, and of all."""
    at = np.sort(chance.uniform(END - DAYS * 86_400.0, END, DECISIONS))
    rate = np.interp(at, [at[0], at[-1]], [RATE_FIRST, RATE_LAST])
    delay = MINUTES + chance.lognormal(np.log(TYPICAL_S), SPREAD, DECISIONS)
    converts = (chance.random(DECISIONS) < rate) & (delay <= WINDOW)
    ids = [f"d{n}" for n in range(DECISIONS)]
    decisions = {
        "decision_id": ids, "customer_id": ids, "decided_at": _moments(at), "placement": ["hero"] * DECISIONS,
        "slot": [1] * DECISIONS, "action_id": ["gold"] * DECISIONS, "choice_probability": [1.0] * DECISIONS,
        "source": ["here"] * DECISIONS,
    }  # fmt: skip
    came = np.flatnonzero(converts & (at + delay <= END))
    outcomes = {
        "outcome_id": [f"i{n}" for n in range(DECISIONS)] + [f"o{n}" for n in came.tolist()],
        "decision_id": ids + [ids[n] for n in came.tolist()],
        "type": ["impression"] * DECISIONS + ["conversion"] * len(came), "value": [0.0] * DECISIONS + [1.0] * len(came),
        "at": pa.concat_arrays([_moments(at), _moments((at + delay)[came])]), "placement": [None] * (DECISIONS + len(came)),
        "action_id": [None] * (DECISIONS + len(came)),
    }  # fmt: skip
    for kind, rows, columns, moment in (
        ("decisions", decisions, DECISION_COLUMNS, "decided_at"), ("outcomes", outcomes, OUTCOME_COLUMNS, "at"),
    ):  # fmt: skip
        table = pa.table({name: pa.array(rows[name], columns[name]) for name in columns})
        write_by_day(home, kind, "delayed", table, moment)
    recent = at >= END - RECENT_S
    return float(converts[recent].mean()), float(converts.mean())


def _moments(at: np.ndarray[tuple[int], np.dtype[np.float64]]) -> pa.Array:
    return pa.array(np.round(at * 1e6).astype(np.int64), pa.int64()).cast(DECISION_COLUMNS["decided_at"])


ROW = Row(
    6,
    "outcomes after minutes to days, a rate that moves: what is known before they have come",
    f"within {WITHIN:.0%} absolute of the truth, where the naive join is off by more than {BEYOND:.0%}",
    measure,
)
