"""Logged decisions as a table: every served item once, with what the log says of it and what came of it."""

import datetime as dt
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from msgspec import Raw

from features.homes import home_contract
from service.decision.records import DecisionRecord, OutcomeRecord, PlacementRecord, ServedItem, Versions
from service.errors import BadRequest, NotReady
from tests.conftest import SHOP_DECISIONS, SHOP_ENDS
from tests.unit.training.conftest import write_log
from training.decision_log import read_decisions
from training.examples import Objective, load_examples
from training.frames import BATCH_ROWS, load_decisions

HOUSE = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((HOUSE / "docs" / "examples").glob("*.py"))
polars_there = importlib.util.find_spec("polars") is not None


@pytest.fixture(scope="module")
def frame(busy_home):
    """Imported decisions, and those of the service."""
    return load_decisions(busy_home, as_="pandas")


def test_rows_and_outcomes_are_those_that_training_learns_from(busy_home, frame):
    """The same items in the same order; a click is a click, and a value a value."""
    contract = home_contract(busy_home)
    for objective, column in (("click", frame["outcome.click"] > 0), ("value:conversion", frame["value.conversion"])):
        examples = load_examples(busy_home, Objective(objective), contract)
        shown = (frame["responses"] > 0).to_numpy()
        assert frame["decision_id"][shown].tolist() == examples.decision_id.to_pylist()
        np.testing.assert_array_equal(column[shown].to_numpy(np.float64), examples.label)
    for feature in contract.features:
        assert frame[feature.key][shown].dropna().tolist() == examples.values[feature.key].drop_null().to_pylist()


def test_a_decision_of_the_service_brings_what_was_served(busy_home, frame):
    """Rates, utilities, exploration, versions and arm are those of the record; an imported row has none of them."""
    live = frame[frame["source"] == "live"].set_index("decision_id")
    for logged in read_decisions(busy_home):
        record = logged.record
        if record.placements[0].fallback:
            assert record.decision_id not in live.index
            continue
        [item], row = record.placements[0].items, live.loc[record.decision_id]
        assert (row["predicted_rate"], row["utility"], row["explored"]) == (item.predicted_rate, item.utility, item.explored)
        assert (row["treatment_id"], row["slot"], row["placement"]) == (item.treatment_id, item.rank, record.placements[0].id)
        assert (row["catalog"], row["bundle"]) == (record.versions.catalog, record.versions.bundle)
        assert row["arm"] == (record.experiment.arm if record.experiment else None)
    assert set(live["arm"]) >= {"as_it_is", "chance"}
    imported = frame[frame["source"] != "live"]
    assert imported[["predicted_rate", "bundle", "arm"]].isna().all().all()


def test_a_span_of_time_ends_before_its_end(busy_home, frame):
    """The service began where the history ended: from there on its own rows, before it the imported ones, none in both."""
    border = dt.datetime.fromtimestamp(SHOP_ENDS, dt.UTC)
    before, since = (load_decisions(busy_home, as_="pandas", **span) for span in ({"end": border}, {"start": SHOP_ENDS}))
    assert set(since["source"]) == {"live"}
    assert len(before) <= SHOP_DECISIONS
    assert len(before) + len(since) == len(frame)


def test_batches_have_one_schema_and_leave_nothing_behind(busy_home, frame, tmp_path):
    """Read in part or to the end: the temporary file is gone."""
    reader = load_decisions(busy_home, scratch=tmp_path)
    assert isinstance(reader, pa.RecordBatchReader)
    batches = list(reader)
    assert sum(batch.num_rows for batch in batches) == len(frame)
    assert all(batch.schema == reader.schema and batch.num_rows <= BATCH_ROWS for batch in batches)
    half = load_decisions(busy_home, scratch=tmp_path)
    assert half.read_next_batch().num_rows > 0
    assert list(tmp_path.iterdir())
    del half
    assert not list(tmp_path.iterdir())


def test_an_empty_home_is_an_empty_table(tmp_path):
    """The columns are there, and nothing in them."""
    table = load_decisions(tmp_path).read_all()
    assert table.num_rows == 0
    assert {"decision_id", "predicted_rate", "customer.age"} <= set(table.column_names)


def test_what_cannot_be_given_is_refused_by_name(busy_home):
    """Another library, and a moment that might be anywhere."""
    with pytest.raises(BadRequest, match="Expected `arrow`, `pandas` or `polars`, got `numpy` - at `as_`"):
        load_decisions(busy_home, as_="numpy")
    with pytest.raises(BadRequest, match="with a time zone, got `2026-01-01 00:00:00` - at `start`"):
        load_decisions(busy_home, dt.datetime(2026, 1, 1))  # noqa: DTZ001  # a moment without a zone is the point


@pytest.mark.skipif(polars_there, reason="polars is installed: the error is for those who lack it")
def test_without_polars_the_error_says_what_to_install(busy_home):
    """Nothing is read before."""
    with pytest.raises(NotReady, match="pip install polars - at `as_`"):
        load_decisions(busy_home, as_="polars")


@pytest.mark.skipif(not polars_there, reason="polars is not installed: pip install polars")
def test_polars_has_the_same_figures(busy_home, frame):
    """A frame of polars' own."""
    found = load_decisions(busy_home, as_="polars")
    assert found["outcome.click"].sum() == frame["outcome.click"].sum()
    assert found.columns == list(frame.columns)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_of_the_documentation_runs(own_home, example):
    """As a reader would run it, on the simulated shop."""
    command = [sys.executable, str(example), str(own_home)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(HOUSE)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("types", [("impression", "visit"), ()])
def test_the_example_of_a_data_frame_takes_whatever_came_of_decisions(tmp_path, types):
    """A home where nobody clicks or buys, and one where nothing came of anything yet."""
    item = ServedItem(1, "gold", "gold_card", "offer", 0.1, 0.1, 0.5, explored=False)
    place = PlacementRecord("hero", 1, (item,), False, ("gold",), Raw(b"[0.1]"), Raw(b"[0.1]"))
    record = DecisionRecord("d1", "c1", SHOP_ENDS, {}, {}, (place,), Versions(1, None, "x"), ())
    write_log(tmp_path, [record], [OutcomeRecord(f"o-{kind}", "d1", kind, SHOP_ENDS + 1, SHOP_ENDS + 1) for kind in types])
    command = [sys.executable, str(HOUSE / "docs" / "examples" / "load_decisions.py"), str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(HOUSE)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"1 items, {len(types):.4f} outcomes each" in done.stdout


def test_there_are_examples():
    """Three of them, so that the test above tests something."""
    assert len(EXAMPLES) == 3
