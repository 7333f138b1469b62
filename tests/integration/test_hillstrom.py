"""A real randomised log: what is known of it must come out, and the README must say what came out."""

import csv
import gzip
import math
import os
import re
from pathlib import Path

import pytest

from service.cli import main
from training.evaluate import evaluate
from training.importing import import_table
from training.judging import Report
from training.learn import train

HOUSE = Path(__file__).resolve().parents[2]
MAPPING = HOUSE / "training" / "demo" / "hillstrom.toml"
ROW = re.compile(r"^\| (?P<name>[^|]+?) \| (?P<value>[-+\d.]+) \| (?P<low>[-+\d.]+) to (?P<high>[-+\d.]+) \|", re.MULTILINE)


@pytest.fixture(scope="module")
def table() -> Path:
    data = Path(os.environ.get("NEXTBEST_DATA") or HOUSE.parent / "shared" / "data")
    path = data / "hillstrom" / "emails.csv.gz"
    if not path.is_file():
        pytest.skip("the Hillstrom log is not here: set NEXTBEST_DATA to a folder that holds hillstrom/emails.csv.gz")
    return path


@pytest.fixture(scope="module")
def report(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    home = tmp_path_factory.mktemp("hillstrom")
    imported = import_table(home, table, MAPPING)
    assert main(["--home", str(home), "catalog", "publish", str(imported.catalog)]) == 0
    train(home, "visit")
    return evaluate(home)


def test_always_one_arm_is_worth_what_the_arm_was(table: Path, report: Report):
    """A static policy's value is the mean of its arm, which is on file: within two standard errors."""
    with gzip.open(table, "rt", newline="") as rows:
        visits = [(row["segment"], int(row["visit"])) for row in csv.DictReader(rows)]
    for arm in {arm for arm, _ in visits}:
        outcomes = [visit for segment, visit in visits if segment == arm]
        mean = sum(outcomes) / len(outcomes)
        error = math.sqrt(mean * (1 - mean) / (len(outcomes) * report.rows / len(visits)))
        assert abs(report.policies[f"always:{arm}"].value - mean) < 2 * error


def test_choosing_beats_chance_and_is_not_proven_to_beat_the_best_arm(report: Report):
    """Nobody is known to beat the men's e-mail to everyone on these data."""
    assert report.gain_over_logged.ci[0] > 0
    assert report.best_static == "always:Mens E-Mail"
    assert not report.beats_best_static
    assert report.verdict == "promote"


def test_the_readme_tells_what_was_measured(report: Report):
    """Value and interval of every row of its table, to the digits it shows; libraries may move the bundle's by 0.002."""
    rows = {m["name"]: [float(m[k]) for k in ("value", "low", "high")] for m in ROW.finditer((HOUSE / "README.md").read_text())}
    policies = {name: [found.value, *found.ci] for name, found in report.policies.items()}
    expected = {
        "logged (at random)": policies["logged"],
        **{f"always: {arm}": policies[f"always:{arm}"] for arm in ("Mens E-Mail", "Womens E-Mail", "No E-Mail")},
        "**the bundle**": policies[f"bundle:{report.bundle}"],
        "gain over logged": [report.gain_over_logged.value, *report.gain_over_logged.ci],
        "gain over Mens E-Mail to everyone": [report.gain_over_best_static.value, *report.gain_over_best_static.ci],
    }
    assert rows.keys() == expected.keys()
    for name, figures in expected.items():
        assert rows[name] == pytest.approx(figures, abs=0.002), name
