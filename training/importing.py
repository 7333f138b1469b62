"""`nextbest import`: a foreign table of logged decisions becomes decisions, outcomes, features, and a catalog to start from."""

import datetime as dt
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from features.contract import CUSTOMER_VIEWS, Contract, Feature, parse_contract
from features.homes import contract_path, home_contract, home_journey, write_home_contract
from features.offline import write_view
from service.errors import ImportInvalid
from service.files import DISK, put_file
from training.drafting import draft_catalog
from training.lake import DECISION_COLUMNS, IMPRESSION, MOMENT, OUTCOME_COLUMNS, imported_rows, write_by_day
from training.mapping import LITERAL, TableMapping, read_mapping
from training.tables import Columns, absent_columns, read_table

YEAR = 365 * 86_400.0
SNAPSHOT_AGE = 10 * YEAR  # a foreign table is a snapshot: its values do not grow old until fresher ones come
MOST_CATEGORIES = 100_000  # what a feature document holds
STEPS = 6

Progress = Callable[[int, int], None]
Attributes = dict[str, dict[str, float | str]]  # by action


class ImportReport(NamedTuple):
    """What came in. `already`: this table with this mapping was imported before, and nothing was changed."""

    rows: int
    outcomes: int
    actions: tuple[str, ...]
    contract: Contract
    catalog: Path
    already: bool


class _Log(NamedTuple):
    """The table in our terms: arrays of equal length, and what the actions are like."""

    decisions: dict[str, pa.Array]
    values: dict[str, pa.Array]  # `customer.<name>` and `context.<name>`
    outcomes: dict[str, pa.Array]  # type -> value; null where there is none
    attributes: Attributes


def import_table(home: Path, table: Path, mapping: Path, progress: Progress = lambda _done, _of: None) -> ImportReport:
    """Take in a table. Raises ImportInvalid with every mistake; then nothing was written."""
    meaning = read_mapping(mapping)
    name = f"import-{_fingerprint(table, mapping)}"
    progress(1, STEPS)
    log = _read(table, mapping, meaning, name)
    progress(2, STEPS)
    contract = _contract(home, meaning, mapping, log)
    actions = tuple(sorted({*pc.unique(log.decisions["action_id"]).to_pylist(), *log.attributes}))
    decisions, outcomes = _decisions(log), _outcomes(log)
    already = imported_rows(home, name) == decisions.num_rows
    report = ImportReport(decisions.num_rows, outcomes.num_rows, actions, contract, home / "catalog.yaml", already)
    if report.already:
        progress(STEPS, STEPS)
        return report
    # A catalog that is there already is somebody's work and stays.
    catalog = None if report.catalog.exists() else _catalog(report.actions, meaning, mapping, log)
    if not contract_path(home).exists():
        write_home_contract(home, contract)
    progress(3, STEPS)
    _write_views(home, contract, log)
    progress(4, STEPS)
    write_by_day(home, "outcomes", name, outcomes, "at")
    progress(5, STEPS)
    if catalog is not None:
        put_file(DISK, report.catalog, catalog.encode())  # whole or not at all: what is there is somebody's work
    write_by_day(home, "decisions", name, decisions, "decided_at")  # last: all of them there says that the import is complete
    progress(STEPS, STEPS)
    return report


def import_features(home: Path, table: Path, mapping: Path) -> int:
    """Take in what a table says of its customers, and none of its decisions; the number of rows.

    The contract of the home stays as it is. Raises ImportInvalid with every mistake; then nothing was written.
    """
    meaning = read_mapping(mapping)
    log = _read(table, mapping, meaning, f"features-{_fingerprint(table, mapping)}")
    _write_views(home, _fitting(home_contract(home), meaning, mapping), log)
    return len(log.decisions["customer_id"])


def _fingerprint(table: Path, mapping: Path) -> str:
    if not table.is_file():
        raise ImportInvalid([f"Expected a table, found none - at `{table}`"])
    return hashlib.sha256(table.read_bytes() + mapping.read_bytes()).hexdigest()[:12]


