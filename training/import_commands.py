"""`nextbest import | simulate`: logged decisions from elsewhere, or of a small world."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from service.verbs import Verbs
from training.importing import import_table
from training.progress import progress_bar
from training.simulate import World, write_world
from training.spreading import positive


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:  # noqa: ARG001  # every command is called alike
    """Exit code: 0 done, 1 an error to mend. Errors are raised for the command line to tell."""
    return _verbs().run(argv, home)


def _import(options: argparse.Namespace, home: Path) -> int:
    with progress_bar(f"Importing {options.table.name}") as tell:
        report = import_table(home, options.table, options.mapping, tell)
    if report.already:
        print("this table was imported before with this mapping: nothing to do")
    else:
        print(f"imported {report.rows} decisions with {report.outcomes} outcomes and {len(report.actions)} actions")
    print(f"review `{report.catalog}`, then: nextbest catalog publish {report.catalog}")
    return 0


def _simulate(options: argparse.Namespace, home: Path) -> int:  # noqa: ARG001  # every verb is called alike
    world = World(options.customers, options.seed)
    table, mapping = write_world(options.folder, world, options.decisions, options.end, options.seed)
    print(
        f"wrote {options.decisions} decisions on {options.customers} customers\nnext: nextbest import {table} --mapping {mapping}"
    )
    return 0


def _verbs() -> Verbs:
    verbs = Verbs()

    importing = verbs.add("import", _import, "take in a table of logged decisions")
    importing.add_argument("table", type=Path, metavar="TABLE", help="CSV or Parquet, .gz too")
    importing.add_argument("--mapping", type=Path, required=True, metavar="FILE", help="which column means what (TOML)")

    simulating = verbs.add("simulate", _simulate, "write a small world with known truth, ready to import")
    simulating.add_argument("folder", type=Path, metavar="FOLDER")
    simulating.add_argument("--customers", type=positive, default=4000)
    simulating.add_argument("--decisions", type=positive, default=12_000)
    simulating.add_argument("--seed", type=int, default=0)
    simulating.add_argument(
        "--end", type=float, default=time.time(), help="when its 30 days end, in seconds since 1970 (default now)"
    )
    return verbs
