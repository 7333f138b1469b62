"""What is made of measurements: figures that could not be right are refused, and sums add up."""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from loadtests.compare import good, ratio, throughput
from loadtests.decision_cost import Cost, Size, growth
from loadtests.generator import open_loop, post
from loadtests.run import HOLDS, OVER, TOO_FEW, Scenario, Seen, read_budget, seen, verdict
from loadtests.sampled import LOOP, OTHERS, STAGES, stage_of
from loadtests.sampled import Seen as Sampled
from loadtests.servers import Server
from loadtests.stages import IDLE, by_stage
from tests.acceptance.rows.worker import Sample, megabytes_a_minute

ALLOWED = Scenario("Steady", rate=100, seconds=10, p50_ms=10, p99_ms=50, failed=0.0)


class Refusing(BaseHTTPRequestHandler):
    """Every other question is turned away."""

    protocol_version = "HTTP/1.1"
    asked = itertools.count()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503 if next(self.asked) % 2 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Nobody reads it."""


class Late(BaseHTTPRequestHandler):
    """Answers after a moment, but for the questions from one on, which are answered when the test is over."""

    protocol_version = "HTTP/1.1"
    asked = itertools.count()
    held_from = 0
    over = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.over.wait(60.0 if next(self.asked) >= self.held_from else 0.3)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[Server]:
    """A server of them, in a thread."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Server("ours", server.server_port, None, 0.0)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def refusing():
    """Turned away, every other time."""
    with serving(Refusing) as server:
        yield server


@pytest.fixture
def late(request):
    """`held_from` as the test asks; whoever is held is let go when it ends."""
    over = threading.Event()
    handler = type("Handler", (Late,), {"asked": itertools.count(), "held_from": request.param, "over": over})
    with serving(handler) as server:
        yield server
        over.set()


def test_a_server_that_does_not_answer_with_200_has_no_throughput(refusing):
    """Nobody is fast by refusing."""
    with pytest.raises(RuntimeError, match=r"Expected 200 for every request, got [1-9][0-9]* others of [0-9]+ - at `ours`"):
        throughput({"ours": refusing}, rounds=1, seconds=0.2)


def question() -> Iterator[bytes]:
    return itertools.repeat(post("/recommend", {}))


@pytest.mark.parametrize("late", [1000], indirect=True)
def test_what_is_under_way_when_the_time_is_over_counts_with_its_latency(late):
    """Each request that was due, once: those answered afterwards, and those for which a connection was free only then."""
    load = open_loop(late.port, question(), 20.0, connections=3, seconds=0.3, warm_up=0.0)
    assert (load.answers, load.good, load.unanswered, load.seconds) == (6, 6, 0, 0.3)
    assert min(load.latencies) >= 0.3
    assert max(load.latencies) >= 0.45  # the fourth was due after 0.15 s, and a connection was free after 0.3


@pytest.mark.parametrize("late", [2], indirect=True)
def test_what_is_never_answered_is_not_good_and_took_as_long_as_was_waited(late):
    """A server that stops answers nobody faster: those without a connection wait as well, and the error says so."""
    load = open_loop(late.port, question(), 40.0, connections=4, seconds=0.5, warm_up=0.1)
    assert load.answers == 20
    assert load.good + load.unanswered == load.answers
    assert load.unanswered >= 18
    assert load.percentile(0.5) >= 1.0
    with pytest.raises(RuntimeError, match=r"got (\d+) others of 20, \1 of them without an answer for 1 s and more - at `ours`"):
        good("ours", load)


def test_what_disturbs_a_round_disturbs_both_of_it():
    """The ratio is taken round by round; the median of each alone would say 1.5."""
    assert ratio({"a": [2.0, 20.0, 3.0], "b": [1.0, 10.0, 2.0]}, "a", "b") == 2.0


