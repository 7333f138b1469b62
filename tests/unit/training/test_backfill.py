"""What a bundle's card says, what is left alone, and that Feast is loaded only where something is filled."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from features.contract import parse_contract
from features.homes import write_home_contract
from features.offline import offline_path, write_view
from service.bundles.manifest import Backfilled, Manifest
from service.errors import BadRequest
from service.registry import Registry
from training.backfill import BY_FEAST, BY_NOTHING, Logged, backfill, card
from training.learning_rules import read_rules

HOUSE = Path(__file__).resolve().parents[3]
AGE = "  - {name: age, type: number, origin: profile, max_age: 400d}\n"
MORE = "  - {name: tenure, type: number, origin: profile, max_age: 400d}\n"
LTV = "  - {name: ltv, type: number, origin: value, max_age: 7d, transactions: lifetime_value}\n"
CHURN = "  - {name: churn, type: number, origin: value, max_age: 7d, prediction: churn_risk}\n"
OLD, NEW = parse_contract(f"features:\n{AGE}"), parse_contract(f"features:\n{AGE}{MORE}")
DERIVED = parse_contract(f"transactions: {{type: purchased, amount: amount}}\nfeatures:\n{AGE}{LTV}{CHURN}")
AT = 1_790_000_000.0


def logged(contract: str, customers: list[str], at: float = AT) -> Logged:
    return Logged(np.array(customers), np.full(len(customers), at), pa.array([contract] * len(customers)), {})


def written(home: Path, view: str, customers: list[str], at: float = AT, **columns: list) -> None:
    moments = pa.array([round(at * 1e6)] * len(customers), pa.int64()).cast(pa.timestamp("us", "UTC"))
    write_view(home, view, pa.table({"customer_id": customers, "event_timestamp": moments, **columns}))


def nothing(rows: int) -> pa.Array:
    return pa.nulls(rows, pa.float64())


def test_a_table_that_does_not_have_the_feature_yet_fills_nothing(tmp_path: Path):
    """It was declared, and nobody has written it: neither without a file, nor with one of before."""
    write_home_contract(tmp_path, OLD)
    rows, values = logged(OLD.fingerprint, ["a"]), {"customer.age": pa.array([1.0]), "customer.tenure": nothing(1)}
    for table in (None, "profile"):
        if table is not None:
            written(tmp_path, table, ["a"], age=[1.0])
        write_home_contract(tmp_path, NEW)
        columns, told = backfill(tmp_path, NEW, rows, values)
        assert columns["customer.tenure"].to_pylist() == [None]
        assert told["customer.tenure"].summary(rows.decided_at) == Backfilled(1, 0, BY_FEAST)
        write_home_contract(tmp_path, OLD)
    assert offline_path(tmp_path, "profile").exists()


def test_what_is_worked_out_in_batch_is_filled_from_its_snapshots(tmp_path: Path):
    """Lifetime values and predictions as they were last written before the decision; without a snapshot they stay missing."""
    write_home_contract(tmp_path, DERIVED)
    written(tmp_path, "transactions", ["a", "b"], AT - 86_400, ltv=[10.0, 20.0])
    written(tmp_path, "transactions", ["a"], AT + 1, ltv=[99.0])
    written(tmp_path, "predictions", ["b"], AT - 8 * 86_400, churn=[0.5])
    keys = ("customer.age", "customer.ltv", "customer.churn")
    columns, told = backfill(tmp_path, DERIVED, logged(OLD.fingerprint, ["a", "b", "c", "a"]), {k: nothing(4) for k in keys})
    assert columns["customer.ltv"].to_pylist() == [10.0, 20.0, None, 10.0]
    assert columns["customer.churn"].to_pylist() == [None] * 4
    assert told["customer.ltv"].filled.tolist() == [True, True, False, True]
    assert "customer.age" not in told


def test_rows_of_several_contracts_are_told_apart(tmp_path: Path):
    """The one that knew the feature keeps its gap and its value; an imported table knows its own columns."""
    write_home_contract(tmp_path, NEW)
    written(tmp_path, "profile", ["a"], AT - 5, age=[7.0], tenure=[8.0])
    made = pa.array([OLD.fingerprint, NEW.fingerprint, NEW.fingerprint, "table:1", "nobody knows"])
    rows = Logged(np.array(["a"] * 5), np.full(5, AT), made, {"table:1": frozenset({"customer.tenure"})})
    values = {"customer.age": pa.array([1.0, None, 1.0, None, None]), "customer.tenure": pa.array([None, None, 2.0, None, None])}
    values = {key: column.cast(pa.float64()) for key, column in values.items()}
    columns, told = backfill(tmp_path, NEW, rows, values)
    assert columns["customer.age"].to_pylist() == [1.0, None, 1.0, 7.0, None]
    assert columns["customer.tenure"].to_pylist() == [8.0, None, 2.0, None, None]
    assert told["customer.tenure"].unrecorded.tolist() == [True, False, False, False, False]
    assert told["customer.tenure"].unknown.tolist() == [False, False, False, False, True]


def test_more_rows_than_are_joined_at_once_come_in_their_order(tmp_path: Path):
    """60,000 rows of 20,000 customers, each with its own value, and the bar is told of each part."""
    write_home_contract(tmp_path, NEW)
    names = [f"c{number}" for number in range(20_000)]
    written(tmp_path, "profile", names, AT - 5, age=[0.0] * 20_000, tenure=[float(n) for n in range(20_000)])
    chosen = np.random.default_rng(1).integers(0, 20_000, 60_000)
    rows = Logged(np.array([names[n] for n in chosen]), AT + np.arange(60_000) / 1000, pa.array([OLD.fingerprint] * 60_000), {})
    heard: list[tuple[int, int]] = []
    values = {"customer.age": pa.array(np.ones(60_000)), "customer.tenure": nothing(60_000)}
    columns, _ = backfill(tmp_path, NEW, rows, values, lambda done, of: heard.append((done, of)))
    np.testing.assert_array_equal(columns["customer.tenure"].to_numpy(), chosen.astype(float))
    assert heard == [(50_000, 60_000), (60_000, 60_000)]


def test_a_card_says_what_was_filled_and_what_could_not_be():
    """In words, a line for each feature."""
    found = {
        "customer.a": Backfilled(1000, 900, BY_FEAST, AT, AT + 86_400.0, 3),
        "context.b": Backfilled(10, 0, BY_NOTHING),
        "customer.c": Backfilled(0, 0, BY_FEAST, unknown=5),
    }
    doubt = "5 rows of a contract that nobody knows any more stay without it"
    filled = f"900 of 1,000 rows that could not record it were filled ({BY_FEAST}, 2026-09-21 to 2026-09-22)"
    assert card(found) == (
        f"`customer.a`: {filled}; {doubt.replace('5', '3')}",
        "`context.b`: none of 10 rows filled (nothing: only the request could tell)",
        f"`customer.c`: {doubt}",
    )


def test_a_bundle_of_before_says_nothing_and_loads(trained_home: Path):
    """Its manifest has no such field."""
    registry = Registry(trained_home / "registry")
    written_as = msgspec.json.decode((registry.bundle_folder(registry.bundles()[0]) / "manifest.json").read_bytes())
    del written_as["backfilled"]
    assert msgspec.json.decode(msgspec.json.encode(written_as), type=Manifest).backfilled == {}


@pytest.mark.parametrize("text", ['backfill = "duckdb"', "backfil = 1"])
def test_another_way_to_fill_is_refused(tmp_path: Path, text: str):
    """By its name, and with those that there are."""
    (tmp_path / "learning.toml").write_text(f"[training]\n{text}\n")
    with pytest.raises(BadRequest, match=r"`?(backfill|duckdb)"):
        read_rules(tmp_path)


def test_a_training_with_nothing_to_fill_does_not_load_feast(trained_home: Path, tmp_path: Path):
    """It takes seconds, and few trainings need it; where there is something, it is there."""
    home = Path(shutil.copytree(trained_home, tmp_path / "home"))
    code = (
        "import sys, pathlib; from training.learn import prepare; "
        f"prepare(pathlib.Path({str(home)!r}), 'click'); print('feast' in sys.modules)"
    )
    said = []
    for text in ("", MORE.replace("tenure", "one_more")):
        with (home / "features" / "features.yaml").open("a") as document:
            document.write(text.removeprefix("  "))
        said.append(
            subprocess.run([sys.executable, "-c", code], cwd=HOUSE, check=True, capture_output=True, text=True).stdout.split()[-1]
        )
    assert said == ["False", "True"]