def _read(path: Path, mapping: Path, meaning: TableMapping, name: str) -> _Log:
    table = read_table(path, meaning.texts)
    missing = [f"{mapping.name}: {problem}" for problem in absent_columns(table, meaning.columns, path.name)]
    if missing or not table.num_rows:
        raise ImportInvalid(missing or [f"{path.name}: Expected rows, found none"])
    columns = Columns(table, path.name)
    decisions = _decision_columns(columns, meaning, name)
    values = {f"customer.{c}": _value(columns, c, kind) for c, kind in meaning.features.items()}
    values |= {f"context.{c}": _value(columns, c, kind) for c, kind in meaning.context.items()}
    outcomes = {c: _outcome(columns, c, kind) for c, kind in meaning.outcomes.items()}
    attributes = _attributes(mapping, meaning, columns.problems)
    if columns.problems:
        raise ImportInvalid(columns.problems)
    return _Log(decisions, values, outcomes, attributes)


def _decision_columns(columns: Columns, meaning: TableMapping, name: str) -> dict[str, pa.Array]:
    rows = columns.table.num_rows
    ids, first = pa.array([f"{name}-{row}" for row in range(rows)]), pa.repeat(pa.scalar(1, pa.int32()), rows)
    # a moment to come would make all other decisions look old enough for their outcomes to be known
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    known = isinstance(meaning.choice_probability, str)
    return {
        "decision_id": ids,
        "customer_id": columns.text(meaning.customer_id, required=True) if meaning.customer_id else ids,
        "decided_at": columns.moment(meaning.decided_at, now) if meaning.decided_at else pa.repeat(pa.scalar(now, MOMENT), rows),
        "placement": _literal_or_column(columns, meaning.placement),
        "slot": columns.slot(meaning.slot) if meaning.slot else first,
        "action_id": _literal_or_column(columns, meaning.action_id),
        "choice_probability": columns.probability(str(meaning.choice_probability))
        if known
        else pa.repeat(pa.scalar(float(meaning.choice_probability)), rows),
        "source": pa.repeat("import", rows),
    }  # fmt: skip


def _literal_or_column(columns: Columns, name: str) -> pa.Array:
    if name.startswith(LITERAL):
        return pa.repeat(name.removeprefix(LITERAL), columns.table.num_rows)
    return columns.identifier(name)


def _value(columns: Columns, name: str, kind: str) -> pa.Array:
    return columns.number(name) if kind == "number" else columns.text(name)


def _outcome(columns: Columns, name: str, kind: str) -> pa.Array:
    """The value of an outcome where there is one, null where there is none."""
    values = columns.binary(name) if kind == "binary" else columns.number(name)
    return pc.if_else(pc.equal(values, 0.0), None, values)


def _attributes(mapping: Path, meaning: TableMapping, problems: list[str]) -> Attributes:
    if meaning.actions_table is None or meaning.actions_key is None:
        return {}
    names = [column for column, kind in meaning.attributes.items() if kind == "category"]
    table = read_table(mapping.parent / meaning.actions_table, [meaning.actions_key, *names])
    wanted = {column: f"actions.{column}" for column in meaning.attributes} | {meaning.actions_key: "actions.key"}
    missing = absent_columns(table, wanted, meaning.actions_table)
    if missing:
        problems.extend(f"{mapping.name}: {problem}" for problem in missing)
        return {}
    columns = Columns(table, meaning.actions_table)
    values = {c: columns.identifier(c, required=False) if c in names else columns.number(c) for c in meaning.attributes}
    keys = columns.identifier(meaning.actions_key).to_pylist()
    problems.extend(columns.problems)
    known = {c: v.to_pylist() for c, v in values.items()}
    return {key: {c: known[c][row] for c in known if known[c][row] is not None} for row, key in enumerate(keys)}


def _contract(home: Path, meaning: TableMapping, mapping: Path, log: _Log) -> Contract:
    """The contract of the home: as it is, as the mapping's author wrote it, or derived from the table."""
    if contract_path(home).exists():
        return _fitting(home_contract(home), meaning, mapping)
    if meaning.contract_file:
        return _fitting(
            parse_contract(_beside(mapping, meaning.contract_file), meaning.contract_file, home_journey(home)), meaning, mapping
        )
    features = (*(_feature(f"customer.{c}", k, meaning, log) for c, k in meaning.features.items()),
                *(_feature(f"context.{c}", k, meaning, log) for c, k in meaning.context.items()))  # fmt: skip
    problems = [
        f"{mapping.name}: Expected at most {MOST_CATEGORIES} values of a category, got {len(f.categories)} - at `{f.key}`"
        for f in features if len(f.categories) > MOST_CATEGORIES
    ]  # fmt: skip
    if problems:
        raise ImportInvalid(problems)
    return Contract(features)


