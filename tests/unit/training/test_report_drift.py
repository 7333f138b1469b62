"""Rows of now against those of then: a world that stands still, one whose rates moved, and what the command says."""

import argparse
import json

import numpy as np
import pyarrow as pa
import pytest

from service.cli import main
from service.errors import NotReady
from training.examples import Examples
from training.report_commands import _reference
from training.report_drift import Reference, _some, drifted, rate_drifts

FEATURELESS = '[log]\naction_id = "action"\ndecided_at = "at"\nchoice_probability = 0.5\n[outcomes]\nclick = "binary"\n'


def rows(chance, rates: dict[str, float], each: int = 1000) -> Examples:
    """So many rows of each action, every one of its own customer."""
    actions = np.repeat(list(rates), each)
    count = len(actions)
    return Examples(
        decision_id=pa.array([f"d{n}" for n in range(count)]), customer_id=np.array([f"c{n}" for n in range(count)]),
        decided_at=np.arange(count, dtype=float), placement=np.repeat("home", count), slot=np.ones(count, np.int64),
        action_id=actions, choice_probability=np.full(count, 0.5),
        label=(chance.random(count) < np.repeat(list(rates.values()), each)).astype(float), values={},
    )  # fmt: skip


def test_rates_that_stay_raise_no_alarm():
    """200 pairs of three actions: Holm lets one in a hundred pass at most, and two more by chance."""
    chance = np.random.default_rng(1)
    still = {"a": 0.1, "b": 0.2, "c": 0.3}
    alarms = sum(any(one.is_shifted for one in rate_drifts(rows(chance, still), rows(chance, still))) for _ in range(200))
    assert alarms <= 6


def test_a_rate_that_moved_is_named_and_no_other():
    """From one in ten to one in five."""
    chance = np.random.default_rng(2)
    found = rate_drifts(rows(chance, {"a": 0.1, "b": 0.2}), rows(chance, {"a": 0.2, "b": 0.2}))
    assert [one.action for one in found if one.is_shifted] == ["a"]
    assert found[0].p < 1e-6
    assert found[0].then.high < found[0].now.low


def test_a_change_that_nobody_acts_on_is_none_however_certain():
    """Five in a hundred of the rate, with 200,000 rows on either side."""
    chance = np.random.default_rng(3)
    [found] = rate_drifts(rows(chance, {"a": 0.40}, 200_000), rows(chance, {"a": 0.42}, 200_000))
    assert found.p < 1e-6
    assert not found.is_shifted


def test_few_rows_of_an_action_are_left_out():
    """Ninety-nine on one side."""
    chance = np.random.default_rng(4)
    assert rate_drifts(rows(chance, {"a": 0.1}), rows(chance, {"a": 0.9}, 99)) == ()


@pytest.mark.parametrize(("rate", "actions", "then", "now"), [(0.01, 5, 200, 5000), (0.02, 5, 150, 2000), (0.05, 3, 100, 1000)])
def test_rare_successes_of_a_few_rows_raise_no_alarm(rate, actions, then, now):
    """None or two where some had to be expected: with the variance of those alone 8 to 48 of 100 still worlds were alarming."""
    chance, rates = np.random.default_rng(5), {f"a{n}": rate for n in range(actions)}
    alarms = sum(
        any(one.is_shifted for one in rate_drifts(rows(chance, rates, then), rows(chance, rates, now))) for _ in range(100)
    )
    assert alarms <= 2


@pytest.mark.parametrize(("before", "after", "expected"), [(100, 100, 1.0), (100, 135, 0.0151), (0, 9, 1.0)])
def test_p_is_that_of_a_normal_difference(before, after, expected):
    """The same successes of 1,000 rows, some more, and so few that nobody can tell: the score test of two shares."""

    def with_successes(count: int) -> Examples:
        return rows(np.random.default_rng(0), {"a": 0.0}).with_label(np.where(np.arange(1000) < count, 1.0, 0.0))

    [found] = rate_drifts(with_successes(before), with_successes(after))
    assert found.p == pytest.approx(expected, abs=0.005)


def test_a_customer_counts_once_however_often_they_came(busy_home):
    """As many rows are compared as customers, on either side."""
    customers = np.array(["a", "a", "b", "c", "c", "c"])
    picked = _some(np.array([True, True, True, True, True, False]), customers, np.random.default_rng(0))
    assert customers[picked].tolist() == ["a", "b", "c"]
    assert drifted(busy_home).rows[0] > 1000, "the rates and shares are of all rows"


def test_the_rows_after_training_are_compared_with_those_before(busy_home):
    """Half of the imported rows, against the other half and all that was served since."""
    found = drifted(busy_home)
    assert found.objective == "click"
    assert found.rows[1] > found.rows[0] > 1000
    assert found.predictions is not None
    assert sum(then for then, _ in found.shares.values()) == pytest.approx(1.0)
    assert sum(now for _, now in found.shares.values()) == pytest.approx(1.0)


def test_dates_without_rows_are_not_ready(busy_home):
    """Expected and found."""
    with pytest.raises(NotReady, match="found 0 and"):
        drifted(busy_home, Reference(0.0, 1.0))


def test_a_home_without_a_champion_says_what_to_do(trained_home):
    """Promote first."""
    with pytest.raises(NotReady, match="nextbest promote"):
        drifted(trained_home)


def test_the_exit_code_says_whether_there_is_drift(busy_home, capsys):
    """As many reasons as the code claims, in words and as JSON."""
    code = main(["--home", str(busy_home), "drift", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == (2 if told["reasons"] else 0)
    assert main(["--home", str(busy_home), "drift", "--reference", "train"]) == code
    out = capsys.readouterr().out
    assert ("no drift" in out) == (code == 0)
    assert out.count("drift: ") == len(told["reasons"])


def test_a_home_without_features_has_no_inputs_to_compare(tmp_path, capsys):
    """All else is compared, in the command and in the report, and both say what is not."""
    shown = [(f"2026-01-{1 + n // 100:02d}T00:00:{n % 60:02d}Z", "ab"[n % 2], int(n % 5 < 1 + n % 2)) for n in range(2000)]
    (tmp_path / "log.csv").write_text("at,action,click\n" + "".join(f"{at},{action},{click}\n" for at, action, click in shown))
    (tmp_path / "map.toml").write_text(FEATURELESS)
    home, page = tmp_path / "home", tmp_path / "report.html"
    for arguments in (
        ["import", str(tmp_path / "log.csv"), "--mapping", str(tmp_path / "map.toml")],
        ["catalog", "publish", str(home / "catalog.yaml")],
        ["train"],
        ["promote", "--force", "--why", "for tests"],
        ["report", "--out", str(page)],
    ):
        assert main(["--home", str(home), *arguments]) == 0
    assert "There are no inputs to compare" in page.read_text()
    capsys.readouterr()
    assert main(["--home", str(home), "drift"]) in (0, 2)
    told = capsys.readouterr().out
    assert "no inputs to compare: the home has no features" in told
    assert "click then" in told


@pytest.mark.parametrize("text", ["2026-11-01", "2026-11-02..2026-11-01", "yesterday..today"])
def test_a_reference_that_is_no_span_is_refused(text):
    """With what was expected."""
    with pytest.raises(argparse.ArgumentTypeError, match="Expected"):
        _reference(text)


def test_a_reference_is_a_span_of_whole_days():
    """Both days included."""
    assert _reference("train") is None
    found = _reference("2026-11-01..2026-11-02")
    assert found.end - found.start == 2 * 86400
