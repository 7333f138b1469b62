"""`nextbest decide`: a table of customers, decided for with the parts that answer requests."""

import asyncio
import datetime as dt
import gc
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import redis
import yaml
from distributed import LocalCluster

from features.contract import Contract, Feature
from features.homes import home_contract, write_home_contract
from features.materialize import materialize
from features.offline import write_view
from service.cli import main
from service.decision.contact_policy import NO_CONTACT_HISTORY
from service.decision.contacts import is_served, split_entries
from service.decision.entities import PlacementRequest
from service.decision.records import IdentityRecord
from service.errors import BadRequest, DependencyFailed, DependencyRefused, ImportInvalid, NotReady, UnknownPlacement
from service.ids import customer_key
from service.ports import LINKED
from service.registry import Registry
from service.stores.contact_history import contacts_key
from service.stores.identities import RedisIdentities
from service.stores.links import open_link
from training.batch import TOGETHER, decide_table
from training.batch_parts import PART_ROWS, Campaign, PartsFolder, Plan, seed_of
from training.decision_log import read_decisions
from training.drafting import draft_catalog
from training.live_log import write_segment
from training.promotion import promote_without_evidence
from training.replay import replay
from training.spreading import Workers

HERO = (PlacementRequest("home_hero", 1),)


@pytest.fixture(scope="module")
def customers_url(trained_home, shared_redis_url):
    """A database with the shop's customers in it; what tests add is about customers of their own."""
    url = f"{shared_redis_url}?db=3"
    materialize(trained_home, url)
    return url


@pytest.fixture
def home(own_home):
    """The shop with its bundle."""
    promote_without_evidence(own_home, Registry(own_home / "registry").bundles()[0], "for tests")
    return own_home


def write_table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def rows_of(path) -> list[dict[str, object]]:
    return pq.read_table(path).to_pylist()


def with_cap(home, at_most: int) -> None:
    document = yaml.safe_load((home / "catalog.yaml").read_text())
    document["contact"] = {
        "caps": [{"name": "few", "at_most": at_most, "per": "everything", "window": "1d", "count": "decisions"}]
    }
    (home / "capped.yaml").write_text(yaml.safe_dump(document))
    assert main(["--home", str(home), "catalog", "publish", str(home / "capped.yaml")]) == 0


def test_every_customer_gets_a_row_for_each_item_and_the_log_has_the_decision(home, customers_url, tmp_path):
    """Features are those in Redis; what was written down can be made again, bit for bit."""
    names = [f"c{n}" for n in range(300)]
    table = write_table(tmp_path / "all.parquet", customer_id=names)
    asked = (PlacementRequest("home_hero", 1), PlacementRequest("mail_top", 1))
    report = decide_table(home, customers_url, Campaign("spring", asked, {"device": "mobile"}), table, tmp_path / "out.parquet")
    rows = rows_of(tmp_path / "out.parquet")
    assert (report.customers, len(rows)) == (300, 600)
    assert [row["customer_id"] for row in rows[::2]] == names
    records = {logged.record.decision_id: logged.record for logged in read_decisions(home)}
    assert {row["decision_id"] for row in rows} == set(records)
    first = records[rows[0]["decision_id"]]
    assert sum(len(record.customer) > 10 for record in records.values()) > 250  # the others never came by
    assert rows[0]["choice_probability"] == first.placements[0].items[0].choice_probability
    assert report.fallbacks == sum(any(p.fallback for p in r.placements) for r in records.values())
    assert replay(home).holds


def test_garbage_is_collected_as_before_once_a_table_is_decided_for(home, customers_url, tmp_path):
    """What a batch sets for its process while it works does not outlast it, also where it fails."""
    table = write_table(tmp_path / "some.parquet", customer_id=["c1", "c2"])
    before = gc.get_threshold()
    decide_table(home, customers_url, Campaign("spring", HERO, {}, dry_run=True), table, tmp_path / "out.parquet")
    assert gc.get_threshold() == before
    with pytest.raises(DependencyFailed):
        decide_table(home, "redis://127.0.0.1:1", Campaign("fall", HERO, {}, dry_run=True), table, tmp_path / "none.parquet")
    assert gc.get_threshold() == before


