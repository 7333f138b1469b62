"""Work that gives way to answers."""

import threading

import pytest

from service.pacing import LONGEST_S, Pace, breathe, paced


class Clock:
    """Seconds that pass when somebody works or sleeps."""

    def __init__(self) -> None:
        self.now, self.rests = 0.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.now += seconds

    def work(self, seconds: float, steps: int) -> None:
        for _ in range(steps):
            self.now += seconds
            breathe()


def test_a_quarter_of_the_time_is_worked():
    """Ten milliseconds of work take forty, in rests of a few milliseconds."""
    clock = Clock()
    paced(lambda: clock.work(0.0001, 100), Pace(clock, clock.sleep))
    assert clock.now == pytest.approx(0.04, rel=0.1)
    assert max(clock.rests) == pytest.approx(0.003, rel=0.15)


def test_a_long_step_is_not_paid_for_with_a_longer_rest_than_the_longest():
    """Whoever is kept waiting itself does not wait ever longer."""
    clock = Clock()
    paced(lambda: clock.work(1.0, 1), Pace(clock, clock.sleep))
    assert clock.rests == [LONGEST_S]


def test_nobody_rests_outside_of_paced_work():
    """Neither afterwards, nor in another thread meanwhile."""
    clock, elsewhere = Clock(), Clock()

    def work() -> None:
        other = threading.Thread(target=elsewhere.work, args=(1.0, 3))
        other.start()
        other.join()

    paced(work, Pace(clock, clock.sleep))
    clock.work(1.0, 3)
    assert (clock.rests, elsewhere.rests) == ([], [])