def _fitting(contract: Contract, meaning: TableMapping, mapping: Path) -> Contract:
    """The contract. Raises ImportInvalid where the mapping's features are not in it."""
    wanted = {f"customer.{c}": k for c, k in meaning.features.items()} | {f"context.{c}": k for c, k in meaning.context.items()}
    problems = []
    for key, kind in wanted.items():
        found = contract.find(key)
        if found is None or found.type != kind:
            got = f"a {found.type}" if found else "none"
            problems.append(f"{mapping.name}: Expected `{key}` as a {kind} in the feature document of this home, found {got}")
    if problems:
        raise ImportInvalid([*problems, "Use another --home for a table with other features, or change features/features.yaml"])
    return contract


def _beside(mapping: Path, name: str) -> str:
    """A document that the mapping names. Raises ImportInvalid where it is none."""
    try:
        return (mapping.parent / name).read_text()
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
        raise ImportInvalid([f"{mapping.name}: Expected a document to read under [home], got `{name}`: {error}"]) from error


def _feature(key: str, kind: str, meaning: TableMapping, log: _Log) -> Feature:
    scope, name = key.split(".", 1)
    categories = tuple(sorted(v for v in pc.unique(log.values[key]).to_pylist() if v is not None)) if kind == "category" else ()
    origin = "context" if scope == "context" else meaning.views.get(name, "profile")
    return Feature(
        name=name, type="category" if kind == "category" else "number", origin=origin,  # type: ignore[arg-type]  # checked views
        max_age=None if scope == "context" else SNAPSHOT_AGE, categories=categories or (("",) if kind == "category" else ()),
    )  # fmt: skip


def _decisions(log: _Log) -> pa.Table:
    columns = {name: log.decisions[name] for name in DECISION_COLUMNS} | log.values
    return pa.table(columns)


def _outcomes(log: _Log) -> pa.Table:
    """An impression for every decision, since it was shown, and the outcomes that there are."""
    tables = [_outcome_rows(log, IMPRESSION, pa.repeat(0.0, len(log.decisions["decision_id"])))]
    tables += [_outcome_rows(log, kind, values) for kind, values in log.outcomes.items()]
    return pa.concat_tables(tables)


def _outcome_rows(log: _Log, kind: str, values: pa.Array) -> pa.Table:
    there, decided = pc.is_valid(values), log.decisions
    rows = {
        "outcome_id": pc.binary_join_element_wise(decided["decision_id"], pa.scalar(kind), "-"),
        "decision_id": decided["decision_id"], "type": pa.repeat(kind, len(values)), "value": values,
        "at": decided["decided_at"], "placement": decided["placement"], "action_id": decided["action_id"],
    }  # fmt: skip
    return pa.table(rows, schema=pa.schema(OUTCOME_COLUMNS)).filter(there)


def write_customer_views(
    home: Path, contract: Contract, customers: pa.Array, moments: pa.Array, values: dict[str, pa.Array]
) -> None:
    """Customer features into the offline tables: those that `values` (`customer.<name>`) names.

    What events, transactions or predictions feed is left to them.
    """
    for view in CUSTOMER_VIEWS:
        given = [f for f in contract.customer if f.view == view]
        columns = {f.name: values.get(f.key, pa.nulls(len(customers), _arrow_type(f))) for f in given}
        if any(f.key in values for f in given):
            write_view(home, view, pa.table({"customer_id": customers, "event_timestamp": moments, **columns}))


def _arrow_type(feature: Feature) -> pa.DataType:
    return pa.float64() if feature.type == "number" else pa.string()


def _write_views(home: Path, contract: Contract, log: _Log) -> None:
    write_customer_views(home, contract, log.decisions["customer_id"], log.decisions["decided_at"], log.values)


def _catalog(actions: Sequence[str], meaning: TableMapping, mapping: Path, log: _Log) -> str:
    """What there is to review: the catalog that the mapping names, or a draft."""
    if meaning.catalog_file:
        return _beside(mapping, meaning.catalog_file)
    placements: Sequence[str] = sorted(pc.unique(log.decisions["placement"]).to_pylist())
    return draft_catalog(actions, placements, meaning.attributes, log.attributes)