def test_the_same_campaign_decides_the_same_again(home, customers_url, tmp_path):
    """Ids come from the campaign, the table and the row; a dry run leaves no trace in the log or in Redis."""
    table = write_table(tmp_path / "all.parquet", customer_id=[f"c{n}" for n in range(100)])
    campaign = Campaign("spring", HERO, {"channel": "web"}, dry_run=True)
    with redis.Redis.from_url(customers_url) as client:
        before = set(client.scan_iter("nb:contacts:*"))
    for out in ("one", "two"):
        decide_table(home, customers_url, campaign, table, tmp_path / out)
    ids = [[row["decision_id"] for row in rows_of(tmp_path / out)] for out in ("one", "two")]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 100
    assert not list(read_decisions(home))
    with redis.Redis.from_url(customers_url) as client:
        assert set(client.scan_iter("nb:contacts:*")) == before


def test_another_placement_context_or_table_is_another_decision_of_the_same_campaign(home, customers_url, tmp_path):
    """A mail in the morning and a banner at noon, from one table on one day: outcomes of the one are none of the other."""
    table = write_table(tmp_path / "t.parquet", customer_id=["c1", "c2"])
    mail, told = Campaign("t-2026-11-02", (PlacementRequest("mail_top", 1),), {}), set[str]()
    for out, campaign in (
        ("mail", mail), ("hero", mail._replace(placements=HERO)), ("more", mail._replace(context={"device": "mobile"}))
    ):  # fmt: skip
        decide_table(home, customers_url, campaign, table, tmp_path / out)
        told |= {row["decision_id"] for row in rows_of(tmp_path / out)}
    write_table(table, customer_id=["c1", "c2", "c3"])
    decide_table(home, customers_url, mail, table, tmp_path / "grown")
    told |= {row["decision_id"] for row in rows_of(tmp_path / "grown")}
    assert len(told) == len(list(read_decisions(home))) == 2 + 2 + 2 + 3


def test_a_campaign_is_sent_once(home, customers_url, tmp_path):
    """Under another file for its result it is still the same; a dry run is none, and another name is another one."""
    table, campaign = write_table(tmp_path / "t.parquet", customer_id=["c1", "c2"]), Campaign("once", HERO, {})
    for out, sent in (("dry", campaign._replace(dry_run=True)), ("sent", campaign)):
        decide_table(home, customers_url, sent, table, tmp_path / out)
    with pytest.raises(NotReady, match=r"found decisions of `once` for this table in the log: deciding twice contacts everyone"):
        decide_table(home, customers_url, campaign, table, tmp_path / "again")
    assert not list(tmp_path.glob(".again*"))
    decide_table(home, customers_url, campaign._replace(name="twice"), table, tmp_path / "again")
    assert len(list(read_decisions(home))) == 4


def test_caps_count_what_a_campaign_does_also_within_one_table(home, customers_url, tmp_path):
    """At most two contacts a day: of five rows for one customer, three get a fallback; the next campaign gets nothing more."""
    with_cap(home, 2)
    table = write_table(tmp_path / "same.parquet", customer_id=["c1007"] * 5)
    first = decide_table(home, customers_url, Campaign("one", HERO, {}), table, tmp_path / "one")
    second = decide_table(home, customers_url, Campaign("two", HERO, {}), table, tmp_path / "two")
    assert (first.fallbacks, second.fallbacks) == (3, 5)
    assert replay(home).holds


def test_many_rows_of_one_customer_are_decided_one_after_the_other(home, customers_url, tmp_path):
    """Among others, with a cap that they never reach: none is a fallback, and the result is in the order of the table."""
    with_cap(home, 300)
    names = [name for n in range(40) for name in ("c1011", f"c{n}", "c1012")]
    table = write_table(tmp_path / "many.parquet", customer_id=names)
    report = decide_table(home, customers_url, Campaign("many", HERO, {}), table, tmp_path / "out")
    assert (report.customers, report.fallbacks) == (120, 0)
    assert [row["customer_id"] for row in rows_of(tmp_path / "out")] == names
    with redis.Redis.from_url(customers_url) as client:
        served = [sum(map(is_served, split_entries(client.get(contacts_key(customer_key(c)))))) for c in ("c1011", "c1012")]
    assert served == [40, 40]


