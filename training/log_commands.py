"""`nextbest log verify | seal | tail | lake`: what was written down, looked at, put away, and followed."""

import argparse
import datetime as dt
import time
from collections.abc import Sequence
from pathlib import Path

from service.errors import BadRequest, NotReady
from service.files import DISK, put_file
from service.verbs import Verbs
from training.attribution import DAY, WINDOW, WINDOW_DAYS, ids_kept_s
from training.lake_store import POINTER, open_lake
from training.progress import progress_bar
from training.sealing import ManifestInvalid, log_kinds, remove_sealed, seal
from training.tailing import follow, latest
from training.verifying import LAKE_KINDS, verify


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:  # noqa: ARG001  # every command is called alike
    """Exit code: 0 done, 1 where something is damaged. Errors are raised for the command line to tell."""
    try:
        return _verbs().run(argv[1:], home)
    except ManifestInvalid as error:
        raise NotReady(str(error)) from error


def _verify(_options: argparse.Namespace, home: Path) -> int:
    with progress_bar("Verifying") as tell:
        found = verify(home, tell)
    for finding in found.findings:
        print(f"{finding.file}:{finding.offset}: {finding.reason}")
    print(
        f"{found.records:,} records in {found.segments:,} segments, {found.torn} torn tails; {found.sealed_rows:,} in "
        f"{found.sealed_files:,} sealed files, {found.unfinished} files left by a seal that was interrupted; "
        f"damage: {len(found.findings)}"
    )
    return 1 if found.findings else 0


def _seal(options: argparse.Namespace, home: Path) -> int:
    with progress_bar("Sealing") as tell:
        done = seal(home, options.before, progress=tell)
    print(
        f"sealed {done.records:,} records of {done.segments} segments; {done.growing} segments still grow; "
        f"kept beside them: {done.damaged} damaged lines, {done.torn} torn tails"
    )
    if options.remove:
        with progress_bar("Removing") as tell:
            removed = remove_sealed(home, time.time() - options.older_than * DAY, progress=tell)
        print(f"removed {removed} segments that are in the lake, whole, and older than {options.older_than:g} days")
    return 0


def _tail(options: argparse.Namespace, home: Path) -> int:
    known = sorted({*log_kinds(home), *LAKE_KINDS})
    if options.kind not in (None, *known):
        names = ", ".join(f"`{kind}`" for kind in known)
        raise BadRequest(f"Expected a kind of records ({names}), got `{options.kind}`")
    kinds = [options.kind] if options.kind else log_kinds(home)
    for kind, record in latest(home, kinds, options.lines):
        print(f"{kind}\t{record.decode(errors='replace')}", flush=True)
    if options.follow:
        for kind, record in follow(home, kinds):
            print(f"{kind}\t{record.decode(errors='replace')}", flush=True)
    return 0


def _lake(options: argparse.Namespace, home: Path) -> int:
    if options.url:
        if any((home / "lake").rglob("*.parquet")):
            raise NotReady(
                f"Expected a home whose lake is empty, found files: copy them there and remove them - at `{home}/lake`"
            )
        put_file(DISK, home.resolve() / POINTER, f"{options.url}\n".encode())
    print(open_lake(home).where)
    return 0


def _verbs() -> Verbs:
    verbs = Verbs("nextbest log", "What was written down.")

    verbs.add("verify", _verify, "every line and every file; changes nothing; exit code 1 on damage")
    sealing = verbs.add("seal", _seal, "segments that grow no more become sorted Parquet in the lake")
    sealing.add_argument(
        "--before", type=_moment, default=float("inf"), metavar="D", help="last written to before this day or moment, UTC"
    )
    sealing.add_argument("--remove", action="store_true", help="then remove segments that are in the lake, after comparing")
    sealing.add_argument(
        "--older-than", type=float, default=ids_kept_s() / DAY, metavar="DAYS",
        help=f"remove those older than this (default: {WINDOW}, {WINDOW_DAYS:g}, and a day: the service knows ids from them)",
    )  # fmt: skip
    tailing = verbs.add("tail", _tail, "the newest records")
    tailing.add_argument("kind", nargs="?", metavar="KIND", help="decisions, outcomes, events, ... (default: all)")
    tailing.add_argument("-n", "--lines", type=_lines, default=10, metavar="N", help="of each kind (default 10)")
    tailing.add_argument("--follow", "-f", action="store_true", help="go on with what comes")
    lake = verbs.add("lake", _lake, "where the lake lies, or shall lie")
    lake.add_argument("url", nargs="?", metavar="URL", help="anything that fsspec reaches, such as s3://bucket/folder")
    return verbs


def _lines(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"Expected a whole number, 0 or more, got `{text}`")
    return int(text)


def _moment(text: str) -> float:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"Expected a day like 2026-11-24, or RFC 3339, got `{text}`") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
