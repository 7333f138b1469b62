"""The real server: what it answers, what it picks up while running, and what it does without."""

import datetime as dt
import json
import os
import signal
import socket
import time
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from service.registry import Registry
from service.server import PATIENCE_S
from training.demo.running import running_server
from training.demo.traffic import Tally, Visit, steady
from training.learn import train
from training.promotion import promote_without_evidence

ASK = {"customer_id": "c1", "placement": "home_hero", "context": {"channel": "web", "device": "mobile"}}


def becomes(condition, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def records(home: Path, kind: str) -> list[dict]:
    lines = [line for path in sorted((home / "log" / kind).rglob("*.log")) for line in path.read_bytes().splitlines()]
    return [json.loads(line.split(b" ", 2)[2]) for line in lines]


def test_a_known_customer_is_answered_with_their_features_and_written_down(server, serving_home):
    """The record on disk holds the values that Redis held, and the answer what the record says."""
    table = pq.read_table(serving_home / "features" / "offline" / "profile.parquet")
    customer = table["customer_id"].to_pylist()[0]
    answer = httpx.post(f"{server.url}/recommend", json={**ASK, "customer_id": customer}).json()
    [record] = [r for r in records(serving_home, "decisions") if r["decision_id"] == answer["decision_id"]]
    latest = table.filter([c == customer for c in table["customer_id"].to_pylist()]).to_pylist()[-1]
    assert answer["degraded"] == []
    assert record["customer"]["tenure_days"] == latest["tenure_days"]
    [item] = answer["placements"][0]["items"]
    assert record["placements"][0]["items"][0]["choice_probability"] == item["choice_probability"]
    assert item["content"]["title"]


@pytest.mark.parametrize("who", [{"customer_id": "never-seen"}, {"anonymous_id": "device-1"}])
def test_strangers_get_an_answer_too(server, who):
    """A cold customer or an anonymous one: decided from the context, and not degraded, for nothing failed."""
    ask = {key: value for key, value in ASK.items() if key != "customer_id"} | who
    answer = httpx.post(f"{server.url}/recommend", json=ask).json()
    assert answer["placements"][0]["items"]
    assert answer["degraded"] == []


def test_an_outcome_is_acknowledged_after_it_is_on_disk(server, serving_home):
    """202, and the line is in the log; a second time it is a duplicate; of an unknown decision an orphan."""
    decision = httpx.post(f"{server.url}/recommend", json=ASK).json()["decision_id"]
    outcome = {"outcome_id": "o1", "decision_id": decision, "type": "click", "at": dt.datetime.now(dt.UTC).isoformat()}
    stray = {**outcome, "outcome_id": "o2", "decision_id": "unknown"}
    first = httpx.post(f"{server.url}/outcomes", json={"outcomes": [outcome, stray]})
    assert (first.status_code, first.json()["accepted"], first.json()["orphans"]) == (202, 2, 1)
    again = httpx.post(f"{server.url}/outcomes", json={"outcomes": [outcome]}).json()
    assert (again["accepted"], again["duplicates"]) == (0, 1)
    assert [r["outcome_id"] for r in records(serving_home, "outcomes")] == ["o1", "o2"]


def test_a_published_catalog_serves_within_two_seconds(server, serving_home, nextbest):
    """No restart: the running service picks the revision up."""
    draft = serving_home / "draft.yaml"
    draft.write_text((serving_home / "catalog.yaml").read_text().replace("30 % off fashion", "Half price"))
    assert nextbest("--home", str(serving_home), "catalog", "publish", str(draft)).returncode == 0
    published = time.monotonic()
    assert becomes(lambda: httpx.post(f"{server.url}/recommend", json=ASK).json()["versions"]["catalog"] == 2, patience=5.0)
    assert time.monotonic() - published < 2.0


def test_a_bundle_is_swapped_in_while_customers_are_answered_and_none_notices(server, serving_home):
    """Promote under load: no failed request, and the new version in the answers within 5 s."""
    bundle = train(serving_home, "click", share=0.6)
    tally = Tally()

    def endless():
        while True:
            yield Visit(ASK, lambda _: ())

    with steady(server.url, endless(), tally, per_second=50.0):
        assert becomes(lambda: tally.answered > 20, patience=5.0)
        promote_without_evidence(serving_home, bundle, "for a test")
        assert becomes(lambda: bundle in tally.first_seen, patience=5.0)
    assert tally.failures == []


def test_a_damaged_bundle_is_refused_and_the_one_before_goes_on_serving(server, serving_home):
    """The reason stands under /ready; answers carry the old version."""
    before = httpx.post(f"{server.url}/recommend", json=ASK).json()["versions"]["bundle"]
    bundle = train(serving_home, "click", share=0.6)
    model = serving_home / "registry" / "bundles" / bundle / "model.onnx"
    model.write_bytes(model.read_bytes() + b"x")
    Registry(serving_home / "registry").promote(bundle, at="2026-01-01T00:00:00Z", why="behind the back of every check")
    assert becomes(lambda: "checksum" in (httpx.get(f"{server.url}/ready").json().get("problem") or ""), patience=5.0)
    assert httpx.get(f"{server.url}/ready").status_code == 200
    assert httpx.post(f"{server.url}/recommend", json=ASK).json()["versions"]["bundle"] == before


def test_without_redis_there_is_an_answer_that_says_so(serving_home):
    """Nobody listens at the address: decided from context alone, within the deadline."""
    with running_server(serving_home, "redis://127.0.0.1:1/0") as server:
        answer = httpx.post(f"{server.url}/recommend", json=ASK)
        assert answer.status_code == 200
        assert answer.json()["degraded"] == ["no_customer_features"]
        assert answer.json()["placements"][0]["items"]


def test_a_stopped_server_answers_what_it_was_asked_and_leaves_in_peace(serving_home, filled_redis):
    """SIGTERM: exit code 0, and everything it answered is in the log."""
    with running_server(serving_home, filled_redis) as server:
        answered = [httpx.post(f"{server.url}/recommend", json=ASK).json()["decision_id"] for _ in range(20)]
        os.kill(server.pid, signal.SIGTERM)
        assert becomes(lambda: not is_alive(server.url), patience=5.0)
    assert {r["decision_id"] for r in records(serving_home, "decisions")} == set(answered)


def test_a_server_that_is_told_to_stop_says_so_before_it_stops(serving_home, filled_redis):
    """`/ready` says 503 at once, and requests are answered until the end; a second signal ends the wait."""
    with running_server(serving_home, filled_redis, NEXTBEST_DRAIN_S="30") as server:
        assert httpx.get(f"{server.url}/ready").status_code == 200
        os.kill(server.pid, signal.SIGTERM)
        assert becomes(lambda: httpx.get(f"{server.url}/ready").status_code == 503, patience=2.0)
        assert httpx.get(f"{server.url}/ready").json() == {"status": "stopping"}
        answer = httpx.post(f"{server.url}/recommend", json=ASK)
        assert (answer.status_code, answer.json()["degraded"]) == (200, [])
        os.kill(server.pid, signal.SIGTERM)
        assert becomes(lambda: not is_alive(server.url), patience=5.0)
    assert answer.json()["decision_id"] in {r["decision_id"] for r in records(serving_home, "decisions")}


def test_two_workers_answer_at_one_address(serving_home, filled_redis, nextbest):
    """Each takes a part of the connections, figures are of both, nobody else gets the address, and both leave in peace."""
    with running_server(serving_home, filled_redis, NEXTBEST_WORKERS="2") as server:
        answered = [httpx.post(f"{server.url}/recommend", json=ASK).json()["decision_id"] for _ in range(40)]
        assert "nextbest_decisions_total 40.0" in httpx.get(f"{server.url}/metrics").text
        port = server.url.rpartition(":")[2]
        second = nextbest("--home", str(serving_home), "--redis-url", filled_redis, "serve", "--port", port, "--workers", "2")
        assert (second.returncode, "Address already in use" in second.stderr) == (3, True), second.stderr
        os.kill(server.pid, signal.SIGTERM)
        # uvicorn's supervisor may be waiting for a worker's sign of life, for which it has 5 s, before it looks at the signal
        assert becomes(lambda: not is_alive(server.url), patience=15.0)
    assert {r["decision_id"] for r in records(serving_home, "decisions")} == set(answered)
    writers = {path.name.split("-")[1] for path in (serving_home / "log" / "decisions").rglob("*.log")}
    assert len(writers) == 2


def test_workers_leave_with_the_process_that_started_them(serving_home, filled_redis):
    """Also where it was killed: nobody else could stop them, and the address would not be free for the next service."""
    with running_server(serving_home, filled_redis, NEXTBEST_WORKERS="2") as server:
        assert is_alive(server.url)
        os.kill(server.pid, signal.SIGKILL)
        assert becomes(lambda: not is_alive(server.url), patience=15.0)


def test_several_workers_do_not_start_where_one_would_not(tmp_path, filled_redis, nextbest):
    """A document with a mistake is one line and an exit code, and no worker that is started again and again."""
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "events.yaml").write_text("events: {viewed: {propertys: {}}}")
    told = nextbest("--home", str(tmp_path), "--redis-url", filled_redis, "serve", "--port", "0", "--workers", "2")
    assert told.returncode == 1
    assert "error: " in told.stderr
    assert "propertys" in told.stderr


