"""From events to a prediction, from there to Redis, and into a rule: while it is fresh."""

import datetime as dt
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from distributed import LocalCluster

from features.contract import contract_document, parse_contract
from features.homes import contract_path, home_contract, write_home_contract
from features.layout import CustomerLayout, timestamp_field
from features.offline import read_view
from features.vectors import vectorize
from service.cli import main
from service.decision.entities import PlacementRequest
from service.decision.records import ConsentRecord, EventRecord
from service.errors import BundleRefused, NotReady
from training.batch import decide_table
from training.batch_parts import Campaign
from training.decision_log import read_decisions
from training.erasing import erase
from training.event_history import write_events
from training.fit import FitSettings
from training.live_log import write_segment
from training.predictions.learning import train_all
from training.predictions.models import predictions_registry
from training.predictions.scoring import instant, score
from training.rebuild import rebuild
from training.spreading import Workers

DAY = 86_400.0
CONTRACT = parse_contract("""
features:
  - {name: orders_30d, type: number, origin: value, events: {aggregate: count, type: purchased, window: 30d}}
  - {name: since_buying, type: number, origin: value, events: {aggregate: since_last, type: purchased}}
  - {name: churn_risk, type: number, origin: activity, max_age: 7d, prediction: churn_risk}
  - {name: spend_to_come, type: number, origin: value, max_age: 7d, prediction: spend_to_come}
""")
PREDICTIONS = """
predictions:
  churn_risk: {label: {none_of: purchased, within: 30d}, among: {any_of: purchased, within: 90d}}
  spend_to_come: {label: {count: purchased, within: 30d}}
"""
CATALOG = """
catalog: 1
issues: [{id: keep}]
groups: [{id: rescue, issue: keep}]
actions:
  - id: come_back
    group: rescue
    kind: offer
    value: 1
    eligibility: [{is_leaving: "customer.churn_risk > 0.7"}]
    treatments: [{id: card, placements: [hero], content: {}}]
placements:
  - {id: hero, channel: web, slots: 1, accepts: [offer], fallback: {action: plain, kind: content, content: {}}}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """600 customers in half a year until now; the odd ones left two months ago at the latest."""
    write_home_contract(tmp_path, CONTRACT)
    (contract_path(tmp_path).with_name("predictions.yaml")).write_text(PREDICTIONS)
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    chance, now, events = np.random.default_rng(4), time.time(), []
    for number in range(600):
        leaves = now - float(chance.uniform(60, 180)) * DAY if number % 2 else now
        at = now - 180 * DAY
        while (at := at + float(chance.exponential(12)) * DAY) < leaves:
            events.append(EventRecord(f"{number}-{at}", f"c{number}", "purchased", "web", at, at, {"amount": 10.0}))
    write_events(tmp_path, "old", events)
    return tmp_path


def command(home: Path, url: str, *words: str) -> int:
    return main(["--home", str(home), "--redis-url", url, *words])


def decided(home: Path, url: str, name: str) -> dict[str, tuple[list[str], tuple[str, ...]]]:
    """What everybody is shown by the parts that answer requests, and what they had to do without."""
    pq.write_table(pa.table({"customer_id": [f"c{n}" for n in range(600)]}), home / "all.parquet")
    campaign = Campaign(name, (PlacementRequest("hero", 1),), {"channel": "web"})
    known = {logged.record.decision_id for logged in read_decisions(home)}
    decide_table(home, url, campaign, home / "all.parquet", home / "out.parquet")
    found = [logged.record for logged in read_decisions(home) if logged.record.decision_id not in known]
    return {
        r.customer_id: ([i.action_id for i in r.placements[0].items if not r.placements[0].fallback], r.degraded) for r in found
    }


def test_a_prediction_is_trained_scored_read_by_a_rule_and_forgotten_at_its_age(home, redis_url, capsys):
    """Who is silent is offered something; a prediction of eight days ago says nothing and is named."""
    now = time.time()
    assert command(home, redis_url, "catalog", "publish", str(home / "catalog.yaml")) == 0
    assert command(home, redis_url, "rebuild") == 0  # Redis knows of the events
    assert command(home, redis_url, "predictions", "train", "churn_risk") == 0
    assert "`churn_risk-" in capsys.readouterr().out
    assert score(home, redis_url, now - 8 * DAY).untrained == ("spend_to_come",)
    old = decided(home, redis_url, "old")
    assert not any(shown for shown, _ in old.values())
    assert sum("stale:churn_risk" in degraded for _, degraded in old.values()) > 200
    assert command(home, redis_url, "predictions", "score") == 0
    assert "`spend_to_come` is not trained yet" in capsys.readouterr().out
    rows = read_view(home, "predictions").to_pylist()
    values = {row["customer_id"]: row["churn_risk"] for row in rows if row["event_timestamp"].timestamp() >= now}
    fresh = decided(home, redis_url, "fresh")
    assert {name for name, (shown, _) in fresh.items() if shown} == {name for name, risk in values.items() if risk > 0.7}
    assert 20 < sum(bool(shown) for shown, _ in fresh.values()) < 400
    assert not any("stale:churn_risk" in degraded for name, (_, degraded) in fresh.items() if name in values)
    assert command(home, redis_url, "features", "check") == 0
    assert "`churn_risk` is" not in capsys.readouterr().out


def test_several_processes_and_a_dask_cluster_score_what_one_process_would(home, redis_url):
    """Half of the customers each: the same values, to the last bit."""
    now = time.time()
    train_all(home, ["churn_risk"], now, FitSettings(threads=1), force=False)
    found = []
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        for workers in (Workers(1), Workers(2), Workers(2, cluster.scheduler_address)):
            assert score(home, redis_url, now, workers).customers["churn_risk"] > 200
            found.append(read_view(home, "predictions"))
    assert found[0] == found[1] == found[2]


def test_what_was_scored_is_in_redis_whatever_the_fraction_of_the_second(home, redis_url):
    """Of moments whose microseconds a float cannot say, one in sixteen was copied up to just before its own rows."""
    train_all(home, ["churn_risk"], time.time(), FitSettings(threads=1), force=False)
    moments = (int(time.time()) + n / 4_194_304 for n in range(1000))
    early = next(at for at in moments if dt.datetime.fromtimestamp(at, dt.UTC) < instant(at))
    scored = score(home, redis_url, early).customers["churn_risk"]
    with redis.Redis.from_url(redis_url) as client:
        kept = [client.hexists(key, timestamp_field("predictions")) for key in client.scan_iter("*customer_id*")]
    assert sum(kept) == scored > 200


def test_who_does_not_want_to_be_known_is_not_scored(home, redis_url):
    """No row of the table and nothing in Redis, where another would have both."""
    now = time.time()
    consent = "consent: {profiling: {unless_said: given, needed_for: profile}}\n"
    (home / "catalog.yaml").write_text(CATALOG.lstrip() + consent)
    assert command(home, redis_url, "catalog", "publish", str(home / "catalog.yaml")) == 0
    write_segment(home, "consents", "test", [ConsentRecord("c2", "profiling", given=False, at=now, received_at=now)], now)
    train_all(home, ["churn_risk"], now, FitSettings(threads=1), force=False)
    scored = score(home, redis_url, now).customers["churn_risk"]
    names = read_view(home, "predictions")["customer_id"].to_pylist()
    assert "c4" in names
    assert "c2" not in names
    with redis.Redis.from_url(redis_url) as client:
        assert len(list(client.scan_iter("*customer_id*"))) == scored == len(names)


def test_a_prediction_of_an_erased_customer_does_not_come_back(home, redis_url):
    """Neither with a rebuild nor with a copy of the table, which has it still, nor with the next score."""
    now = time.time()
    train_all(home, ["churn_risk"], now - 60, FitSettings(threads=1), force=False)
    score(home, redis_url, now - 60)
    layout = CustomerLayout(home_contract(home))
    with redis.Redis.from_url(redis_url) as client:
        assert all(client.exists(layout.key(name)) for name in ("c2", "c4"))
        erase(home, redis_url, "c2", now - 30)
        for again in (
            lambda: rebuild(home, redis_url), lambda: command(home, redis_url, "features", "materialize"),
            lambda: score(home, redis_url, now),
        ):  # fmt: skip
            again()
            assert [client.exists(layout.key(name)) for name in ("c2", "c4")] == [0, 1]
    assert "c2" not in {
        row["customer_id"] for row in read_view(home, "predictions").to_pylist() if row["event_timestamp"] > instant(now - 9)
    }


def test_a_prediction_is_an_input_of_models(home):
    """The contract's vector has a column for it, missing where it is."""
    contract = home_contract(home)
    [column] = vectorize([contract.find("customer.churn_risk")], {"customer.churn_risk": [0.25, None]}, 2).T.tolist()
    assert column[0] == 0.25
    assert np.isnan(column[1])