def test_where_redis_was_emptied_a_campaign_stops_and_goes_on_after_a_rebuild(home, redis_url, tmp_path, capsys):
    """It would be fallbacks for everybody; what was decided before stays."""
    table = write_table(tmp_path / "some.parquet", customer_id=["c1", "c2"])
    materialize(home, redis_url)
    decide_table(home, redis_url, Campaign("before", HERO, {}), table, tmp_path / "before")
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    command = ["--home", str(home), "--redis-url", redis_url]
    told = ["decide", str(table), "--out", str(tmp_path / "out"), "--placement", "home_hero", "--campaign", "after"]
    assert main([*command, *told]) == 1
    assert "found it was emptied: `nextbest rebuild`" in capsys.readouterr().err
    assert main([*command, "rebuild"]) == 0
    assert main([*command, *told]) == 0
    assert [row["customer_id"] for row in rows_of(tmp_path / "out")] == ["c1", "c2"]
    assert len({logged.record.decision_id for logged in read_decisions(home)}) == 4


def test_a_column_named_like_a_feature_takes_the_place_of_what_is_known(home, customers_url, tmp_path):
    """Missing values leave what is known."""
    table = write_table(tmp_path / "t.parquet", customer_id=["c1", "c2"], open_complaint=pa.array([1.0, None]))
    decide_table(home, customers_url, Campaign("c", HERO, {}), table, tmp_path / "out")
    decide_table(home, customers_url, Campaign("plain", HERO, {}, dry_run=True), table.with_name("t.parquet"), tmp_path / "dry")
    known = [logged.record.customer for logged in read_decisions(home)]
    assert known[0]["open_complaint"] == 1.0
    assert "tenure_days" in known[1]
    assert next(read_decisions(home)).record.placements[0].dropped["no_open_complaint"]


