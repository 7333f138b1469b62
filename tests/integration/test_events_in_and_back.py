"""A history of events comes in, features know it, and everything in Redis can be put back from what is written down."""

import asyncio
import datetime as dt
import gzip
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
import yaml

from features.contract import parse_contract
from features.event_types import PACKAGED
from features.homes import home_contract, write_home_contract
from features.live import MOST_IDS
from features.offline import write_view
from features.redis_client import redis_client
from service.catalog.policies import DECISIONS, Budget, Purpose
from service.catalog.validate import load_catalog
from service.cli import main
from service.decision.contacts import SIZE
from service.decision.decide import decide
from service.decision.experiments import Assigned
from service.decision.records import (
    AlertFollowUp,
    AlertRaised,
    ConsentRecord,
    DecisionRecord,
    EventRecord,
    IdentityRecord,
    OutcomeRecord,
    PlacementRecord,
    QuarantinedRecord,
    ServedItem,
    Versions,
    encode_line,
)
from service.errors import DependencyFailed, ImportInvalid, NotReady
from service.ids import customer_key
from service.ports import Terms
from service.registry import Registry
from service.stores.alert_stream import STREAM, held_key
from service.stores.aliases import alias_key
from service.stores.budgets import budget_keys
from service.stores.completeness import COMPLETE, is_complete, nothing_written
from service.stores.consents import RedisConsents
from service.stores.contact_history import RedisContactHistory, contacts_key, decision_key
from service.stores.customer_reader import RedisCustomerReader
from service.stores.identities import RedisIdentities
from service.stores.links import open_link
from service.stores.resp import encode
from training.alert_sweep import sweep
from training.alerts import follow_up, read_alerts
from training.batch import serving_engine
from training.event_commands import live_differences
from training.event_history import read_events
from training.feeding import has_unfed, set_unfed
from training.ingest import ingest, ingest_quarantine
from training.live_log import read_log, segments, write_segment
from training.rebuild import budget_counts, counters_put_right, read_counters, rebuild

NOW = 1_790_000_000.0
DAY = 86_400.0
LAST = "{aggregate: recent, type: product_viewed, property: category}"
CONTRACT = parse_contract(f"""
features:
  - {{name: views_24h, type: number, origin: activity, events: {{aggregate: count, type: product_viewed, window: 24h}}}}
  - {{name: spend_30d, type: number, origin: value, events: {{aggregate: sum, type: purchased, property: amount, window: 30d}}}}
  - {{name: warmth, type: number, origin: activity, events: {{aggregate: count, half_life: 7d}}}}
  - {{name: last_category, type: category, origin: activity, categories: [fashion, home], events: {LAST}}}
""")


@pytest.fixture
def home(tmp_path):
    write_home_contract(tmp_path / "home", CONTRACT)
    return tmp_path / "home"


def rows(count: int = 500) -> list[dict[str, object]]:
    chance = np.random.default_rng(3)
    found = []
    for n in range(count):
        bought = {"type": "purchased", "amount": float(chance.integers(1, 90))}
        viewed = {"type": "product_viewed", "category": str(chance.choice(["fashion", "home"]))}
        known = {"event_id": f"e{n}", "customer_id": f"c{chance.integers(30)}", "channel": "web"}
        found.append({**known, "at": NOW - float(chance.uniform(0, 9 * DAY)), **(viewed if n % 4 else bought)})
    return found


def written(path, events):
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


async def values(redis_url, customer, now=NOW):
    link = open_link(redis_url, timeout_ms=5000)
    state = (await RedisCustomerReader(link, CONTRACT, lambda: False).read([customer], now)).states[0]
    await link.close()
    return state


async def believed(redis_url) -> bool:
    link = open_link(redis_url, timeout_ms=5000)
    try:
        return await is_complete(link)
    finally:
        await link.close()


def test_a_history_is_taken_once_and_features_know_it(home, any_redis_url, tmp_path):
    """5 % come twice; the second time the whole file changes nothing; online and offline agree on everybody."""
    events = rows()
    path = written(tmp_path / "events.jsonl", [*events, *events[::20]])
    assert ingest(home, any_redis_url, path, now=NOW) == (525, 500, 25, 0, 0)
    assert ingest(home, any_redis_url, path, now=NOW) == (525, 0, 525, 0, 0)
    assert len(list(read_events(home))) == 500
    differences, customers = live_differences(home, any_redis_url, 100)
    assert (differences, customers) == ([], 30)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "jsonl.gz"])
def test_the_same_events_in_any_format_are_the_same_events(home, redis_url, tmp_path, kind):
    """Columns that are empty in a row are no properties of it."""
    events = rows(40)
    path = tmp_path / f"events.{kind}"
    table = pa.Table.from_pylist([{"amount": None, "category": None, **event} for event in events])
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress("".join(json.dumps(event) + "\n" for event in events).encode()))
    else:
        text = table.to_pandas().to_csv(index=False)
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    assert ingest(home, redis_url, path, now=NOW).accepted == 40
    found = {record.event_id: record for record in read_events(home)}
    for event in events:
        record = found[event["event_id"]]
        assert record.properties == {k: event[k] for k in ("amount", "category") if k in event}
        assert record.at == pytest.approx(event["at"], abs=1e-6)


