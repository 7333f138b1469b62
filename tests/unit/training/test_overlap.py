"""Where a policy and the log overlap: counted here a second time, row by row."""

import json
import re

import numpy as np
import pytest

from service.cli import main
from training.off_policy import FEWEST_EFFECTIVE
from training.overlap import OverlapCounts
from training.policies import UNKNOWN, Chunk

ACTIONS = ("a", "b", "c", "d")
CHANCES = np.array([0.6, 0.3, 0.1, 0.0])  # of the log
WANTED = np.array([0.2, 0.1, 0.7, 0.0])  # of the policy


def told(served, probabilities, logged):
    counts = OverlapCounts(ACTIONS)
    for some in np.array_split(np.arange(len(served)), 3):
        counts.add(Chunk(some, (), served[some], "hero"), probabilities[some], logged[some])
    return {one.action: one for one in counts.told()}


def test_figures_are_those_of_rows_counted_one_by_one():
    """Shares, effective rows, weights and what is covered; rows without a choice, and unknown actions, count nowhere."""
    chance = np.random.default_rng(5)
    served = chance.choice(4, 5000, p=CHANCES)
    served[:50] = UNKNOWN
    probabilities = np.tile(WANTED, (5000, 1)) * chance.uniform(0.5, 1.0, (5000, 4))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    probabilities[100:200] = 0.0
    logged = np.where(served == UNKNOWN, 0.5, CHANCES[served])
    found = told(served, probabilities, logged)
    assert list(found) == ["c", "a", "b"]
    rows = [row for row in range(5000) if probabilities[row].sum() > 0]
    for place, name in enumerate("abc"):
        weights = [probabilities[row, place] / logged[row] for row in rows if served[row] == place]
        wanted = sum(probabilities[row, place] for row in rows)
        one = found[name]
        assert (one.rows, one.logged, one.policy) == (len(weights), pytest.approx(len(weights) / 4900, abs=1e-6),
                                                      pytest.approx(wanted / 4900, abs=1e-6))  # fmt: skip
        assert one.ess == pytest.approx(sum(weights) ** 2 / sum(w * w for w in weights), abs=0.06)
        assert one.max_weight == pytest.approx(max(weights), abs=1e-6)
        assert one.least_probability == CHANCES[place]
        assert one.covered == pytest.approx(sum(weights) / wanted, abs=1e-6)
        assert one.doubt is None


@pytest.mark.parametrize(
    ("shares", "may", "wanted", "doubt"),
    [
        ((0.9, 0.1, 0.0, 0.0), 1.0, "c", "the log never shows it"),
        ((0.0, 0.5, 0.5, 0.0), 0.5, "c", "the log covers 5"),
        ((0.009, 0.5, 0.491, 0.0), 1.0, "a", f"{FEWEST_EFFECTIVE:.0f} are needed"),
    ],
)
def test_what_the_log_cannot_tell_of_an_action_is_told(shares, may, wanted, doubt):
    """That it never showed it, that it could not show it to everybody, or that it showed it too seldom; of others nothing."""
    chance = np.random.default_rng(6)
    served = chance.choice(4, 4000, p=shares)
    logged, could = np.array(shares)[served], chance.random(4000) < may
    served[~could], logged[~could] = 1, 1.0  # who may not be shown the others
    policy = np.where(np.array(ACTIONS) == wanted, 0.9, 0.0) + np.array([0.0, 0.1, 0.0, 0.0])
    found = told(served, np.tile(policy, (4000, 1)), logged)
    assert doubt in found[wanted].doubt
    assert found["b"].doubt is None


def test_an_evaluation_tells_what_its_choices_have_in_common_with_the_log(own_busy_home, capsys):
    """All of it as JSON, the first ones in the table; shares add up."""
    assert main(["--home", str(own_busy_home), "evaluate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["overlap"]
    assert sum(one["policy"] for one in found) == pytest.approx(1.0, abs=1e-4)
    assert sum(one["logged"] for one in found) == pytest.approx(1.0, abs=1e-4)
    assert [one["policy"] for one in found] == sorted((one["policy"] for one in found), reverse=True)
    assert main(["--home", str(own_busy_home), "evaluate"]) == 0
    printed = capsys.readouterr().out
    assert "what the bundle's choices and the log have in common" in printed
    shares = f"{found[0]['policy']:.1%}", f"{found[0]['logged']:.1%}"
    assert re.search(rf"{found[0]['action']} +{re.escape(shares[0])} +{re.escape(shares[1])} ", printed)
    assert all(f"{one['action']}: {one['doubt']}" in printed for one in found if "doubt" in one)
