"""Logged decisions as a data frame: which actions were shown, and what came of them. `python load_decisions.py HOME`."""

import sys
from pathlib import Path

from training.library import load_decisions

home = Path(sys.argv[1])

# Whole, as a data frame.
frame = load_decisions(home, as_="pandas")
came = {name: (name, "mean") for name in frame.columns if name.startswith(("outcome.", "value."))}  # of each type that there was
by_action = frame.groupby("action_id").agg(shown=("slot", "size"), **came)
print(by_action.sort_values("shown", ascending=False).round(4))

# Batch by batch, in bounded memory: how much comes of an item.
rows, responses = 0, 0
for batch in load_decisions(home):
    rows += batch.num_rows
    responses += sum(batch["responses"].to_pylist())
print(f"{rows} items, {responses / max(rows, 1):.4f} outcomes each")