def test_a_mapping_says_what_other_names_mean(home, redis_url, tmp_path):
    """Nested values, a literal channel, hours since a start; without an id, equal rows are one event."""
    (tmp_path / "mapping.toml").write_text(
        'customer_id = "person"\ntype = "event"\nchannel = "=app"\nat = "time"\nat_unit = 3600\n'
        'at_start = "2026-01-01T00:00:00Z"\n'
        '[types]\ntransaction = "purchased"\n[properties]\namount = ["value.amount", "value.sum"]\n'
    )
    events = [{"person": "p1", "event": "transaction", "time": 6, "value": {"sum": 3.5}}] * 2
    path = written(tmp_path / "t.jsonl", [*events, {"person": "p1", "event": "looked", "time": 7, "value": {}}])
    report = ingest(home, redis_url, path, tmp_path / "mapping.toml", now=NOW)
    assert report == (3, 2, 1, 0, 1)
    first, second = read_events(home)
    assert (first.type, first.channel, first.properties) == ("purchased", "app", {"amount": 3.5})
    assert second.at - first.at == 3600.0
    assert second.declared is False


def ingest_cut_short(home, file) -> None:
    """A process of its own, killed when it has written to the lake and reached a Redis that does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60.0)
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "service.cli", "--home", str(home), "--redis-url", url, "ingest", str(file)]
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            connection, _ = silent.accept()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        connection.close()


@pytest.mark.parametrize("before", [0, 5])
async def test_what_a_killed_ingestion_has_not_fed_the_next_one_feeds_once(home, any_redis_url, tmp_path, capsys, before):
    """Also of a customer of whom more happened than a state has ids of; until then a check says that Redis does not know it."""

    def views(name: str, count: int, at: float):
        row = {"customer_id": "c1", "type": "product_viewed", "channel": "web", "category": "home"}
        return written(tmp_path / f"{name}.jsonl", [{**row, "event_id": f"{name}{n}", "at": at} for n in range(count)])

    check = ["--home", str(home), "--redis-url", any_redis_url, "features", "check"]
    await asyncio.to_thread(ingest, home, any_redis_url, views("before", before, NOW - 900), now=NOW)
    many = views("many", 2 * MOST_IDS, NOW - 600)
    await asyncio.to_thread(ingest_cut_short, home, many)
    assert await asyncio.to_thread(main, check) == 1
    assert "c1: the event of 2026-09-21T14:03:20Z is not known in Redis" in capsys.readouterr().out
    assert (await asyncio.to_thread(ingest, home, any_redis_url, many, now=NOW)).duplicates == 2 * MOST_IDS
    assert (await values(any_redis_url, "c1")).values["views_24h"] == before + 2 * MOST_IDS
    assert await asyncio.to_thread(main, check) == 0
    await asyncio.to_thread(ingest, home, any_redis_url, views("after", 3, NOW - 300), now=NOW)
    assert (await values(any_redis_url, "c1")).values["views_24h"] == before + 2 * MOST_IDS + 3


def test_what_redis_could_not_be_told_the_next_ingestion_tells(home, redis_url, tmp_path):
    """Whatever file that one takes in; and a rebuild leaves nothing to be made up for."""
    first, second = ({**row, "at": NOW} for row in rows(2))
    with pytest.raises(DependencyFailed, match="the next `nextbest ingest`"):
        ingest(home, "unix:///nowhere", written(tmp_path / "first.jsonl", [first]), now=NOW)
    assert has_unfed(home)
    ingest(home, redis_url, written(tmp_path / "second.jsonl", [second]), now=NOW)
    assert not has_unfed(home)
    assert live_differences(home, redis_url, 10) == ([], len({first["customer_id"], second["customer_id"]}))
    set_unfed(home)
    rebuild(home, redis_url)
    assert not has_unfed(home)


def test_a_row_is_set_aside_once_however_often_its_file_is_ingested(home, redis_url, tmp_path):
    """The report still counts it."""
    file = written(tmp_path / "events.jsonl", [{"type": "purchased"}, *rows(2)])
    for later in range(3):
        assert ingest(home, redis_url, file, now=NOW + later).quarantined == 1
    assert len(list(read_log(home, "quarantine", QuarantinedRecord))) == 1


def test_ids_and_texts_of_a_csv_stay_as_they_are_written(home, redis_url, tmp_path):
    """Whatever their columns are called: no zero is lost, and long ids that differ in the last digit are two."""
    (tmp_path / "mapping.toml").write_text(
        'customer_id = "user"\ntype = "kind"\nchannel = "=web"\nat = "when"\nevent_id = "id"\n'
        '[types]\n01 = "product_viewed"\n[properties]\nproduct = ["sku"]\nprice = ["paid"]\n'
    )
    (tmp_path / "events.csv").write_text(
        "user,kind,when,id,sku,paid\n00042,01,1767225600,007,0815,3\n,01,1767225600,008,1,4\n"
        "00043,01,1767225601,18446744073709551617,1e3,5\n00044,01,1767225601,18446744073709551618,,6\n"
    )
    assert ingest(home, redis_url, tmp_path / "events.csv", tmp_path / "mapping.toml", now=NOW) == (4, 3, 0, 1, 0)
    assert [(r.event_id, r.customer_id, r.type, r.at, r.properties) for r in read_events(home)] == [
        ("007", "00042", "product_viewed", 1_767_225_600.0, {"product": "0815", "price": 3.0}),
        ("18446744073709551617", "00043", "product_viewed", 1_767_225_601.0, {"product": "1e3", "price": 5.0}),
        ("18446744073709551618", "00044", "product_viewed", 1_767_225_601.0, {"price": 6.0}),
    ]


def test_a_column_of_a_csv_that_is_also_a_number_is_read_as_what_it_looks_like(home, redis_url, tmp_path):
    """Where one type declares a number and another a text, and where a text of the same name is the moment."""
    (home / "features" / "events.yaml").write_text(
        PACKAGED.read_text() + "  rated: {properties: {mark: number, day: text}}\n  noted: {properties: {mark: text}}\n"
    )
    (tmp_path / "mapping.toml").write_text('at = "day"\n')
    (tmp_path / "events.csv").write_text("event_id,customer_id,type,channel,day,mark\n1,c1,rated,web,1767225600,5\n")
    assert ingest(home, redis_url, tmp_path / "events.csv", tmp_path / "mapping.toml", now=NOW).accepted == 1
    [record] = read_events(home)
    assert (record.at, record.properties) == (1_767_225_600.0, {"mark": 5.0})


def test_days_and_moments_without_a_zone_are_utc(home, redis_url, tmp_path):
    """As a table has them: a column of dates, a column of timestamps."""
    for name, at in (("day", "2026-01-02"), ("moment", "2026-01-02 00:00:00")):
        (tmp_path / f"{name}.csv").write_text(f"event_id,customer_id,type,channel,at\n{name},c1,purchased,web,{at}\n")
        assert ingest(home, redis_url, tmp_path / f"{name}.csv", now=NOW).accepted == 1
    assert {record.at for record in read_events(home)} == {1_767_312_000.0}


@pytest.mark.parametrize("nothing", ["", math.nan, None])
def test_an_event_id_that_is_empty_is_none(home, redis_url, tmp_path, nothing):
    """All rows of a table with an empty column were one event."""
    kept = {"event_id": [nothing] * 3, "type": ["purchased"] * 3, "channel": ["web"] * 3, "at": [NOW - 5.0] * 3}
    pq.write_table(pa.table({**kept, "customer_id": ["c1", "c2", "c2"]}), tmp_path / "e.parquet")
    assert ingest(home, redis_url, tmp_path / "e.parquet", now=NOW)[:3] == (3, 2, 1)
    assert {record.customer_id for record in read_events(home)} == {"c1", "c2"}


def test_an_id_that_a_missing_one_has_made_a_float_is_the_whole_number_it_was(home, redis_url, tmp_path):
    """As `nextbest decide` takes it; who has none is known by the other id, or by nothing."""
    kept = {"type": ["purchased"] * 4, "channel": ["web"] * 4, "at": [NOW - 5.0] * 4}
    ids = {"customer_id": [42.0, 1e15, math.nan, math.nan], "anonymous_id": [None, None, "a7", None]}
    pq.write_table(pa.table({**kept, **ids}), tmp_path / "e.parquet")
    report = ingest(home, redis_url, tmp_path / "e.parquet", now=NOW)
    assert (report.accepted, report.quarantined) == (3, 1)
    assert {record.customer_id for record in read_events(home)} == {"42", "1000000000000000", "a7"}


@pytest.mark.parametrize(
    ("customer", "reason"),
    [
        ({"id": 1}, "Expected an id, a text or a whole number"),
        (True, "Expected an id, a text or a whole number, got `True`"),
        (4.5, "Expected an id, a text or a whole number, got `4.5`"),
        ("c" * 257, "Expected an id of at most 256 characters, got 257"),
        ("ann@shop.example", "got an e-mail address"),
        ("", "Expected `customer_id`, got none"),
    ],
)
def test_an_id_that_the_service_would_refuse_is_set_aside(home, redis_url, tmp_path, customer, reason):
    """Nobody could ever ask for such a customer."""
    assert (
        ingest(home, redis_url, written(tmp_path / "e.jsonl", [{**rows(1)[0], "customer_id": customer}]), now=NOW).quarantined
        == 1
    )
    assert reason in next((home / "log" / "quarantine").iterdir()).read_text()


def test_rows_that_cannot_be_taken_are_set_aside_with_their_reasons(home, redis_url, tmp_path):
    """The others are taken."""
    bad = [
        {"type": "purchased"},
        {**rows(1)[0], "event_id": "x", "amount": "much"},
        {**rows(1)[0], "event_id": "y", "at": NOW + 1e6},
    ]
    report = ingest(home, redis_url, written(tmp_path / "e.jsonl", [*bad, *rows(5)]), now=NOW)
    assert (report.accepted, report.quarantined) == (5, 3)
    [path] = (home / "log" / "quarantine").iterdir()
    text = path.read_text()
    for reason in ("Expected `channel`, got none", "Expected a number, got `much`", "at most 300 s ahead"):
        assert reason in text


def test_the_same_file_again_adds_what_it_brings_now_and_loses_nothing(home, redis_url, tmp_path):
    """What was ahead of the clock the first time comes in the second, beside what had come."""
    here, ahead = rows(2)[0], {**rows(2)[1], "at": NOW + 3600}
    file = written(tmp_path / "events.jsonl", [here, ahead])
    assert ingest(home, redis_url, file, now=NOW)[1:4] == (1, 0, 1)
    assert ingest(home, redis_url, file, now=NOW + 3600)[1:4] == (1, 1, 0)
    assert sorted(event.event_id for event in read_events(home)) == ["e0", "e1"]
    assert ingest(home, redis_url, file, now=NOW + 3600)[1:4] == (0, 2, 0)
    assert sorted(event.event_id for event in read_events(home)) == ["e0", "e1"]


@pytest.mark.parametrize("at", [1e305, -62_135_596_800, int("1" * 310), "0000-00-00", "9" * 30])
def test_a_moment_that_no_calendar_has_is_set_aside_alone(home, redis_url, tmp_path, at):
    """With its reason; the other rows come in."""
    file = written(tmp_path / "events.jsonl", [rows(2)[0], {**rows(2)[1], "at": at}])
    assert ingest(home, redis_url, file, now=NOW)[1:4] == (1, 0, 1)
    [spoiled] = read_log(home, "quarantine", QuarantinedRecord)
    assert spoiled.reason


def test_what_was_set_aside_is_taken_once_its_reason_is_mended(home, redis_url, tmp_path, capsys):
    """A property that nobody had declared; what is still wrong stays, and taking it in again changes nothing."""
    colour = {**rows(1)[0], "event_id": "x", "colour": "red"}
    ingest(home, redis_url, written(tmp_path / "e.jsonl", [colour, {"type": "purchased"}]), now=NOW)
    sent = QuarantinedRecord("why", NOW, '{"event_id": "y", "anonymous_id": "a-1", "type": "waved", "channel": "web"}')
    (home / "log" / "quarantine" / "9-t-1.log").write_bytes(encode_line(json_of(sent)))
    (home / "features" / "events.yaml").write_text(PACKAGED.read_text().replace("amount: number", "colour: text, amount: number"))
    run = ["--home", str(home), "--redis-url", redis_url, "ingest", "--quarantine"]
    assert main(run) == 0
    out = capsys.readouterr().out
    assert "2 new events" in out
    assert "1 still cannot be taken" in out
    assert {r.event_id: (r.customer_id, r.properties.get("colour")) for r in read_events(home)} == {
        "x": (colour["customer_id"], "red"),
        "y": ("a-1", None),
    }
    assert main(run) == 0
    assert "0 new events, 2 known before" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*run, "file.jsonl"])


def test_a_line_that_is_no_event_is_set_aside_and_the_rest_is_taken(home, redis_url, tmp_path):
    """With its number, once; it stays what it is."""
    first, second = (json.dumps(row).encode() for row in rows(2))
    file = tmp_path / "e.jsonl"
    lines = [b"not json", first, b'{"torn": ', b"", b"[1]", b'{"a": "\xff"}', b'{"a": 1e400}', b'{"a": ' + b"[" * 99_999, second]
    file.write_bytes(b"\n".join(lines))
    for accepted in (2, 0):
        assert ingest(home, redis_url, file, now=NOW) == (8, accepted, 2 - accepted, 6, 0)
    spoiled = list(read_log(home, "quarantine", QuarantinedRecord))
    assert [record.reason.partition(": Expected")[0] for record in spoiled] == [f"e.jsonl: line {n}" for n in (1, 3, 5, 6, 7, 8)]
    assert [record.event for record in spoiled][:2] == ["not json", '{"torn": ']
    assert max(len(record.event) for record in spoiled) == 20_000
    assert ingest_quarantine(home, redis_url, now=NOW)[1:4] == (0, 0, 6)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("e.jsonl", b"not json\nnor this\n", "line 1: Expected an event as a JSON object"),
        ("e.json", b'[\n{"a": 1},\n{"a": 2}\n]\n', "each on a line of its own"),
        ("e.parquet", b"not parquet\n", "Expected Parquet, got something else"),
        ("e.jsonl.gz", b"not gzip\n", "Expected a readable file, got `Not a gzipped file"),
        ("e.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:30], "Expected a readable file, got `"),
        ("e.csv", b"a,b\n1,2,3\n", "Expected a table"),
    ],
    ids=["no JSON", "one list", "no Parquet", "no gzip", "cut off", "ragged"],
)
def test_what_is_no_file_of_events_is_refused(home, tmp_path, name, content, expected):
    """In words, and nothing is set aside."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImportInvalid, match=expected):
        ingest(home, "unix:///nowhere", tmp_path / name, now=NOW)
    assert not (home / "log" / "quarantine").exists()