def test_half_a_request_keeps_nobody_from_stopping(serving_home, filled_redis):
    """It is waited for as long as anything may take, and then cut off."""
    with running_server(serving_home, filled_redis, NEXTBEST_DRAIN_S="0") as server:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as half:
            half.sendall(b"POST /outcomes HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{")
            time.sleep(0.5)
            os.kill(server.pid, signal.SIGTERM)
            # looked at without taking notice of it: whoever started it does that
            exited = os.WEXITED | os.WNOHANG | os.WNOWAIT
            assert becomes(lambda: os.waitid(os.P_PID, server.pid, exited) is not None, patience=PATIENCE_S + 10.0)


def is_alive(url: str) -> bool:
    try:
        return httpx.get(f"{url}/live", timeout=1.0).status_code == 200
    except httpx.TransportError:
        return False


def test_mistakes_of_the_caller_get_an_answer_that_helps(server):
    """Expected, found, where; and the placements that there are."""
    unknown = httpx.post(f"{server.url}/recommend", json={**ASK, "placement": "hero"})
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
    assert "`home_hero`" in unknown.json()["detail"]
    typed = httpx.post(f"{server.url}/recommend", json={**ASK, "customer_id": 42})
    assert (typed.status_code, typed.json()["detail"]) == (400, "Expected `str | null`, got `int` - at `$.customer_id`")


def test_what_operators_look_at_is_there(server):
    """Metrics count the answer; the OpenAPI document has an example of it."""
    httpx.post(f"{server.url}/recommend", json=ASK)
    assert "nextbest_decisions_total 1.0" in httpx.get(f"{server.url}/metrics").text
    document = httpx.get(f"{server.url}/schema/openapi.json").json()
    assert document["paths"]["/recommend"]["post"]["requestBody"]["content"]["application/json"]["example"]["placements"]
