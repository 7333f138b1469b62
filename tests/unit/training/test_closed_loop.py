"""Deciding, seeing what comes of it, learning, deciding again."""

import numpy as np
import pytest

from training.closed_loop import LATELY, STEP, Result, run
from training.closed_loop_picture import picture
from training.simulate import World

DECISIONS, CHANGE = 11_000, 7_000


@pytest.fixture(scope="module")
def result() -> Result:
    return run(World(2000, 1), DECISIONS, change_at=CHANGE, turned=2, seed=1)


def test_it_begins_at_chance_and_learns(result):
    """Before the first model it is uniform; before the change it is better than any single action, and below who knows."""
    assert result.loop[0] == pytest.approx(result.uniform[0])
    before = (result.decisions > CHANGE - 2000) & (result.decisions <= CHANGE)
    assert result.loop[before].mean() > 1.2 * result.static[before].mean()
    assert np.all(result.loop <= result.oracle + 1e-12)
    assert np.all(np.diff(result.trained) >= STEP)


def test_it_notices_that_the_world_has_changed(result):
    """Soon after, and not before; what it does then gets better again."""
    assert result.noticed
    assert CHANGE < result.noticed[0] <= CHANGE + 2 * LATELY
    ratio = result.loop / result.oracle
    fallen = ratio[(result.decisions > CHANGE) & (result.decisions <= result.noticed[0])].mean()
    assert fallen < 0.7
    assert ratio[-4:].mean() > fallen + 0.1


def test_every_eligible_action_keeps_its_share_of_the_exploration(result):
    """Epsilon over the eligible ones, at each decision."""
    assert result.least_share == pytest.approx(1.0)


def test_rewards_add_up(result):
    """Of parts as of the whole."""
    whole = result.cumulative(result.oracle)
    parts = result.cumulative(result.oracle, 0, CHANGE) + result.cumulative(result.oracle, CHANGE)
    assert parts == pytest.approx(whole)
    assert whole == pytest.approx(float(result.oracle.mean()) * DECISIONS)


def test_the_picture_tells_who_is_who(result):
    """A line each, the same bytes each time."""
    svg = picture(result)
    assert svg == picture(result)
    text = svg.decode()
    assert all(name in text for name in ("the loop", "who knows the truth", "best single action", "a change is noticed"))
