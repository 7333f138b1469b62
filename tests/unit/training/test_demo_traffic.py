"""What the customers of the demonstration tell the service, and what they count of it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from training.demo.client import Client
from training.demo.traffic import Tally, report


class Answering(BaseHTTPRequestHandler):
    """With a status, and so many accepted."""

    protocol_version = "HTTP/1.1"
    status, accepted = 202, 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        told = json.dumps({"accepted": self.accepted} if self.status == 202 else {"title": "Overloaded"}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_arguments: object) -> None:
        """Nobody reads it."""


@pytest.mark.parametrize(
    ("status", "accepted", "counted", "failures"),
    [(202, 50, 50, 0), (202, 48, 48, 1), (503, 0, 0, 1)],
    ids=["all taken", "two refused", "turned away"],
)
def test_only_outcomes_that_were_accepted_count(status, accepted, counted, failures):
    """What was turned away is a failure and no outcome."""
    handler = type("Handler", (Answering,), {"status": status, "accepted": accepted})
    server, tally = ThreadingHTTPServer(("127.0.0.1", 0), handler), Tally()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with Client(f"http://127.0.0.1:{server.server_port}") as client:
        report(client, [{"outcome_id": f"o{n}"} for n in range(50)], tally)
    server.shutdown()
    thread.join()
    server.server_close()
    assert (tally.outcomes, len(tally.failures)) == (counted, failures)