def test_a_file_that_is_not_there_is_refused(home, redis_url, tmp_path):
    """Before anything else."""
    with pytest.raises(ImportInvalid, match="Expected a file"):
        ingest(home, redis_url, tmp_path / "none.jsonl", now=NOW)


async def test_until_it_is_rebuilt_an_emptied_redis_is_not_believed(home, redis_url, tmp_path):
    """Caps count as reached and live features are missing; afterwards everything is as before."""
    path = written(tmp_path / "events.jsonl", rows())
    await asyncio.to_thread(ingest, home, redis_url, path, now=NOW)
    before = {f"c{n}": await values(redis_url, f"c{n}") for n in range(30)}
    assert before["c1"].values["warmth"] > 0
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    lost = await values(redis_url, "c1")
    assert (lost.contacts, lost.values) == (None, {})
    assert "warmth" in lost.stale
    report = await asyncio.to_thread(rebuild, home, redis_url)
    assert (report.events, report.customers_of_events) == (500, 30)
    for customer, state in before.items():
        again = await values(redis_url, customer)
        assert again.contacts == state.contacts
        assert again.values.pop("last_category", None) == state.values.pop("last_category", None)
        assert again.values == pytest.approx(state.values)


def test_live_events_outcomes_and_decisions_are_rebuilt_too(own_home, any_redis_url, shop):
    """Contacts of decisions and what came of them, in their order; budgets are counted; twice is as good as once."""
    moments = shop.moments(200, NOW, NOW + DAY, seed=2)
    records = decide(serving_engine(own_home), [shop.request(m, f"d{n}") for n, m in enumerate(moments)])
    shown = [r for r in records if not r.placements[0].fallback]
    outcomes = [OutcomeRecord(f"o{r.decision_id}", r.decision_id, "impression", r.at + 1, r.at + 1) for r in shown[::2]]
    live = [EventRecord("live-1", "c1", "product_viewed", "web", NOW, NOW, {"category": "home"})]
    for kind, some in (("decisions", records), ("outcomes", outcomes), ("events", live)):
        (own_home / "log" / kind).mkdir(parents=True)
        (own_home / "log" / kind / "1-t-1.log").write_bytes(b"".join(encode_line(json_of(one)) for one in some))
    first = rebuild(own_home, any_redis_url)
    second = rebuild(own_home, any_redis_url)
    assert first.contacts == second.contacts == len({r.customer_id for r in shown})
    with redis_client(any_redis_url) as client:
        entries = sum(client.strlen(key) for key in client.scan_iter("nb:contacts:*")) // 16
    assert entries == len(shown) + len(outcomes)
    assert asyncio.run(believed(any_redis_url))


