"""From offline tables through Feast to Redis, and the check that trips when they differ."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from features.commands import main
from features.contract import Contract, Feature
from features.definitions import feature_store
from features.homes import write_home_contract
from features.layout import CustomerLayout
from features.materialize import Difference, apply, check, materialize
from features.offline import write_view
from features.redis_client import redis_client
from service.stores.customer_reader import RedisCustomerReader
from service.stores.links import open_link

NOW = datetime.now(UTC)
AGE = Feature(name="age", type="number", origin="profile", max_age=864_000.0)
CHANNEL = Feature(name="last_channel", type="category", origin="activity", max_age=864_000.0, categories=("web",))
TWO = Contract((AGE, CHANNEL))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two customers with an age, one of them with a channel."""
    write_home_contract(tmp_path, TWO)
    write(tmp_path, "profile", NOW - timedelta(days=3), age=[30.0, None], customer_id=["a", "b"])
    write(tmp_path, "activity", NOW - timedelta(days=20), last_channel=["web"], customer_id=["a"])
    return tmp_path


def write(home: Path, view: str, moment: datetime, **columns: list[object]) -> None:
    moments = pa.array([moment] * len(columns["customer_id"]), pa.timestamp("us", "UTC"))
    write_view(home, view, pa.table({"event_timestamp": moments, **columns}))


def read(url: str, contract: Contract, customer: str) -> tuple[dict[str, float | str], tuple[str, ...]]:
    layout = CustomerLayout(contract)
    with redis_client(url) as client:
        return layout.decode(client.hmget(layout.key(customer), layout.fields), NOW.timestamp())


def test_the_latest_values_arrive_and_agree_with_the_offline_tables(home: Path, any_redis_url: str):
    """Counts say how many customers each view copied; a stale value agrees, and is counted as stale."""
    assert materialize(home, any_redis_url) == {"profile": 2, "activity": 1}
    assert read(any_redis_url, TWO, "a") == ({"age": 30.0}, ("last_channel",))
    report = check(home, any_redis_url, sample=100)
    assert (report.customers, report.values, report.stale, report.differences) == (2, 4, 1, ())


def test_a_correction_and_an_older_moment_arrive_when_asked_for(home: Path, any_redis_url: str):
    """The offline tables are the truth: the same moment with another value is copied, and so is yesterday's state."""
    materialize(home, any_redis_url)
    write(home, "profile", NOW - timedelta(days=3), age=[31.0], customer_id=["a"])
    write(home, "profile", NOW - timedelta(days=1), age=[50.0], customer_id=["b"])
    materialize(home, any_redis_url)
    assert read(any_redis_url, TWO, "a")[0] == {"age": 31.0}
    assert read(any_redis_url, TWO, "b")[0] == {"age": 50.0}
    assert materialize(home, any_redis_url, end=NOW - timedelta(days=2))["profile"] == 2
    assert read(any_redis_url, TWO, "b")[0] == {}


def test_a_feature_added_to_the_contract_arrives_with_the_next_copy(home: Path, any_redis_url: str):
    """No moment has changed, the view has: what the README promises in five lines."""
    materialize(home, any_redis_url)
    three = Contract((AGE, Feature(name="tenure", type="number", origin="profile", max_age=864_000.0), CHANNEL))
    write_home_contract(home, three)
    write(home, "profile", NOW - timedelta(days=3), age=[30.0, None], tenure=[7.0, 8.0], customer_id=["a", "b"])
    materialize(home, any_redis_url)
    assert read(any_redis_url, three, "a")[0] == {"age": 30.0, "tenure": 7.0}


def test_a_view_that_left_the_contract_leaves_feasts_registry(home: Path, any_redis_url: str):
    """The registry says what the contract says, no more."""
    assert apply(home, any_redis_url) == {"profile": 1, "activity": 1}
    write_home_contract(home, Contract((AGE,)))
    assert apply(home, any_redis_url) == {"profile": 1}
    assert [view.name for view in feature_store(home, any_redis_url).list_feature_views()] == ["profile"]