def test_the_stages_of_a_decision_add_up_to_the_time_by_the_clock():
    """Samples share out the main thread's time; other threads and waiting are what is left."""
    scoring = next(iter(STAGES))
    found = by_stage(Sampled({scoring: 3, LOOP: 1}, main_s=4.0, process_s=5.0), decisions=1000, seconds=6.0)
    assert sum(found.by_stage.values()) == pytest.approx(found.total_us) == pytest.approx(6000.0)
    expected = {scoring: 3000.0, LOOP: 1000.0, OTHERS: 1000.0, IDLE: 1000.0}
    assert {name: us for name, us in found.by_stage.items() if us} == pytest.approx(expected)
    assert found.told == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("/x/service/decision/eligibility.py", "rules"),
        ("/x/service/decision/contact_policy.py", "contact policy"),
        ("/x/service/decision/again.py", "log: encode, hand over"),
        ("/x/service/decision/decide.py", "board and record"),
        ("/x/service/stores/contact_history.py", "contacts claimed"),
        ("/x/uvicorn/server.py", None),
        ("/x/numpy/core/fromnumeric.py", None),
    ],
)
def test_a_file_belongs_to_one_stage(path, stage):
    """Or to whoever calls it."""
    assert stage_of(path) == stage


def test_what_grows_with_the_square_of_the_actions_is_seen():
    """Ten times as many cost a hundred times as much."""
    costs = [Cost(Size(n, 10, 1), 1.0, n**2 / 1e4, 0.1, 0.1, 100) for n in (10, 100, 1000, 10_000)]
    assert growth([*costs, Cost(Size(10, 100, 1), 2.0, 0.01, 0.1, 0.1, 100), costs[0]._replace(size=Size(10, 10, 5))]) == (
        pytest.approx(100.0), pytest.approx(2.0), pytest.approx(1.0),
    )  # fmt: skip


def test_a_worker_that_grows_by_two_megabytes_a_minute_is_seen():
    """However much its memory goes up and down."""
    noise = np.random.default_rng(0).normal(0, 1, 300)
    samples = [Sample(n / 30, 150 + 2 * n / 30 + noise[n]) for n in range(300)]
    assert megabytes_a_minute(samples) == pytest.approx(2.0, abs=0.1)


def test_the_budget_in_the_repository_can_be_read():
    """Every scenario of it."""
    assert {"steady", "burst", "cold", "swap", "slow_redis"} <= read_budget().keys()


def test_a_budget_with_a_word_that_nobody_knows_is_refused(tmp_path):
    """A misspelt limit would limit nothing."""
    path = tmp_path / "budget.toml"
    path.write_text('[steady]\narrivals = "Steady"\nrate = 1\nseconds = 1\np50_ms = 1\np99_ms = 1\nfailed = 0\np999_ms = 3\n')
    with pytest.raises(SystemExit, match="p999_ms"):
        read_budget(path)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (Seen(1000, 0.0, 10.0, 50.0), HOLDS),
        (Seen(1000, 0.001, 10.0, 50.0), OVER),
        (Seen(1000, 0.0, 11.0, 50.0), OVER),
        (Seen(1000, 0.0, 10.0, 51.0), OVER),
        (Seen(500, 0.0, 1.0, 5.0), TOO_FEW),
    ],
    ids=["within", "one failed", "slow", "slow for some", "hardly anybody came"],
)
def test_each_figure_of_a_budget_is_a_limit(found, told):
    """And a load that did not come proves nothing, which the table says in other words."""
    assert verdict(ALLOWED, found) == told


def test_percentiles_are_those_of_locusts_figures():
    """Counts by rounded milliseconds; where nobody was answered, nothing is fast."""
    told = {"num_requests": 100, "num_failures": 2, "response_times": {"9": 40, "3": 50, "120": 10}}
    assert seen(told) == Seen(100, 0.02, 3.0, 120.0)
    assert seen({"num_requests": 0, "num_failures": 0, "response_times": {}}).p99_ms == float("inf")