def test_outcomes_of_ids_that_clients_chose_count_after_a_rebuild(home, any_redis_url):
    """They name nothing else. As long as the service knows an id, and no longer; what it has told meanwhile stays."""
    now = time.time()
    shown = (PlacementRecord("hero", 1, (ServedItem(1, "gold", "", "offer", 0.1, 1.0, 1.0, explored=False),), fallback=False),)
    ages = {"fresh": 3 * DAY, "known": 30.5 * DAY, "old": 32 * DAY}
    decisions = [DecisionRecord(name, "c1", now - age, {}, {}, shown, Versions(1, None, "x")) for name, age in ages.items()]
    write_segment(home, "decisions", "tests", decisions, now)
    rebuild(home, any_redis_url)
    dismissals = [OutcomeRecord(f"o-{name}", name, "dismiss", now, now, "hero", "gold") for name in ages]
    asyncio.run(recorded(any_redis_url, dismissals))
    with redis_client(any_redis_url) as client:
        assert client.strlen(contacts_key(customer_key("c1"))) == SIZE * (len(decisions) + 2)
        assert 0 < client.ttl(decision_key("known")) <= 0.5 * DAY < client.ttl(decision_key("fresh")) <= 28 * DAY
        client.set(decision_key("fresh"), customer_key("c1"), ex=60)
        rebuild(home, any_redis_url, ids_kept_s=90 * DAY)
        assert client.ttl(decision_key("fresh")) <= 60 < client.ttl(decision_key("old"))


