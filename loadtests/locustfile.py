"""Customers as they come: `locust -f loadtests/locustfile.py --host http://127.0.0.1:8080 Steady`, or any other class of these.

Arrivals are open: customers come at random moments, `--rate` a second for each of Locust's users, whether the one before was
answered or not; and a time counts from when a customer came, so that a service which stalls cannot hide it.
"""

import random
import time
from argparse import ArgumentParser
from typing import Any

import gevent
from gevent.pool import Group
from locust import FastHttpUser, constant, events, task

CONNECTIONS = 256
DEVICES = ("mobile", "desktop", "tablet")
BURST_EVERY_S, BURST_S, BURST_TIMES = 5.0, 1.0, 4.0


@events.init_command_line_parser.add_listener
def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=200.0, help="customers a second, for each user of Locust")
    parser.add_argument("--placement", default="hero", help="what is asked for")
    parser.add_argument("--known", type=int, default=5000, help="how many customers there are, c0 and on")


class Arrivals(FastHttpUser):
    """Customers who come at random moments (a Poisson process)."""

    abstract = True
    wait_time = constant(0)
    concurrency = CONNECTIONS
    name = "/recommend"

    def on_start(self) -> None:
        """Nobody is on the way yet."""
        self._under_way = Group()
        self._begun = time.perf_counter()

    def on_stop(self) -> None:
        """Who is on the way is answered."""
        self._under_way.join(timeout=2.0)

    @task
    def arrive(self) -> None:
        """One after the other, for ever."""
        due = time.perf_counter()
        while True:
            due += random.expovariate(self.rate(due - self._begun))
            gevent.sleep(max(0.0, due - time.perf_counter()))
            self._under_way.spawn(self._ask, due)

    def rate(self, second: float) -> float:
        """Customers a second, so long after the beginning."""
        del second
        return float(self._option("rate"))

    def customer(self) -> str:
        """Who comes."""
        return f"c{random.randrange(int(self._option('known')))}"

    def _ask(self, due: float) -> None:
        asked = {
            "customer_id": self.customer(), "placement": self._option("placement"),
            "context": {"channel": "web", "device": random.choice(DEVICES)},
        }  # fmt: skip
        with self.client.post("/recommend", json=asked, name=self.name, catch_response=True) as answer:
            answer.request_meta["response_time"] = (time.perf_counter() - due) * 1000.0

    def _option(self, name: str) -> Any:  # noqa: ANN401  # a number or a word, as the option is declared
        return getattr(self.environment.parsed_options, name)


class Steady(Arrivals):
    """As many in one second as in the next."""


class Burst(Arrivals):
    """Every five seconds, for one of them, four times as many."""

    def rate(self, second: float) -> float:
        """As above."""
        return super().rate(second) * (BURST_TIMES if second % BURST_EVERY_S > BURST_EVERY_S - BURST_S else 1.0)


class Cold(Arrivals):
    """Nobody has been here before."""

    def customer(self) -> str:
        """As above."""
        return f"stranger-{random.getrandbits(64):016x}"
