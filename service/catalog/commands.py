"""`nextbest catalog check | publish | revert | history | diff | schema`."""

import argparse
import datetime as dt
import getpass
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from features.homes import home_contract
from service.catalog.entities import Catalog
from service.catalog.lives import differences
from service.catalog.schema import catalog_schema
from service.catalog.validate import load_catalog, read_catalog
from service.errors import CatalogInvalid, nearest
from service.registry import Registry
from service.verbs import Verbs

CURRENT = "current"  # in place of the number of the revision that serves
UNKNOWN_AUTHOR = "unknown"  # a container may run under a number without a name


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:  # noqa: ARG001  # every command is called alike
    """Exit code: 0 done, 1 where the catalog has mistakes."""
    try:
        return _verbs().run(argv[1:], home)
    except CatalogInvalid as error:
        return _refuse(error)


def _check(options: argparse.Namespace, home: Path) -> int:
    catalog = read_catalog(options.file, home_contract(home))[1]
    _expect_bundles(catalog, Registry(home / "registry"))
    print(f"ok: {summary(catalog)}")
    return 0


def _expect_bundles(catalog: Catalog, registry: Registry) -> None:
    """Bundles that arms name, beside those there are. Raises CatalogInvalid."""
    bundles = registry.bundles()
    named = [(f"experiments.{e.id}.arms.{a.id}.bundle", a.bundle) for e in catalog.experiments for a in e.arms if a.bundle]
    lacking = [
        f"Expected a bundle of the registry{nearest(name, bundles)}, got `{name}` - at `{where}`"
        for where, name in named if name not in bundles
    ]  # fmt: skip
    if lacking:
        raise CatalogInvalid(lacking)


def summary(catalog: Catalog) -> str:
    """What a catalog holds, in one line."""
    groups = len({a.group for a in catalog.actions})
    rules = len({rule.key for a in catalog.actions for rule in a.rules})
    return (
        f"{len(catalog.actions)} actions in {groups} groups, {len(catalog.placements)} placements, "
        f"{rules} distinct rules, fingerprint {catalog.fingerprint}"
    )


def _refuse(error: CatalogInvalid) -> int:
    for problem in error.problems:
        print(f"error: {problem}", file=sys.stderr)
    count = len(error.problems)
    print(f"{count} mistake{'s' if count > 1 else ''}; nothing was published", file=sys.stderr)
    return 1


def _publish(options: argparse.Namespace, home: Path) -> int:
    document, catalog = read_catalog(options.file, home_contract(home))
    note = options.note if options.note is not None else str(document.get("note") or "")
    return _store(home, document, catalog, note, options.author)


def _store(home: Path, document: dict[str, Any], catalog: Catalog, note: str, author: str | None) -> int:
    registry = Registry(home / "registry")
    _expect_bundles(catalog, registry)
    serving = registry.current().catalog
    if serving is not None and registry.catalog(serving).fingerprint == catalog.fingerprint:
        print(f"revision {serving} already serves this content: nothing to publish")
        return 0
    revision = registry.publish_catalog(
        document, fingerprint=catalog.fingerprint, author=author or _login(), note=note, at=_now()
    )
    print(f"published revision {revision}: {summary(catalog)}")
    return 0


def _history(options: argparse.Namespace, home: Path) -> int:  # noqa: ARG001  # every verb is called alike
    registry = Registry(home / "registry")
    serving = registry.current().catalog
    for number in registry.revisions():
        revision = registry.catalog(number)
        mark = "*" if number == serving else " "
        print(f"{mark} {number:>4}  {revision.at}  {revision.fingerprint}  {revision.author}  {revision.note}".rstrip())
    if serving is None:
        print(f"no catalog was published - at `{registry.root}`")
    return 0


def _diff(options: argparse.Namespace, home: Path) -> int:
    before, after = (_document(reference, home) for reference in (options.before, options.after))
    found = list(differences({**before, "note": None}, {**after, "note": None}))
    for difference in found:
        print(difference.text)
    print(f"{len(found)} difference{'' if len(found) == 1 else 's'}")
    return 0


def _document(reference: str, home: Path) -> dict[str, Any]:
    """A revision by its number, what serves by `current`, or a file."""
    registry = Registry(home / "registry")
    number = registry.current().catalog if reference == CURRENT else int(reference) if reference.isdecimal() else None
    if number is not None:
        return dict(registry.catalog(number).document)
    return read_catalog(Path(reference), home_contract(home))[0]


def _revert(options: argparse.Namespace, home: Path) -> int:
    old = Registry(home / "registry").catalog(options.revision)
    note = options.note if options.note is not None else f"back to revision {old.revision}"
    return _store(home, old.document, load_catalog(old.document, home_contract(home)), note, options.author)


def _schema(options: argparse.Namespace, home: Path) -> int:  # noqa: ARG001  # every verb is called alike
    print(schema_text(), end="")
    return 0


def schema_text() -> str:
    """The JSON Schema of catalogs, as it is published in docs/catalog.schema.json."""
    return msgspec.json.format(msgspec.json.encode(catalog_schema()), indent=1).decode() + "\n"


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # KeyError until Python 3.12
        return UNKNOWN_AUTHOR


def _verbs() -> Verbs:
    verbs = Verbs("nextbest catalog", "What can be offered: checked, published, compared.")

    verbs.add("check", _check, "name every mistake with its line").add_argument("file", metavar="FILE", type=Path)
    publish = verbs.add("publish", _publish, "check, store as the next revision, and let it serve")
    publish.add_argument("file", metavar="FILE", type=Path)
    revert = verbs.add("revert", _revert, "publish an earlier revision again, as the next one")
    revert.add_argument("revision", metavar="N", type=int)
    for storing in (publish, revert):
        storing.add_argument("--note", help="why (default: the document's note)")
        storing.add_argument("--author", help="who (default: the login name)")
    verbs.add("history", _history, "every revision with time, author and note; * serves")
    verbs.add("list", _history, "the same as history")
    diff = verbs.add("diff", _diff, "where two catalogs differ")
    diff.add_argument("before", metavar="A", help=f"a revision's number, `{CURRENT}`, or a file")
    diff.add_argument("after", metavar="B", nargs="?", default=CURRENT, help=f"the same (default `{CURRENT}`)")
    verbs.add("schema", _schema, "print the JSON Schema, for editors")
    return verbs
