"""A round of retraining: what it does, why it does nothing, and how rounds follow one another."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.cli import main
from service.errors import BundleRefused, NotReady
from service.registry import Registry
from training.fit import FitSettings
from training.learn import Manner
from training.retrain import Plan, Round, alone, retrain, rounds
from training.retrain_commands import _parser, follow

HOUSE = Path(__file__).resolve().parents[3]
STRICT = "[gate]\nmost_bytes = 10\n"  # no model is as small


def champion(home) -> str | None:
    return Registry(home / "registry").current().champion


def test_another_manner_of_learning_from_the_same_rows_is_another_bundle(own_home):
    """Other settings, or rows that are weighed: what was learned otherwise is not what was asked for."""
    [trained] = Registry(own_home / "registry").bundles()
    quick = retrain(own_home, Plan("click", how=Manner(FitSettings(rounds=20)), stage="none"))
    assert quick.trained is not None
    weighed = retrain(own_home, Plan("click", how=Manner(FitSettings(rounds=20), weights="choice"), stage="none"))
    assert weighed.trained is not None
    assert len({trained, quick.bundle, weighed.bundle}) == 3
    assert retrain(own_home, Plan("click", how=Manner(FitSettings(threads=1)), stage="none")).trained is None


def test_a_bundle_of_the_same_rows_is_not_trained_again_but_judged(own_home):
    """What `nextbest train` made of these rows is evaluated, and serves if it is proven."""
    [trained] = Registry(own_home / "registry").bundles()
    done = retrain(own_home, Plan("click"))
    assert (done.result, done.bundle) == ("promoted", trained)
    assert "has learned from the same rows before" in done.told[0]
    assert any("gain over logged" in reason for reason in done.told)
    assert champion(own_home) == trained


def test_what_somebody_went_back_from_is_not_promoted_again_by_the_next_round(own_home, capsys):
    """It may be proven as before: who went back knows more. Promoted by hand it serves, and rounds are as ever."""
    [first] = Registry(own_home / "registry").bundles()
    other = retrain(own_home, Plan("click", how=Manner(weights="choice"))).bundle
    registry = Registry(own_home / "registry")
    registry.promote(first, at="2026-11-01T00:00:00Z", why="by hand")
    registry.rollback(at="2026-11-02T00:00:00Z", why="complaints")
    assert (champion(own_home), registry.taken_back()) == (other, {first})
    done = retrain(own_home, Plan("click"))
    assert (done.result, done.bundle, champion(own_home)) == ("skipped", first, other)
    assert "somebody went back from it" in done.told[0]
    assert main(["--home", str(own_home), "retrain", "--objective", "click"]) == 0
    assert "somebody went back from it" in capsys.readouterr().out
    registry.promote(first, at="2026-11-03T00:00:00Z", why="it was something else")
    assert registry.taken_back() == frozenset()


def test_without_new_rows_there_is_nothing_to_do(own_home):
    """The champion has learned from just these rows: no bundle is made, nothing is evaluated."""
    retrain(own_home, Plan("click"))
    before = Registry(own_home / "registry").bundles()
    done = retrain(own_home)
    assert (done.result, done.bundle, done.report) == ("skipped", champion(own_home), None)
    assert "no mature rows have come" in done.told[0]
    assert Registry(own_home / "registry").bundles() == before


def test_new_rows_make_a_new_bundle_that_is_judged_against_the_champion(own_busy_home):
    """3,000 decisions have come since: the round says how many of those it learned from are new."""
    old = champion(own_busy_home)
    done = retrain(own_busy_home, Plan(share=0.9))
    assert done.bundle != old
    assert f"gain over bundle:{old}" in "; ".join(done.told)
    newer = int(done.told[0].split(" rows, ")[1].split(" of them newer")[0].replace(",", ""))
    assert 3000 < newer < 11_000 * 0.9
    assert champion(own_busy_home) == (done.bundle if done.result == "promoted" else old)


def test_the_gate_keeps_the_champion_and_that_is_no_error(own_home, capsys):
    """Exit code 0, the reason in words, and nothing serves that did not before."""
    (own_home / "learning.toml").write_text(STRICT)
    assert main(["--home", str(own_home), "retrain", "--objective", "click"]) == 0
    said = capsys.readouterr().out
    assert "does not serve: the gate keeps what there is" in said
    assert "10 may be" in said
    assert champion(own_home) is None


def test_a_proven_bundle_can_be_left_to_somebody_else(own_home, capsys):
    """With `--stage none` it is trained and judged, and no pointer moves."""
    assert main(["--home", str(own_home), "retrain", "--objective", "click", "--stage", "none"]) == 0
    assert "may serve, and was not promoted" in capsys.readouterr().out
    assert champion(own_home) is None


def test_an_error_is_exit_code_1(tmp_path, capsys):
    """There is no catalog here."""
    assert main(["--home", str(tmp_path), "retrain", "--objective", "click"]) == 1
    assert "nextbest catalog publish FILE" in capsys.readouterr().err


def test_two_rounds_never_work_at_once(own_home):
    """Whoever comes second is told where the first one is, and may come once it is done."""
    with alone(own_home), pytest.raises(NotReady, match=r"another round under way - at `.*retrain\.lock`"):
        retrain(own_home, Plan("click"))
    assert retrain(own_home, Plan("click")).result == "promoted"


def test_a_round_that_fails_is_told_and_the_next_one_begins():
    """Rows may be too few today and enough tomorrow; a mistake in the code is not passed over."""
    ways = iter([NotReady("too few"), Round("kept", "b", ("why",)), BundleRefused("parity"), ZeroDivisionError("a mistake")])

    def run():
        found = next(ways)
        if isinstance(found, Exception):
            raise found
        return found

    told = []
    with pytest.raises(ZeroDivisionError):
        told.extend(rounds(run, 60.0, lambda _seconds: True))
    assert [str(found) if isinstance(found, Exception) else found.result for found in told] == ["too few", "kept", "parity"]


@pytest.mark.parametrize(("every", "least", "most"), [(60.0, 30.0, 59.95), (0.01, 0.0, 0.0)])
def test_rounds_begin_every_so_often_however_long_one_takes(every, least, most):
    """The wait is what is left of the interval, and nothing where the round took longer than that."""
    waits = []

    def run():
        time.sleep(0.05)
        return Round("kept", "b", ())

    def wait(seconds):
        waits.append(seconds)
        return len(waits) < 2

    assert len(list(rounds(run, every, wait))) == 2
    assert all(least <= seconds <= most for seconds in waits)


@pytest.mark.parametrize("given", ["6", "0s", "soon"])
def test_an_interval_that_is_none_is_refused(given, capsys):
    """Wrong usage names what was expected."""
    with pytest.raises(SystemExit):
        _parser().parse_args(["--every", given])
    assert "Expected a duration" in capsys.readouterr().err


def test_sigterm_between_rounds_ends_the_loop_at_once(own_home):
    """The first round is told, the next one would be in an hour: it ends long before that, with exit code 0."""
    command = [sys.executable, "-m", "service.cli", "--home", str(own_home), "retrain", "--objective", "click", "--every", "1h"]
    process = subprocess.Popen(
        command, cwd=HOUSE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(HOUSE)}
    )
    with process:
        assert "serves" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


class FullTracker:
    """Takes nothing."""

    def track(self, told) -> None:
        raise NotReady(f"no room for {told.bundle}")


def test_a_tracker_that_fails_does_not_end_the_loop(capsys):
    """The round is told first, then what became of keeping it; a skipped round is not kept at all."""
    ways, told_to_stop = iter([Round("kept", "b", ("why",)), Round("skipped", "b", ("nothing",))]), iter([True, False])
    follow(lambda: next(ways), 60.0, lambda _seconds: next(told_to_stop), FullTracker())
    said = capsys.readouterr()
    assert [line.split(" ", 1)[1].split(":")[0] for line in said.out.splitlines()] == [
        "`b` does not serve", "nothing to do, `b` goes on serving",
    ]  # fmt: skip
    assert said.err.count("no room for b") == 1