async def recorded(redis_url, outcomes) -> None:
    """As the service tells Redis of outcomes."""
    link = open_link(redis_url, timeout_ms=5000)
    try:
        await RedisContactHistory(link).record(outcomes)
    finally:
        await link.close()


def test_budgets_of_arms_are_counted_again_and_one_that_an_arm_changes_once(own_home, any_redis_url, shop):
    """The arm's own by its customers alone, and the catalog's that it allows more of by everybody's."""
    document = yaml.safe_load((own_home / "catalog.yaml").read_text())
    sale = {"name": "sales", "action": "fashion_sale", "at_most": 5, "count": "decisions", "period": "total"}
    arm = {"id": "arm", "overrides": {"contact": {"budgets": [{**sale, "at_most": 9}, {**sale, "name": "arms"}]}}}
    document |= {"contact": {"budgets": [sale]}, "experiments": [{"id": "e", "share": 0.5, "arms": [arm]}]}
    (own_home / "budgets.yaml").write_text(yaml.safe_dump(document))
    assert main(["--home", str(own_home), "catalog", "publish", str(own_home / "budgets.yaml")]) == 0
    records = decide(
        serving_engine(own_home), [shop.request(m, f"d{n}") for n, m in enumerate(shop.moments(200, NOW, NOW + DAY, seed=2))]
    )
    served, of_arm = (
        sum(i.action_id == "fashion_sale" for r in some for p in r.placements if not p.fallback for i in p.items)
        for some in (records, [r for r in records if r.experiment == Assigned("e", "arm")])
    )
    (own_home / "log" / "decisions").mkdir(parents=True)
    (own_home / "log" / "decisions" / "1-t-1.log").write_bytes(b"".join(encode_line(json_of(one)) for one in records))
    assert rebuild(own_home, any_redis_url).budgets == 2
    with redis_client(any_redis_url) as client:
        counted = {key: int(client.get(key)) for key in client.scan_iter("nb:budget:*")}
    assert 0 < of_arm < served
    assert counted == {b"nb:budget:{sales}:total": served, b"nb:budget:{arms}:total": of_arm}


