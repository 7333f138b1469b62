"""`nextbest catalog check | publish | list`."""

import argparse
import datetime as dt
import getpass
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from features.homes import home_contract
from service.catalog.entities import Catalog
from service.catalog.validate import parse_catalog
from service.errors import CatalogInvalid
from service.registry import Registry

UNKNOWN_AUTHOR = "unknown"  # a container may run under a number without a name


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:  # noqa: ARG001  # every command is called alike
    """Exit code: 0 done, 1 where the catalog has mistakes."""
    options = _parser().parse_args(argv[1:])
    registry = Registry(home / "registry")
    if options.verb == "list":
        return _list(registry)
    try:
        document, catalog = _read(Path(options.file), home)
    except CatalogInvalid as error:
        return _refuse(error)
    if options.verb == "check":
        print(f"ok: {summary(catalog)}")
        return 0
    return _publish(registry, document, catalog, options)


def summary(catalog: Catalog) -> str:
    """What a catalog holds, in one line."""
    groups = len({a.group for a in catalog.actions})
    rules = len({rule.key for a in catalog.actions for rule in a.rules})
    return (
        f"{len(catalog.actions)} actions in {groups} groups, {len(catalog.placements)} placements, "
        f"{rules} distinct rules, fingerprint {catalog.fingerprint}"
    )


def _read(path: Path, home: Path) -> tuple[dict[str, Any], Catalog]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CatalogInvalid([f"{path.name}: Expected UTF-8, got other bytes - at byte {error.start}"]) from error
    except OSError as error:
        raise CatalogInvalid([f"Expected a readable catalog, got `{error.strerror}` - at `{path}`"]) from error
    return parse_catalog(text, home_contract(home), path.name)


def _refuse(error: CatalogInvalid) -> int:
    for problem in error.problems:
        print(f"error: {problem}", file=sys.stderr)
    count = len(error.problems)
    print(f"{count} mistake{'s' if count > 1 else ''}; nothing was published", file=sys.stderr)
    return 1


def _publish(registry: Registry, document: dict[str, Any], catalog: Catalog, options: argparse.Namespace) -> int:
    serving = registry.current().catalog
    if serving is not None and registry.catalog(serving).fingerprint == catalog.fingerprint:
        print(f"revision {serving} already serves this content: nothing to publish")
        return 0
    note = options.note if options.note is not None else str(document.get("note") or "")
    author = options.author or _login()
    at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    revision = registry.publish_catalog(document, fingerprint=catalog.fingerprint, author=author, note=note, at=at)
    print(f"published revision {revision}: {summary(catalog)}")
    return 0


def _list(registry: Registry) -> int:
    serving = registry.current().catalog
    for number in registry.revisions():
        revision = registry.catalog(number)
        mark = "*" if number == serving else " "
        print(f"{mark} {number:>4}  {revision.at}  {revision.fingerprint}  {revision.author}  {revision.note}".rstrip())
    if serving is None:
        print(f"no catalog was published - at `{registry.root}`")
    return 0


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # KeyError until Python 3.12
        return UNKNOWN_AUTHOR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nextbest catalog", description="What can be offered: checked, published, listed.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("check", help="name every mistake with its line").add_argument("file", metavar="FILE")
    publish = verbs.add_parser("publish", help="check, store as the next revision, and let it serve")
    publish.add_argument("file", metavar="FILE")
    publish.add_argument("--note", help="why (default: the document's note)")
    publish.add_argument("--author", help="who (default: the login name)")
    verbs.add_parser("list", help="the published revisions; * serves")
    return parser
