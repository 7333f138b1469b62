"""A real log through the door: what is counted in the file is what is counted in the home."""

import csv
import gzip
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc
import pytest

from features.offline import read_view
from service.catalog.validate import parse_catalog
from tests.acceptance.row import NotRun
from tests.acceptance.rows.hillstrom import MAPPING, table_path
from training.importing import ImportReport, import_table
from training.lake import read_tables

ROOT = Path(__file__).resolve().parents[3]
OUTCOMES = ("visit", "conversion", "spend")


class Imported(NamedTuple):
    """The file as the standard library reads it, and the home that it was imported into."""

    rows: list[dict[str, str]]
    home: Path
    report: ImportReport


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Imported:
    try:
        table = table_path(ROOT)
    except NotRun as reason:
        pytest.skip(str(reason))
    home = tmp_path_factory.mktemp("hillstrom")
    report = import_table(home, table, ROOT / MAPPING)
    with gzip.open(table, "rt", newline="") as file:
        return Imported(list(csv.DictReader(file)), home, report)


def counts(home: Path, kind: str, column: str) -> Counter[str]:
    return Counter(value for table in read_tables(home, kind) for value in table[column].to_pylist())


def test_every_row_of_the_file_is_a_decision_of_its_customer(imported):
    """As many rows, as many customers, and each action as often as in the file."""
    assert imported.report.rows == len(imported.rows)
    assert counts(imported.home, "decisions", "action_id") == Counter(row["segment"] for row in imported.rows)
    assert counts(imported.home, "decisions", "customer_id") == Counter(row["customer_id"] for row in imported.rows)


def test_every_outcome_of_the_file_is_in_the_lake_and_no_other(imported):
    """Impressions for all; visits, conversions and what was spent add up to the cent."""
    responded = {kind: [float(row[kind]) for row in imported.rows if float(row[kind])] for kind in OUTCOMES}
    expected = Counter({kind: len(values) for kind, values in responded.items()}, impression=len(imported.rows))
    assert counts(imported.home, "outcomes", "type") == expected
    assert imported.report.outcomes == expected.total()
    spent = sum(
        pc.sum(table["value"].filter(pc.equal(table["type"], "spend"))).as_py()
        for table in read_tables(imported.home, "outcomes")
    )
    assert round(spent, 2) == round(sum(responded["spend"]), 2)


def test_every_value_of_the_file_is_in_the_offline_tables(imported):
    """Customer by customer, numbers as numbers and categories as written."""
    customers = sorted(imported.rows, key=lambda row: row["customer_id"])
    for view in ("profile", "activity", "value"):
        found = read_view(imported.home, view)
        assert found["customer_id"].to_pylist() == [row["customer_id"] for row in customers]
        for feature in found.column_names[2:]:
            kind = type(found[feature][0].as_py())
            assert found[feature].to_pylist() == [kind(row[feature]) for row in customers], feature


def test_its_drafted_catalog_is_good_and_leaves_some_alone(imported):
    """Two offers and nothing, at one placement."""
    catalog = parse_catalog(imported.report.catalog.read_text(), imported.report.contract)[1]
    assert {action.id: action.kind for action in catalog.actions} == {
        "Mens E-Mail": "offer",
        "Womens E-Mail": "offer",
        "No E-Mail": "nothing",
    }
    assert list(catalog.placements) == ["email"]