def test_a_budget_that_is_new_has_nothing_of_what_was_decided_before(own_home, any_redis_url, shop):
    """As the service counts it: from its first decision, and its first impression, on."""
    document = yaml.safe_load((own_home / "catalog.yaml").read_text())
    registry = Registry(own_home / "registry")

    def decided(prefix: str) -> list[DecisionRecord]:
        moments = shop.moments(60, NOW, NOW + DAY, seed=2)
        return decide(serving_engine(own_home), [shop.request(m, f"{prefix}{n}") for n, m in enumerate(moments)])

    def published(at: str, **added: object) -> None:
        content = document | added
        catalog = load_catalog(content, home_contract(own_home))
        registry.publish_catalog(content, fingerprint=catalog.fingerprint, author="me", note="", at=at)

    published("2026-09-01T00:00:00Z", contact={})
    before = decided("old")
    budgets = [
        {"name": "sales", "action": "fashion_sale", "at_most": 999, "count": "decisions"},
        {"name": "seen", "action": "fashion_sale", "at_most": 999},
    ]
    published("2026-09-25T00:00:00Z", contact={"budgets": budgets})
    after = decided("new")
    sales = [[r for r in some if any(i.action_id == "fashion_sale" for i in r.placements[0].items)] for some in (before, after)]
    told = [
        OutcomeRecord(f"o{r.decision_id}", r.decision_id, "impression", r.at, r.at, r.placements[0].id, "fashion_sale")
        for r in sales[0]
    ]
    later = [
        msgspec.structs.replace(o, outcome_id=f"{o.outcome_id}+", at=o.at + 9 * DAY, received_at=o.at + 9 * DAY) for o in told
    ]
    write_segment(own_home, "decisions", "tests", [*before, *after], NOW)
    write_segment(own_home, "outcomes", "tests", [*told, *later], NOW)
    rebuild(own_home, any_redis_url)
    with redis_client(any_redis_url) as client:
        counted = {key: int(client.get(key)) for key in client.scan_iter("nb:budget:*")}
    assert len(sales[1]) > 0 < len(later)
    assert counted == {b"nb:budget:{sales}:total": len(sales[1]), b"nb:budget:{seen}:total": len(later)}


async def test_what_is_counted_while_the_log_is_read_stays_counted(tmp_path, any_redis_url):
    """A counter that was wrong is right by the log as of the look at Redis; a day that is over is what the log says."""
    gifts = Budget("gifts", "gift", at_most=10, per_day=False, count=DECISIONS)
    daily = Budget("calls", "call", at_most=10, per_day=True, count="impressions")
    now, before = NOW, NOW - 2 * DAY
    at = [before, before, now - 1.0, now + 1.0]  # the last one is made after the look
    shown = [PlacementRecord("hero", 1, (ServedItem(1, "gift", "", "offer", 0.1, 1.0, 1.0, explored=False),), fallback=False)]
    decisions = [DecisionRecord(f"d{n}", "c1", t, {}, {}, tuple(shown), Versions(1, None, "x"), ()) for n, t in enumerate(at)]
    outcomes = [OutcomeRecord(f"o{n}", f"d{n}", "impression", t, t, "hero", "call") for n, t in enumerate(at)]
    write_segment(tmp_path, "decisions", "tests", decisions, now)
    write_segment(tmp_path, "outcomes", "tests", outcomes, now)
    total, today, past = (budget_keys(b, t)[0] for b, t in ((gifts, now), (daily, now), (daily, before)))
    link = open_link(any_redis_url, timeout_ms=5000)
    try:
        await link.ask(b"".join(encode("SET", key, count) for key, count in ((total, "7"), (past, "9"))), 2)
        looked = await read_counters(link, [gifts, daily], now)
        await link.ask(encode("INCRBY", total, "2") + encode("INCRBY", today, "1"), 2)
        commands = counters_put_right(looked, budget_counts(tmp_path, [gifts, daily], now))
        await link.ask(b"".join(commands), len(commands))
        found = await link.ask(b"".join(encode("GET", key) for key in (total, today, past)), 3)
    finally:
        await link.close()
    assert looked == {total: 7, today: 0}
    assert [int(count) for count in found] == [3 + 2, 1 + 1, 2]