def test_the_check_names_every_value_that_differs(home: Path, any_redis_url: str):
    """A changed value, a lost value and a value that should not be there."""
    materialize(home, any_redis_url)
    layout, moment = CustomerLayout(TWO), int(NOW.timestamp() * 1_000_000)
    with redis_client(any_redis_url) as client:
        client.hset(layout.key("a"), mapping=layout.encode("profile", {"age": 30.000000000000004}, moment))
        client.hset(layout.key("a"), mapping=layout.encode("activity", {"last_channel": None}, moment))
        client.hset(layout.key("b"), mapping=layout.encode("profile", {"age": 0.0}, moment))
    assert set(check(home, any_redis_url, sample=100).differences) == {
        Difference("a", "age", 30.000000000000004, 30.0),
        Difference("a", "last_channel", None, "web"),
        Difference("b", "age", 0.0, None),
    }


def test_the_commands_exit_codes_say_whether_redis_agrees(home: Path, any_redis_url: str, capsys: pytest.CaptureFixture[str]):
    """0 after a copy, 1 once Redis was emptied, and the output says what differs."""
    assert main(["features", "apply"], home=home, redis_url=any_redis_url) == 0
    assert main(["features", "materialize"], home=home, redis_url=any_redis_url) == 0
    assert main(["features", "check", "--sample", "10"], home=home, redis_url=any_redis_url) == 0
    assert "2 customers, 4 values: 0 differ, 1 past their age" in capsys.readouterr().out
    with redis_client(any_redis_url) as client:
        client.flushdb()
    assert main(["features", "check"], home=home, redis_url=any_redis_url) == 1
    assert "a: `age` is None in Redis, 30.0 offline" in capsys.readouterr().out


async def test_features_that_an_emptied_redis_has_lost_are_told_until_they_are_copied_again(home: Path, any_redis_url: str):
    """A customer of whom nothing is known looks the same; contacts stay in doubt until they are rebuilt."""
    link = open_link(any_redis_url, timeout_ms=5000)
    reader = RedisCustomerReader(link, TWO, lambda: False)
    [lost] = (await reader.read(["a"], NOW.timestamp())).states
    assert (lost.values, lost.contacts, lost.is_unread) == ({}, None, True)
    await asyncio.to_thread(materialize, home, any_redis_url)
    [copied] = (await reader.read(["a"], NOW.timestamp())).states
    assert (copied.values["age"], copied.contacts, copied.is_unread) == (30.0, None, False)
    await link.close()


def test_a_home_without_tables_has_nothing_to_copy_and_nothing_that_differs(tmp_path: Path, any_redis_url: str):
    """A fresh home is no error."""
    assert materialize(tmp_path, any_redis_url) == {}
    assert check(tmp_path, any_redis_url, sample=10).customers == 0


@pytest.mark.parametrize("nowhere", ["unix://:secret@{}/nobody.sock", "redis+cluster://:secret@127.0.0.1:1,127.0.0.1:2"])
def test_a_redis_that_does_not_answer_is_an_error_without_its_password(home: Path, tmp_path: Path, nowhere: str, capsys):
    """Exit code 1 and one line; secrets stay out of terminals."""
    assert main(["features", "materialize"], home=home, redis_url=nowhere.format(tmp_path)) == 1
    said = capsys.readouterr().err
    assert "error: Expected Redis to answer" in said
    assert "secret" not in said


@pytest.mark.parametrize("sample", ["0", "-3", "many"])
def test_a_check_of_no_customers_is_wrong_usage(home: Path, sample: str, capsys):
    """It would prove nothing and say that nothing differs."""
    with pytest.raises(SystemExit, match="2"):
        main(["features", "check", f"--sample={sample}"], home=home, redis_url="redis://unused")
    assert "Expected a number of customers" in capsys.readouterr().err