def test_scoring_the_same_moment_again_changes_nothing_and_the_list_shows_figures(home, redis_url, capsys):
    """One row for each customer and moment; who is not among those that a prediction is about has none."""
    assert command(home, redis_url, "predictions", "train") == 0
    now = time.time()
    score(home, redis_url, now)
    before = read_view(home, "predictions")
    score(home, redis_url, now)
    assert read_view(home, "predictions") == before
    rows = before.to_pylist()
    assert len(rows) == len({row["customer_id"] for row in rows})
    assert any(row["churn_risk"] is None for row in rows)
    assert all(row["spend_to_come"] is not None for row in rows)
    capsys.readouterr()
    assert command(home, redis_url, "predictions", "list") == 0
    told = capsys.readouterr().out
    assert told.count("used") == 2
    assert "AUC" in told
    assert "R2" in told


def test_what_cannot_be_scored_says_why(home, redis_url, capsys):
    """Nothing trained; then a contract that has changed since."""
    with pytest.raises(NotReady, match="run `nextbest predictions train`"):
        score(home, redis_url, time.time())
    assert command(home, redis_url, "predictions", "list") == 1
    assert "found none" in capsys.readouterr().err
    train_all(home, ["churn_risk"], time.time(), FitSettings(threads=1), force=False)
    contract_path(home).write_text(contract_document(CONTRACT).replace("window: 30d", "window: 7d"))
    with pytest.raises(BundleRefused, match="run `nextbest predictions train churn_risk`"):
        score(home, redis_url, time.time())


def test_a_refusal_is_an_exit_code_and_names_what_there_is(home, redis_url, capsys):
    """Scripts notice; so does whoever misspells a name, a moment, or has declared nothing."""
    assert command(home, redis_url, "predictions", "train", "luck") == 1
    assert "`luck`: refused" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command(home, redis_url, "predictions", "score", "--at", "soon")
    write_home_contract(home, parse_contract("features: [{name: age, type: number, origin: profile, max_age: 1d}]"))
    contract_path(home).with_name("predictions.yaml").unlink()
    assert command(home, redis_url, "predictions", "train") == 1
    assert "predictions.yaml" in capsys.readouterr().err
    assert predictions_registry(home).bundles() == []