async def test_consents_are_rebuilt_and_denied_until_then(own_home, any_redis_url):
    """What each said last, under whichever id; what came in while Redis was empty holds as well."""
    log = own_home / "log"
    said = [
        ("a-1", True, 2.0),
        ("c42", False, 1.0),
        ("c43", True, 1.0),
        ("c43", False, 1.0),
        ("c44", True, 3.0),
        ("c44", False, 2.0),
    ]
    consents = [ConsentRecord(customer, "marketing", given, NOW + at, NOW + at) for customer, given, at in said]
    for kind, some in (("consents", consents), ("identities", [IdentityRecord("a-1", "c42", NOW)])):
        (log / kind).mkdir(parents=True)
        (log / kind / "1-t-1.log").write_bytes(b"".join(encode_line(json_of(one)) for one in some))
    link = open_link(any_redis_url, timeout_ms=5000)
    reader = RedisCustomerReader(link, CONTRACT, lambda: nothing_written(own_home))
    terms = Terms(purposes=(Purpose("marketing", given=True),))

    async def given() -> list[object]:
        states = (await reader.read(["a-1", "c42", "c43", "c44", "c45"], NOW, terms)).states
        return [state.values["consent_marketing"] for state in states]

    assert await given() == [0.0] * 5
    await RedisConsents(link).record([ConsentRecord("c44", "marketing", given=False, at=NOW + 9, received_at=NOW + 9)])
    await asyncio.to_thread(rebuild, own_home, any_redis_url)
    assert await given() == [1.0, 1.0, 0.0, 0.0, 1.0]
    await link.close()


def json_of(record) -> bytes:
    return msgspec.json.encode(record)


def test_a_rebuild_that_does_not_come_to_rest_says_so_and_redis_stays_doubted(home, redis_url, tmp_path):
    """A key that no rebuild can write: nothing is called complete."""
    ingest(home, redis_url, written(tmp_path / "e.jsonl", rows(20)), now=NOW)
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        client.set(alias_key(str(rows(20)[0]["customer_id"])), "somebody")  # as if the log had not heard of it yet
    with pytest.raises(DependencyFailed, match="that never did"):
        rebuild(home, redis_url)
    with redis.Redis.from_url(redis_url) as client:
        assert client.get(COMPLETE) is None


async def test_an_unlinked_alias_takes_its_own_events_with_it(home, any_redis_url, tmp_path):
    """Linked, both count together; unlinked, each has what it did itself; twice is an error."""
    viewed = {"type": "product_viewed", "channel": "web", "at": NOW - 60.0}
    events = [{**viewed, "event_id": f"e{n}", "customer_id": "a-1" if n < 2 else "c42"} for n in range(5)]
    await asyncio.to_thread(ingest, home, any_redis_url, written(tmp_path / "e.jsonl", events), now=NOW)
    link = open_link(any_redis_url, timeout_ms=5000)
    await RedisIdentities(link, CONTRACT, lambda: True).link("a-1", "c42")
    await link.close()
    (home / "log" / "identities").mkdir(parents=True)
    record = encode_line(json_of(IdentityRecord("a-1", "c42", NOW)))
    (home / "log" / "identities" / "0-t-1.log").write_bytes(record)
    assert (await values(any_redis_url, "a-1")).values["views_24h"] == 5.0
    assert await asyncio.to_thread(live_differences, home, any_redis_url, 10) == ([], 1)
    await asyncio.to_thread(rebuild, home, any_redis_url)
    assert (await values(any_redis_url, "a-1")).values["views_24h"] == 5.0
    run = ["--home", str(home), "--redis-url", any_redis_url, "unlink", "a-1"]
    assert await asyncio.to_thread(main, run) == 0
    assert (await values(any_redis_url, "a-1")).values["views_24h"] == 2.0
    assert (await values(any_redis_url, "c42")).values["views_24h"] == 3.0
    assert await asyncio.to_thread(main, run) == 1


def test_the_commands_say_what_they_did(home, redis_url, tmp_path, capsys):
    """Counts, the place of what was set aside, and the verdict of the comparison as exit code."""
    path = written(tmp_path / "e.jsonl", [*rows(50), {"type": "x"}])
    run = ["--home", str(home), "--redis-url", redis_url]
    assert main([*run, "ingest", str(path)]) == 0
    out = capsys.readouterr().out
    assert "51 rows" in out
    assert "50 new events" in out
    assert "1 were set aside" in out
    assert main([*run, "features", "check"]) == 0
    assert "values that events fed: 0 differ" in capsys.readouterr().out
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    assert main([*run, "features", "check"]) == 1
    assert main([*run, "rebuild"]) == 0
    assert "50 events" in capsys.readouterr().out
    assert main([*run, "features", "check"]) == 0


def test_a_rebuild_says_where_the_redis_that_it_filled_ends_with_it(home, redis_url, capsys):
    """The home's own, which a service that had started it does not get back by this; not one that was named."""
    assert main(["--home", str(home), "rebuild"]) == 0
    assert "that Redis is the home's own" in capsys.readouterr().out
    assert main(["--home", str(home), "--redis-url", redis_url, "rebuild"]) == 0
    assert "the home's own" not in capsys.readouterr().out


