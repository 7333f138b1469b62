"""The two commands that a stranger types, in processes of their own."""

import json

import pytest

VISITS = "1500"


@pytest.mark.slow
def test_the_demonstration_closes_the_loop_and_ends_with_exit_code_0(nextbest, short_folder):
    """Import, train, serve, learn, prove, swap: every step says what it found, and no request failed."""
    home = short_folder / "home"
    done = nextbest("--home", str(home), "demo", "--once", "--visits", VISITS)
    assert done.returncode == 0, done.stdout + done.stderr
    for told in (
        "1. import",
        "0 differ",
        "first bundle",
        "1,500 recommendations",
        "second bundle",
        "verdict",
        "the loop is closed",
    ):
        assert told in done.stdout
    assert "failed: " not in done.stdout
    assert len(json.loads((home / "registry" / "current").read_text())["previous"]) >= 1
    listed = nextbest("--home", str(home), "models")
    assert "champion" in listed.stdout


@pytest.mark.slow
def test_every_command_of_training_works_on_its_own(nextbest, short_folder, trained_home):
    """What the demonstration does in one go can be done step by step."""
    home, world = short_folder / "home", short_folder / "world"
    told = nextbest("--home", str(home), "simulate", str(world), "--customers", "300", "--decisions", "1500")
    assert (told.returncode, told.stderr) == (0, "")
    imported = nextbest("--home", str(home), "import", str(world / "log.parquet"), "--mapping", str(world / "mapping.toml"))
    assert imported.stdout.startswith("imported 1500 decisions")
    again = nextbest("--home", str(home), "import", str(world / "log.parquet"), "--mapping", str(world / "mapping.toml"))
    assert "imported before" in again.stdout
    evaluated = nextbest("--home", str(trained_home), "evaluate", "--json")
    assert json.loads(evaluated.stdout)["objective"] == "click"
    shown = nextbest("--home", str(trained_home), "evaluate")
    assert "verdict" in shown.stdout
    refused = nextbest("--home", str(home), "train", "--objective", "click")
    assert (refused.returncode, refused.stderr.startswith("error: Expected a published catalog")) == (1, True)
    misused = nextbest("--home", str(home), "train", "--share", "2")
    assert misused.returncode == 2
    assert "Expected a share between 0 and 1" in misused.stderr