def test_what_the_table_says_holds_also_for_a_customer_whose_rows_are_decided_together(home, customers_url, tmp_path):
    """Of rows that see one history only one claim holds; the others are decided again, each from its own row."""
    with_cap(home, 9)
    given = {"age": [31.0, 32.0, 33.0, 34.0], "region": ["north", "south", None, "west"]}
    table = write_table(tmp_path / "t.parquet", customer_id=["g1", "g1", "g1", "g2"], **given)
    decide_table(home, customers_url, Campaign("given", HERO, {}), table, tmp_path / "out")
    known = {logged.record.decision_id: logged.record.customer for logged in read_decisions(home)}
    decided_from = [known[row["decision_id"]] for row in rows_of(tmp_path / "out")]
    assert {name: [values.get(name) for values in decided_from] for name in given} == given


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"client": ["c1"]}, "Expected a column `customer_id`, found client"),
        ({"customer_id": ["c1", None]}, "Expected a value in every row, found 1 nulls"),
        ({"customer_id": ["c1", "c2"], "age": ["44", "old"]}, "row 2: Expected a finite number, got `old` - in column `age`"),
        ({"customer_id": ["c1", ""]}, "row 2: Expected a text of 1 to 256 characters, got `` - in column `customer_id`"),
        ({"customer_id": ["c" * 257]}, "row 1: Expected a text of 1 to 256 characters"),
        (
            {"customer_id": ["c1", "ann@shop.example"]},
            "row 2: Expected an id that is nobody's personal data, got an e-mail address",
        ),
        ({"customer_id": [["c1"]]}, "Expected texts, got list<element: string>.* - in column `customer_id`"),
        ({"customer_id": [{"id": "c1"}]}, "Expected texts, got struct<id: string>.* - in column `customer_id`"),
        ({"customer_id": [True]}, "Expected ids, got bool - in column `customer_id`"),
        ({"customer_id": [7.0, math.nan]}, "row 2: Expected a value, got `nan` - in column `customer_id`"),
        ({"customer_id": pa.array([b"c\xff"]).view(pa.string())}, "Expected texts, got string: .* - in column `customer_id`"),
        ({"customer_id": ["c1"], "age": [[44.0]]}, "Expected numbers, got list<element: double> - in column `age`"),
        ({"customer_id": ["c1"], "region": [["north"]]}, "Expected texts, got list<element: string>.* - in column `region`"),
        (
            {"customer_id": ["c1"] * (PART_ROWS + 2), "age": [44.0] * (PART_ROWS + 1) + [math.inf]},
            f"row {PART_ROWS + 2}: Expected a finite number, got `inf` - in column `age`",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(home, customers_url, tmp_path, columns, problem):
    """Nothing is decided, nothing is written."""
    table = write_table(tmp_path / "t.parquet", **columns)
    with pytest.raises(ImportInvalid, match=problem):
        decide_table(home, customers_url, Campaign("c", HERO, {}), table, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(read_decisions(home))


def test_an_id_that_a_missing_one_has_made_a_float_is_the_whole_number_it_was(home, customers_url, tmp_path):
    """As `nextbest ingest` takes it: one customer, whichever command reads the table."""
    table = write_table(tmp_path / "t.parquet", customer_id=[42.0, 1e15])
    decide_table(home, customers_url, Campaign("c", HERO, {}, dry_run=True), table, tmp_path / "out")
    assert [row["customer_id"] for row in rows_of(tmp_path / "out")] == ["42", "1000000000000000"]


def test_more_slots_than_a_placement_has_are_refused(home, customers_url, tmp_path):
    """As the service does."""
    table = write_table(tmp_path / "t.parquet", customer_id=["c1"])
    with pytest.raises(BadRequest, match=r"Expected at most \d+ slots for `mail_top`, got 50 - at `--placement 2`"):
        decide_table(home, customers_url, Campaign("c", (*HERO, PlacementRequest("mail_top", 50)), {}), table, tmp_path / "out")


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_a_word_that_looks_like_no_finite_number_stays_one(home, customers_url, tmp_path, value):
    """A plan is kept as JSON, which has no such numbers: what was interrupted could not go on."""
    table = write_table(tmp_path / "t.parquet", customer_id=["c1"])
    command = ["--home", str(home), "--redis-url", customers_url, "decide", str(table), "--out", str(tmp_path / "out")]
    assert main([*command, "--placement", "home_hero", "--context", f"device={value}"]) == 0
    [logged] = read_decisions(home)
    assert logged.record.context["device"] == value


def test_an_unknown_placement_is_named_before_anything_happens(home, customers_url, tmp_path):
    """With the ones that there are."""
    table = write_table(tmp_path / "t.parquet", customer_id=["c1"])
    with pytest.raises(UnknownPlacement, match=r"`home_hero`.*got `hero`"):
        decide_table(home, customers_url, Campaign("c", (PlacementRequest("hero", 1),), {}), table, tmp_path / "out")


def test_the_command_writes_the_table_and_never_contacts_anyone_twice(home, customers_url, tmp_path, capsys):
    """The second run with the same file is an error that says why."""
    table = write_table(tmp_path / "t.parquet", customer_id=[f"c{n}" for n in range(10)])
    command = [
        "--home",
        str(home),
        "--redis-url",
        customers_url,
        "decide",
        str(table),
        "--out",
        str(tmp_path / "o"),
        "--placement",
    ]
    assert main([*command, "home_hero:1", "--context", "device=mobile"]) == 0
    assert "decided for 10 customers" in capsys.readouterr().out
    assert main([*command, "home_hero"]) == 1
    assert "contacts everyone twice" in capsys.readouterr().err
    assert len(list(read_decisions(home))) == 10


def test_the_command_imports_no_pandas(home, customers_url, tmp_path, request):
    """Which takes 0.13 s, a fifth of its start, and which some functions of pyarrow do on the way."""
    table = write_table(tmp_path / "t.parquet", customer_id=["c1", "c2"])
    words = ["--home", str(home), "--redis-url", customers_url, "decide", str(table), "--out", str(tmp_path / "o")]
    code = "import sys; from service.cli import main; print(main(sys.argv[1:]), 'pandas' in sys.modules)"
    command = [sys.executable, "-c", code, *words, "--placement", "home_hero", "--processes", "1"]
    done = subprocess.run(command, cwd=request.config.rootpath, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"
    assert len(rows_of(tmp_path / "o")) == 2


@pytest.mark.parametrize("half", [["--engine", "dask"], ["--scheduler", "tcp://127.0.0.1:9"]])
def test_a_cluster_without_its_address_or_an_address_without_a_cluster_is_a_slip(home, tmp_path, capsys, half):
    """Neither is guessed."""
    command = ["--home", str(home), "decide", "t.csv", "--out", str(tmp_path / "o"), "--placement", "home_hero"]
    assert main([*command, *half]) == 1
    assert "Expected `--engine dask --scheduler ADDRESS`" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["twice.csv", "twice.parquet"])
def test_columns_that_are_there_twice_are_told(home, customers_url, tmp_path, name):
    """By name, all of them; other columns of the table do not matter."""
    names, values = ["customer_id", "age", "customer_id", "other", "age", "other"], [["c1"], [1.0], ["c2"], [1], [2.0], [2]]
    table = pa.Table.from_arrays([pa.array(column) for column in values], names)
    write = pyarrow.csv.write_csv if name.endswith("csv") else pq.write_table
    write(table, tmp_path / name)
    with pytest.raises(ImportInvalid) as refused:
        decide_table(home, customers_url, Campaign("twice", HERO, {}), tmp_path / name, tmp_path / "out")
    assert list(refused.value.problems) == [
        f"{name}: Expected each column once, found `{column}` 2 times" for column in ("customer_id", "age")
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--placement", "hero:x"],
        ["--placement", "hero:51"],
        ["--placement", "hero", "--context", "mobile"],
        ["--placement", "hero", "--placement", "side", "--placement", "hero:2"],
        ["--placement", "hero", "--campaign", "caf\udce9"],
    ],
)
def test_what_is_written_wrongly_on_the_command_line_is_told(home, tmp_path, capsys, wrong):
    """Expected and found."""
    with pytest.raises(SystemExit):
        main(["--home", str(home), "decide", "t.csv", "--out", str(tmp_path / "o"), *wrong])
    assert "Expected" in capsys.readouterr().err


def test_several_processes_decide_what_one_would(home, customers_url, tmp_path):
    """The same rows in the same order; each decision is in the log once."""
    table = write_table(tmp_path / "all.parquet", customer_id=[f"c{n}" for n in range(3 * PART_ROWS // 2)])
    dry = Campaign("spring", HERO, {"channel": "web"}, dry_run=True)
    decide_table(home, customers_url, dry, table, tmp_path / "alone")
    report = decide_table(home, customers_url, dry._replace(dry_run=False), table, tmp_path / "two", workers=Workers(2))
    alone, two = rows_of(tmp_path / "alone"), rows_of(tmp_path / "two")
    assert [row["decision_id"] for row in alone] == [row["decision_id"] for row in two]
    assert report.customers == len(two) == len({logged.record.decision_id for logged in read_decisions(home)})
    assert not list(tmp_path.glob(".two*"))


def killed(command: list[str], folder: Path, parts: int) -> None:
    """Start it, and kill it once so many parts are decided, with every process that it has started."""
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 60.0
    while len(list(folder.glob("0*.parquet"))) < parts and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_batch_that_was_killed_goes_on_and_nobody_is_contacted_twice(home, customers_url, tmp_path):
    """Each decision once in the log, in Redis and in the result, and the result says what the log says."""
    customers = 6 * PART_ROWS
    table = write_table(tmp_path / "all.parquet", customer_id=[f"k{n}" for n in range(customers)])
    with_cap(home, 5)  # so that contacts are read, and claimed before anything is told
    command = [
        sys.executable, "-m", "service.cli", "--home", str(home), "--redis-url", customers_url, "decide", str(table),
        "--out", str(tmp_path / "out"), "--placement", "home_hero", "--campaign", "killed", "--processes", "2",
    ]  # fmt: skip
    folder = tmp_path / ".out.parts"
    for parts in (1, 3):
        killed(command, folder, parts)
        assert not (tmp_path / "out").exists()
    log_before = [logged.record.decision_id for logged in read_decisions(home)]
    report = decide_table(home, customers_url, Campaign("killed", HERO, {}), table, tmp_path / "out")
    assert 3 * PART_ROWS <= report.before < customers
    rows = rows_of(tmp_path / "out")
    records = [logged.record for logged in read_decisions(home)]
    assert len(log_before) < len(records) == len(rows) == customers
    told = {record.decision_id: record.placements[0].items[0].action_id for record in records}
    assert told == {row["decision_id"]: row["action_id"] for row in rows}
    contacts = contacts_of(customers_url, [f"k{n}" for n in range(customers)])
    assert contacts == [0 if row["fallback"] else 1 for row in rows]


def test_a_batch_whose_first_process_was_killed_waits_for_the_others_and_decides_once(home, customers_url, tmp_path):
    """They come to the end of what they have begun: who goes on at once must not do it as well."""
    customers = 20 * PART_ROWS  # three spans: the third has not begun
    table = write_table(tmp_path / "all.parquet", customer_id=[f"o{n}" for n in range(customers)])
    command = [
        sys.executable, "-m", "service.cli", "--home", str(home), "--redis-url", customers_url, "decide", str(table),
        "--out", str(tmp_path / "out"), "--placement", "home_hero", "--campaign", "orphans", "--processes", "2",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / ".out.parts").glob("0*.parquet")) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    report = decide_table(home, customers_url, Campaign("orphans", HERO, {}), table, tmp_path / "out")
    assert 0 < report.before < customers
    told = [logged.record.decision_id for logged in read_decisions(home)]
    assert len(told) == len(set(told)) == customers


def contacts_of(redis_url: str, customers: Sequence[str]) -> list[int]:
    """How many contacts Redis has of each."""
    with redis.Redis.from_url(redis_url) as client:
        histories = [client.get(contacts_key(customer_key(customer))) or b"" for customer in customers]
    return [sum(map(is_served, split_entries(history))) for history in histories]


def linked(home: Path, redis_url: str, owners: Mapping[str, str]) -> None:
    """Written down, and known to Redis."""
    now = time.time()
    write_segment(home, "identities", "tests", [IdentityRecord(alias, owner, now) for alias, owner in owners.items()], now)

    async def link_all() -> None:
        link = open_link(redis_url, timeout_ms=5000.0)
        for alias, owner in owners.items():
            assert await RedisIdentities(link, home_contract(home), lambda: True).link(alias, owner) == LINKED
        await link.close()

    asyncio.run(link_all())


def test_a_batch_with_linked_ids_goes_on_in_the_middle_of_a_part(home, customers_url, tmp_path):
    """Who was decided for under the id of their customer is known again, also where the link is newer than the decision.

    A campaign of the same name for other customers is another one.
    """
    others = write_table(tmp_path / "others.parquet", customer_id=["m0", "m1"])
    decide_table(home, customers_url, Campaign("linked", HERO, {}), others, tmp_path / "others")
    names = [f"l{n}" for n in range(TOGETHER + 100)]
    table, campaign = write_table(tmp_path / "all.parquet", customer_id=names), Campaign("linked", HERO, {})
    linked(home, customers_url, {"l5": "owner-5", names[-2]: "owner-9"})
    unreadable = contacts_key(customer_key(names[-1]))
    with redis.Redis.from_url(customers_url) as client:
        client.lpush(unreadable, "no history")
        with pytest.raises(DependencyFailed, match="WRONGTYPE"):
            decide_table(home, customers_url, campaign, table, tmp_path / "out")
        client.delete(unreadable)
    assert len(list(read_decisions(home))) == 2 + TOGETHER
    linked(home, customers_url, {"l6": "owner-6"})
    decide_table(home, customers_url, campaign, table, tmp_path / "out")
    rows, records = rows_of(tmp_path / "out"), [logged.record for logged in read_decisions(home)]
    decided_for = ["owner-5" if name == "l5" else "owner-9" if name == names[-2] else name for name in names]
    assert [row["customer_id"] for row in rows] == decided_for
    assert [record.decision_id for record in records[2:]] == [row["decision_id"] for row in rows]


@pytest.mark.parametrize("capped", [True, False])
def test_a_batch_whose_contacts_redis_does_not_take_stops_and_goes_on_once_it_does(home, customers_url, tmp_path, capped):
    """Out of memory: nothing is written down, nothing is done. Later nobody lacks a history, and every contact counts."""
    if capped:
        with_cap(home, 9)
    names = [f"full-{capped}-{n}" for n in range(50)]
    table, campaign = write_table(tmp_path / "t.parquet", customer_id=names), Campaign("full", HERO, {})
    # who reads first marks Redis as complete, which is a write too
    decide_table(home, customers_url, campaign._replace(dry_run=True), table, tmp_path / "dry")
    with redis.Redis.from_url(customers_url) as client:
        client.config_set("maxmemory", "1")
        try:
            with pytest.raises(DependencyRefused, match="OOM"):
                decide_table(home, customers_url, campaign, table, tmp_path / "out")
        finally:
            client.config_set("maxmemory", "0")
    folder = PartsFolder.beside(tmp_path / "out")
    assert [(folder.is_begun(part), folder.is_done(part)) for part in folder.parts()] == [(True, False)]
    assert not list(read_decisions(home))
    report = decide_table(home, customers_url, campaign, table, tmp_path / "out")
    records = [logged.record for logged in read_decisions(home)]
    assert not any(NO_CONTACT_HISTORY in record.degraded for record in records)
    assert sum(contacts_of(customers_url, names)) == len(records) - report.fallbacks > 0


def test_another_campaign_does_not_go_on_with_what_is_left_of_one(home, customers_url, tmp_path):
    """It says whose parts lie there."""
    table = write_table(tmp_path / "all.parquet", customer_id=["c1", "c2"])
    folder = PartsFolder(tmp_path / ".out.parts")
    with folder.held():
        plan = Plan(Campaign("one", HERO, {}), ("all.parquet", 1, 1), 1, None)
        folder.begin(plan, table, ())
        with pytest.raises(NotReady, match="another run at work"):
            decide_table(home, customers_url, Campaign("one", HERO, {}), table, tmp_path / "out")
    with pytest.raises(NotReady, match=r"campaign `one` for `all.parquet`"):
        decide_table(home, customers_url, Campaign("two", HERO, {}), table, tmp_path / "out")
    assert not list(read_decisions(home))


def test_what_was_left_of_a_batch_that_ended_is_nobodys(home, customers_url, tmp_path):
    """Killed while its parts were taken away: the next batch with this result decides for itself."""
    table = write_table(tmp_path / "all.parquet", customer_id=["c1", "c2"])
    before = Campaign("before", HERO, {}, dry_run=True)
    folder, known = PartsFolder.beside(tmp_path / "out"), table.stat()
    with folder.held():
        pointer = Registry(home / "registry").current()
        folder.begin(Plan(before, (table.name, known.st_size, known.st_mtime_ns), pointer.catalog, pointer.champion), table, ())
    kept = tmp_path / "kept"
    shutil.copytree(folder.path, kept)
    decide_table(home, customers_url, before, table, tmp_path / "out")
    [part] = PartsFolder(kept).parts()
    PartsFolder(kept).put(part, pq.read_table(tmp_path / "out"))
    (kept / "plan.json").unlink()
    kept.rename(folder.path)
    (tmp_path / "out").rename(tmp_path / "moved")
    decide_table(home, customers_url, before._replace(name="after"), table, tmp_path / "out")
    ids = [{row["decision_id"] for row in rows_of(tmp_path / out)} for out in ("moved", "out")]
    assert [len(some) for some in ids] == [2, 2]
    assert not ids[0] & ids[1]
    assert not folder.path.exists()


def test_a_batch_goes_on_after_midnight(home, customers_url, tmp_path):
    """Without a name of its own a campaign is called by the day; the one that was begun keeps its name."""
    table = write_table(tmp_path / "t.parquet", customer_id=["c1", "c2"])
    yesterday = Campaign("t-2020-01-01", HERO, {}, dry_run=True)
    decide_table(home, customers_url, yesterday, table, tmp_path / "wanted")
    folder, known = PartsFolder.beside(tmp_path / "out"), table.stat()
    with folder.held():
        pointer = Registry(home / "registry").current()
        identity = table.name, known.st_size, known.st_mtime_ns
        plan = Plan(yesterday, identity, pointer.catalog, pointer.champion, seed=seed_of(yesterday, identity))
        folder.begin(plan, table, ())
    command = [
        "--home",
        str(home),
        "--redis-url",
        customers_url,
        "decide",
        str(table),
        "--out",
        str(tmp_path / "out"),
        "--dry-run",
    ]
    assert main([*command, "--placement", "home_hero"]) == 0
    ids = [[row["decision_id"] for row in rows_of(tmp_path / out)] for out in ("wanted", "out")]
    assert ids[0] == ids[1]


def test_records_of_any_size_are_written(home, customers_url, tmp_path):
    """600 of 100 kB are more than waits for the disk when requests are answered: here each write is waited for."""
    table = write_table(tmp_path / "t.parquet", customer_id=[f"c{n}" for n in range(600)], region=["x" * 100_000] * 600)
    assert decide_table(home, customers_url, Campaign("large", HERO, {}), table, tmp_path / "out").customers == 600
    assert sum(len(logged.payload) > 100_000 for logged in read_decisions(home)) > 500  # of a few nothing is known


def test_csv_is_read_as_well_and_an_empty_table_is_an_empty_result(home, customers_url, tmp_path):
    """Ids stay as they are written."""
    (tmp_path / "some.csv").write_text("customer_id,open_complaint\n007,1\n08,\n")
    decide_table(home, customers_url, Campaign("c", HERO, {}, dry_run=True), tmp_path / "some.csv", tmp_path / "out")
    assert [row["customer_id"] for row in rows_of(tmp_path / "out")] == ["007", "08"]
    table = write_table(tmp_path / "none.parquet", customer_id=pa.array([], pa.string()))
    assert decide_table(home, customers_url, Campaign("n", HERO, {}), table, tmp_path / "none").customers == 0
    assert rows_of(tmp_path / "none") == []


@pytest.fixture
def numbered_home(tmp_path):
    """A home whose regions have numbers for names, and whose only offer is for one of them; nothing was learned."""
    home = tmp_path / "numbered"
    region = Feature("region", "category", "profile", max_age=86_400.0, categories=("01", "02"))
    write_home_contract(home, Contract((region, Feature("age", "number", "profile", max_age=86_400.0))))
    document = yaml.safe_load(draft_catalog(["gold"], ["home_hero"], {}, {}))
    document["rules"] = {"in_01": "customer.region == '01'"}
    document["actions"][0]["eligibility"] = ["in_01"]
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(document))
    assert main(["--home", str(home), "catalog", "publish", str(tmp_path / "catalog.yaml")]) == 0
    return home


def test_a_column_says_the_same_as_redis_whatever_file_and_type_it_comes_in(numbered_home, redis_url, tmp_path):
    """`01` is a name also where it looks like a number, and a number is one also where it is written as text."""
    given = {"customer_id": ["c1"], "region": ["01"], "age": [44.0]}
    write_view(numbered_home, "profile", pa.table({**given, "event_timestamp": pa.array([dt.datetime.now(dt.UTC)])}))
    materialize(numbered_home, redis_url)
    (tmp_path / "plain.csv").write_text("customer_id\nc1\n")
    (tmp_path / "given.csv").write_text("customer_id,region,age\nc1,01,44\n")
    write_table(tmp_path / "text.parquet", **{**given, "age": ["44"]})
    write_table(tmp_path / "coded.parquet", **{**given, "region": pa.array(["01"]).dictionary_encode(), "age": [44]})
    for name in ("plain.csv", "given.csv", "text.parquet", "coded.parquet"):
        decide_table(numbered_home, redis_url, Campaign("c", HERO, {}), tmp_path / name, tmp_path / f"{name}.out")
    records = [logged.record for logged in read_decisions(numbered_home)]
    assert [record.customer for record in records] == [{"region": "01", "age": 44.0}] * 4
    assert [record.placements[0].items[0].action_id for record in records] == ["gold"] * 4


def test_a_dask_cluster_decides_what_one_process_would(home, customers_url, tmp_path):
    """Two workers, each a process of its own."""
    table = write_table(tmp_path / "all.parquet", customer_id=[f"c{n}" for n in range(3 * PART_ROWS // 2)])
    dry = Campaign("spring", HERO, {"channel": "web"}, dry_run=True)
    decide_table(home, customers_url, dry, table, tmp_path / "alone")
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        workers = Workers(2, cluster.scheduler_address)
        report = decide_table(home, customers_url, dry._replace(dry_run=False), table, tmp_path / "two", workers=workers)
    assert [row["decision_id"] for row in rows_of(tmp_path / "alone")] == [
        row["decision_id"] for row in rows_of(tmp_path / "two")
    ]
    assert report.customers == len({logged.record.decision_id for logged in read_decisions(home)})


def test_a_scheduler_that_is_not_there_is_told(home, customers_url, tmp_path):
    """By its address."""
    table = write_table(tmp_path / "all.parquet", customer_id=["c1"])
    with pytest.raises(NotReady, match="Expected a Dask scheduler"):
        decide_table(
            home, customers_url, Campaign("c", HERO, {}), table, tmp_path / "out", workers=Workers(1, "tcp://127.0.0.1:9")
        )