@pytest.mark.parametrize("command", [["rebuild"], ["unlink", "a-1"]])
def test_without_redis_a_command_that_needs_it_is_one_line(home, command, capsys):
    """Which Redis, and what it said; no traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        where = f"redis://127.0.0.1:{taken.getsockname()[1]}"
        assert main(["--home", str(home), "--redis-url", where, *command]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: Expected Redis to answer, got:")
    assert told.endswith(f"at `{where}`")


def test_texts_of_a_history_are_scored_once_and_give_the_same_everywhere(tmp_path, redis_url):
    """The number is in the lake; features from Redis, from DuckDB and after a rebuild are made of it."""
    home = tmp_path / "home"
    mood = "{aggregate: recent, type: survey_answered, property: sentiment}"
    write_home_contract(home, parse_contract(f"features: [{{name: mood, type: number, origin: attitude, events: {mood}}}]"))
    texts = {"c1": "I love it, thank you!", "c2": "质量太差了", "c3": "Отлично"}
    events = [
        {"event_id": f"e-{c}", "customer_id": c, "type": "survey_answered", "channel": "app", "at": NOW - 60, "text": text}
        for c, text in texts.items()
    ]
    sent = {**events[0], "event_id": "own", "sentiment": 1.0}
    report = ingest(home, redis_url, written(tmp_path / "surveys.jsonl", [*events, sent]), now=NOW)
    assert (report.accepted, report.quarantined) == (3, 1)
    scores = {record.customer_id: record.properties["sentiment"] for record in read_events(home)}
    assert scores["c1"] > 0.5
    assert scores["c2"] < -0.5
    assert scores["c3"] == 0.0
    assert live_differences(home, redis_url, 10) == ([], 3)
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    rebuild(home, redis_url)
    assert live_differences(home, redis_url, 10) == ([], 3)


def test_alerts_that_nobody_has_closed_are_in_the_stream_again(home, redis_url):
    """And whoever was held back still is; once more changes nothing."""
    alerts = [
        AlertRaised(name, "unhappy", "high", "desk", "c1", f"e-{name}", "purchased", time.time(), once_per=DAY)
        for name in ("a1", "a2")
    ]
    write_segment(home, "alerts", "t", alerts, NOW)
    follow_up(home, AlertFollowUp("a1", "closed", time.time()))
    assert rebuild(home, redis_url).alerts == rebuild(home, redis_url).alerts == 1
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert [fields["alert_id"] for _, fields in client.xrange(STREAM)] == ["a2"]
        assert client.get(held_key(alerts[0])) == "a1"


def test_a_sweep_raises_what_no_event_does_once_for_each_customer(tmp_path, redis_url):
    """From batch features and from what events have fed; an alias is looked at as the customer; an emptied Redis is told."""
    home = tmp_path / "home"
    spend = "events: {aggregate: sum, type: purchased, property: amount, window: 30d}"
    churn = "{name: churn_risk, type: number, origin: profile, max_age: 400d}"
    write_home_contract(home, parse_contract(f"features: [{churn}, {{name: spend, type: number, origin: value, {spend}}}]"))
    (home / "alerts.yaml").write_text(
        "alerts: [{name: leaving, on: [], when: customer.churn_risk > 0.7 and customer.spend >= 10, severity: high, route: r,"
        " once_per: 30d}, {name: on_event, on: [purchased], when: event.amount > 0, severity: low, route: r}]"
    )
    now = time.time()
    risks = {"c1": 0.9, "c2": 0.9, "c3": 0.1}
    batch = {"customer_id": list(risks), "event_timestamp": [dt.datetime.now(dt.UTC)] * 3, "churn_risk": list(risks.values())}
    write_view(home, "profile", pa.table(batch))
    bought = [
        {"event_id": c, "customer_id": c, "type": "purchased", "channel": "web", "at": now - 60, "amount": 20.0}
        for c in ("c1", "c3", "a-1")
    ]
    ingest(home, redis_url, written(tmp_path / "bought.jsonl", bought), now=now)
    write_segment(home, "identities", "t", [IdentityRecord("a-1", "c2", now)], now)
    rebuild(home, redis_url)
    assert sweep(home, redis_url, now) == (1, 3, 2, 0)
    assert sweep(home, redis_url, now + 60) == (1, 3, 0, 2)
    assert sweep(home, redis_url, now + 31 * DAY) == (1, 3, 0, 0)  # what they have spent is past
    assert len(segments(home, "alerts")) == 1
    found = [one.alert for one in read_alerts(home).values()]
    assert sorted((one.name, one.customer_id, one.because["customer.spend"]) for one in found) == [
        ("leaving", "c1", 20.0),
        ("leaving", "c2", 20.0),
    ]
    with redis.Redis.from_url(redis_url) as client:
        assert client.xlen(STREAM) == 2
        client.delete(COMPLETE)
    with pytest.raises(NotReady, match="nextbest rebuild"):
        sweep(home, redis_url, now)
