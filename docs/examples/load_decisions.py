"""Logged decisions as a data frame: which actions were shown, and what came of them. `python load_decisions.py HOME`."""

import sys
from pathlib import Path

from training.library import load_decisions

home = Path(sys.argv[1])

# Whole, as a data frame.
frame = load_decisions(home, as_="pandas")
by_action = frame.groupby("action_id").agg(shown=("slot", "size"), clicked=("outcome.click", "mean"), worth=("value.conversion", "mean"))
print(by_action.sort_values("clicked", ascending=False).round(4))

# Batch by batch, in bounded memory: the rate of clicks.
rows, clicks = 0, 0.0
for batch in load_decisions(home):
    rows += batch.num_rows
    clicks += sum(batch["outcome.click"].to_pylist())
print(f"{rows} items, {clicks / rows:.4f} clicks each")
