"""`nextbest journey report | show`: where customers go, where they turn in circles, where they leave."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from training.days import end_of, start_of
from training.journey_page import PICTURES, write_report
from training.journey_tables import journey_tables, path_table
from training.journeys import journey_path_of, journey_report
from training.progress import progress_bar
from training.summary import terminal


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:  # noqa: ARG001  # every command is called alike
    """Exit code: 0 done. Errors are raised for the command line to tell."""
    options = _parser().parse_args(argv[1:])
    if options.verb == "show":
        return _show(options, home)
    until = min(options.until, time.time())  # nobody has left by a time-out that is still to come
    with progress_bar("Following") as tell:
        report = journey_report(home, options.since, until, tell)
    if options.json:
        _print_json(report)
    else:
        journey_tables(report, terminal())
    if options.output is not None:
        write_report(report, options.output)
        if not options.json:
            print(f"wrote {options.output}")
    return 0


def _show(options: argparse.Namespace, home: Path) -> int:
    now = time.time()
    path = journey_path_of(home, options.customer, now)
    if options.json:
        _print_json([visit._asdict() for visit in path])
    else:
        path_table(options.customer, path, now, terminal())
    return 0


def _print_json(found: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nextbest journey", description="Customers' journeys, from all events on disk.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    reporting = verbs.add_parser("report", help="stages, flows, loops and drop-offs of all customers")
    reporting.add_argument("--since", type=start_of, metavar="DATE", help="visits that began on this day or later, UTC")
    reporting.add_argument("--until", type=end_of, default=float("inf"), metavar="DATE", help="as things stood at its end")
    reporting.add_argument("--output", type=_picture, metavar="FILE", help="with a picture: .html, .svg or .png")
    showing = verbs.add_parser("show", help="one customer's way, with moments and causes")
    showing.add_argument("customer", metavar="CUSTOMER", help="an id; an alias will do")
    for verb in (reporting, showing):
        verb.add_argument("--json", action="store_true", help="for machines")
    return parser


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in PICTURES:
        raise argparse.ArgumentTypeError(f"Expected a name that ends with {', '.join(PICTURES)}, got `{text}`")
    return path
