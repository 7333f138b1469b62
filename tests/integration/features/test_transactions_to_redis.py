"""`nextbest features materialize` works out what transactions say and takes it to Redis; the real history where it is here."""

import csv
import datetime as dt
import gzip
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import redis

from features.contract import parse_contract
from features.homes import features_folder, write_home_contract
from features.layout import CustomerLayout
from features.ledger import DAY
from features.transactions import transaction_values
from service.cli import main
from service.decision.records import EventRecord
from training.event_history import write_events
from training.ingest import ingest
from training.transactions import read_ledger

DATA = Path(os.environ.get("NEXTBEST_DATA") or Path(__file__).parents[4] / "shared" / "data") / "complete_journey"
CONTRACT = parse_contract("""
transactions: {type: purchased, amount: amount, horizon: 60d}
features:
  - {name: since_buying, type: number, origin: value, max_age: 7d, transactions: recency_days}
  - {name: often, type: number, origin: value, max_age: 7d, transactions: frequency}
  - {name: worth, type: number, origin: value, max_age: 7d, transactions: monetary_value}
  - {name: expected, type: number, origin: value, max_age: 7d, transactions: expected_purchases}
  - {name: segment, type: category, origin: value, max_age: 7d, transactions: rfm_segment}
""")
END = dt.datetime(2017, 9, 1, tzinfo=dt.UTC).timestamp()
CUT = dt.datetime(2017, 7, 1, tzinfo=dt.UTC).timestamp()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_home_contract(tmp_path, CONTRACT)
    return tmp_path


def test_one_command_takes_transactions_to_redis_with_their_moment(
    home: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
):
    """Feast's copy, Feast's format, checked value for value; past its age the value is missing and named."""
    now = dt.datetime.now(dt.UTC).timestamp()
    events = [EventRecord(f"{n}", "a", "purchased", "web", now - n * DAY, now - n * DAY, {"amount": 10.0 * n}) for n in (1, 2, 3)]
    write_events(home, "old", events)
    command = ["--home", str(home), "--redis-url", redis_url, "features"]
    assert main([*command, "materialize"]) == 0
    assert "no p_alive, expected_purchases, lifetime_value: Expected at least 100 customers" in capsys.readouterr().out
    assert main([*command, "check"]) == 0
    layout = CustomerLayout(CONTRACT)
    with redis.Redis.from_url(redis_url) as client:
        reply = client.hmget(layout.key("a"), layout.fields)
    fresh, old = layout.decode(reply, now + 3 * DAY), layout.decode(reply, now + 8 * DAY)
    assert (fresh.values["often"], fresh.values["worth"], fresh.values["segment"]) == (2.0, 20.0, "needs_attention")
    assert fresh.values["since_buying"] == pytest.approx(1.0, abs=0.01)
    assert (old.values, set(old.stale)) == ({}, {"since_buying", "often", "worth", "segment"})


def test_a_moment_may_be_given_and_must_be_one(home: Path, redis_url: str):
    """A history that ended long ago is looked at as of its end."""
    write_events(home, "old", [EventRecord("1", "a", "purchased", "web", CUT, CUT, {"amount": 10.0})])
    command = ["--home", str(home), "--redis-url", redis_url, "features", "materialize", "--at"]
    assert main([*command, "2017-07-11"]) == 0
    layout = CustomerLayout(CONTRACT)
    with redis.Redis.from_url(redis_url) as client:
        assert layout.decode(client.hmget(layout.key("a"), layout.fields), CUT + 11 * DAY).values["since_buying"] == 10.0
    with pytest.raises(SystemExit):
        main([*command, "yesterday"])


@pytest.mark.skipif(not DATA.exists(), reason="complete_journey is not here: set NEXTBEST_DATA to the folder that holds it")
def test_every_household_of_a_real_history_is_counted_as_by_hand_and_purchases_to_come_are_near(
    home: Path, redis_url: str, capsys
):
    """Recency, frequency and monetary value of all households; expected purchases of two held-out months within a tenth."""
    (features_folder(home) / "events.yaml").write_text("events: {purchased: {properties: {amount: number}}}")
    mapping = home / "mapping.toml"
    mapping.write_text(
        'customer_id = "household_id"\ntype = "=purchased"\nchannel = "=store"\nat = "transaction_timestamp"\n'
        '[properties]\namount = ["sales_value"]\n'
    )
    ingest(home, redis_url, DATA / "transactions.csv.gz", mapping, now=END)
    with gzip.open(DATA / "transactions.csv.gz", "rt") as file:
        lines = {(r["household_id"], r["transaction_timestamp"], float(r["sales_value"])) for r in csv.DictReader(file)}
    bought = defaultdict(list)
    for household, text, amount in lines:
        bought[household].append((dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp(), amount))
    assert main(["--home", str(home), "--redis-url", redis_url, "features", "materialize", "--at", "2017-07-01"]) == 0
    layout, past = CustomerLayout(CONTRACT), {h: [b for b in some if b[0] <= CUT] for h, some in bought.items()}
    households = [household for household, some in past.items() if some]
    with redis.Redis.from_url(redis_url) as client:
        known = [layout.decode(client.hmget(layout.key(h), layout.fields), CUT).values for h in households]
    for household, values in zip(households, known, strict=True):
        days = {at // DAY for at, _ in past[household]}
        assert values["since_buying"] == pytest.approx((CUT - max(past[household])[0]) / DAY)
        assert values["often"] == len(days) - 1
        assert values["worth"] == pytest.approx(sum(amount for _, amount in past[household]) / len(days))
    asked = pa.table({"customer_id": households, "at": pa.array([CUT] * len(households))})
    expected = transaction_values(CONTRACT, read_ledger(home, ["purchased"], "amount"), asked).table["expected"].to_numpy()
    actual = np.array([len({at // DAY for at, _ in bought[h] if CUT < at <= CUT + 60 * DAY}) for h in households])
    fifths = [f"{expected[rows].mean():.2f}/{actual[rows].mean():.2f}" for rows in np.array_split(np.argsort(expected), 5)]
    with capsys.disabled():
        print(
            f"\n{len(households)} households, purchases in 60 days, expected/actual by fifths of expectation: {', '.join(fifths)}"
        )
    assert expected.sum() == pytest.approx(actual.sum(), rel=0.1)
