"""`nextbest erase`: a customer leaves Redis, and no rebuild brings them back."""

import asyncio

import msgspec
import pytest

from features.contract import parse_contract
from features.homes import write_home_contract
from features.layout import CustomerLayout
from features.redis_client import redis_client
from service.catalog.policies import Purpose
from service.cli import main
from service.decision.contacts import is_served, split_entries
from service.decision.records import (
    AlertRaised,
    ConsentRecord,
    DecisionRecord,
    EventRecord,
    IdentityRecord,
    OutcomeRecord,
    PlacementRecord,
    ServedItem,
    Versions,
    encode_line,
)
from service.ids import customer_key, new_decision_id
from service.ports import Terms
from service.stores import alert_stream
from service.stores.aliases import aliases_key
from service.stores.consents import RedisConsents
from service.stores.contact_history import RedisContactHistory, contacts_key
from service.stores.customer_reader import RedisCustomerReader
from service.stores.erasures import erased_key_of
from service.stores.links import open_link
from service.stores.live_features import RedisLiveFeatures, live_key
from training.alerts import read_alerts
from training.erasing import erase
from training.event_history import fed, read_aliases, read_events
from training.ingest import ingest
from training.live_log import write_segment
from training.rebuild import rebuild

NOW = 1_790_000_000.0
CONTRACT = parse_contract("""
features:
  - {name: age, type: number, origin: profile, max_age: 4000d}
  - {name: views_24h, type: number, origin: activity, events: {aggregate: count, window: 24h, type: product_viewed}}
""")
TERMS = Terms(purposes=(Purpose("marketing"),))
ITEM = ServedItem(1, "offer", "t", "offer", 0.1, 0.1, 1.0, explored=False)
SERVED, VERSIONS = PlacementRecord("page", 1, (ITEM,), fallback=False), Versions(1, None, "x")


@pytest.fixture
def home(tmp_path):
    """Two customers who looked around and said yes; one has an alias."""
    found = tmp_path / "home"
    write_home_contract(found, CONTRACT)
    names = ("c1", "a1", "c2")
    events = [EventRecord(f"e-{name}", name, "product_viewed", "web", NOW, NOW, {}) for name in names]
    consents = [ConsentRecord(name, "marketing", True, NOW, NOW) for name in ("c1", "c2")]
    for kind, some in (("events", events), ("consents", consents), ("identities", [IdentityRecord("a1", "c1", NOW)])):
        folder = found / "log" / kind
        folder.mkdir(parents=True)
        (folder / "1-t-1.log").write_bytes(b"".join(encode_line(msgspec.json.encode(one)) for one in some))
    return found


def known(redis_url: str, customer: str):
    async def read():
        link = open_link(redis_url, timeout_ms=5000)
        state = (await RedisCustomerReader(link, CONTRACT, lambda: False).read([customer], NOW + 2, TERMS)).states[0]
        await link.close()
        return state

    return asyncio.run(read())


def test_an_erased_customer_leaves_redis_and_stays_away(home, any_redis_url, capsys):
    """Features, events, consents, contacts and the link, under each id; others keep theirs; what comes later counts."""
    rebuild(home, any_redis_url)
    layout = CustomerLayout(CONTRACT)
    with redis_client(any_redis_url) as client:
        for name in ("c1", "c2"):
            client.hset(layout.key(name), mapping=layout.encode("profile", {"age": 40.0}, int(NOW * 1e6)))
            client.append(contacts_key(customer_key(name)), b"\0" * 16)
    before = known(any_redis_url, "c2")
    assert known(any_redis_url, "a1").values == {"age": 40.0, "views_24h": 2.0, "consent_marketing": 1.0}
    assert main(["--home", str(home), "--redis-url", any_redis_url, "erase", "a1"]) == 0
    assert "forgotten: `c1`, `a1`" in capsys.readouterr().out
    for name in ("c1", "a1"):
        state = known(any_redis_url, name)
        assert (state.values, state.contacts) == ({"views_24h": 0.0, "consent_marketing": 0.0}, b"")
        with redis_client(any_redis_url) as client:
            assert client.exists(aliases_key(name)) == 0
    rebuild(home, any_redis_url)
    assert known(any_redis_url, "c1").values == {"views_24h": 0.0, "consent_marketing": 0.0}
    assert read_aliases(home) == {}
    assert known(any_redis_url, "c2") == before
    later = [EventRecord("e-new", "c1", "product_viewed", "web", NOW * 2, NOW * 2, {})]
    (home / "log" / "events" / "2-t-1.log").write_bytes(b"".join(encode_line(msgspec.json.encode(one)) for one in later))
    assert rebuild(home, any_redis_url).customers_of_events == 2


def fed_with(redis_url: str, *events: EventRecord) -> None:
    async def feed():
        link = open_link(redis_url, timeout_ms=5000)
        await RedisLiveFeatures(link, CONTRACT).apply(fed(events))
        await link.close()

    asyncio.run(feed())


def test_a_history_from_before_an_erasure_feeds_nothing(home, any_redis_url, tmp_path):
    """It is kept, as what was there is; what the customer did since counts."""
    rebuild(home, any_redis_url)
    assert erase(home, any_redis_url, "c1", NOW) == ("c1", "a1")
    file, row = tmp_path / "events.jsonl", {"type": "product_viewed", "channel": "web"}
    sent = [("old", "c1", NOW - 10), ("alias", "a1", NOW - 10), ("new", "c1", NOW + 1), ("other", "c2", NOW - 10)]
    file.write_bytes(b"\n".join(msgspec.json.encode({**row, "event_id": e, "customer_id": c, "at": at}) for e, c, at in sent))
    assert ingest(home, any_redis_url, file, now=NOW + 2).accepted == 4
    assert [known(any_redis_url, name).values["views_24h"] for name in ("c1", "a1", "c2")] == [1.0, 0.0, 2.0]
    assert {record.event_id for record in read_events(home)} == {"new", "other", "e-c2"}


def test_a_rebuild_takes_away_what_is_known_of_an_erased_customer(home, any_redis_url):
    """In features and in Feast's layout, where nothing came since; whoever has done something since has that."""
    rebuild(home, any_redis_url)
    erase(home, any_redis_url, "c1", NOW)
    forgotten_by_redis(any_redis_url, alone=True)
    since = EventRecord("since", "a1", "product_viewed", "web", NOW + 1, NOW + 1, {})
    write_segment(home, "events", "later", [since], NOW + 1)
    fed_with(any_redis_url, since, *(EventRecord(name, name, "product_viewed", "web", NOW, NOW, {}) for name in ("c1", "a1")))
    assert [known(any_redis_url, name).values["views_24h"] for name in ("c1", "a1")] == [1.0, 2.0]
    rebuild(home, any_redis_url)
    assert [known(any_redis_url, name).values["views_24h"] for name in ("c1", "a1")] == [0.0, 1.0]
    with redis_client(any_redis_url) as client:
        assert client.exists(CustomerLayout(CONTRACT).key("c1"), live_key("c1")) == 0


def told_late(redis_url: str, at: float, number: int) -> None:
    """What happened then comes in over the service: of either id an event, a consent, and what came of a decision."""
    names = ("c1", "a1")
    fed_with(redis_url, *(EventRecord(f"{number}-{name}", name, "product_viewed", "web", at, NOW + 9, {}) for name in names))

    async def tell():
        link = open_link(redis_url, timeout_ms=5000)
        await RedisConsents(link).record([ConsentRecord(name, "marketing", True, at, NOW + 9) for name in names])
        decisions = [new_decision_id(name) for name in names]
        await RedisContactHistory(link).record(
            [OutcomeRecord(f"o-{number}-{one}", one, "click", at, NOW + 9, "page", "offer") for one in decisions]
        )
        await link.close()

    asyncio.run(tell())


@pytest.mark.parametrize("is_emptied", [False, True], ids=["", "also where Redis was emptied since"])
def test_what_comes_in_late_from_before_an_erasure_brings_nobody_back(home, any_redis_url, is_emptied):
    """Events, consents and outcomes until then change nothing, under any id; those of later count."""
    rebuild(home, any_redis_url)
    erase(home, any_redis_url, "c1", NOW)
    if is_emptied:
        with redis_client(any_redis_url) as client:
            client.flushall()
        rebuild(home, any_redis_url)
    told_late(any_redis_url, NOW, 1)
    for name in ("c1", "a1"):
        state = known(any_redis_url, name)
        assert (state.values, state.contacts) == ({"views_24h": 0.0, "consent_marketing": 0.0}, b"")
    told_late(any_redis_url, NOW + 1, 2)
    for name in ("c1", "a1"):
        state = known(any_redis_url, name)
        assert (state.values, len(state.contacts)) == ({"views_24h": 1.0, "consent_marketing": 1.0}, 16)


def forgotten_by_redis(redis_url: str, *, alone: bool) -> None:
    """All, or `alone` until when ids are erased, as before anybody kept it there."""
    with redis_client(redis_url) as client:
        if alone:
            client.delete(*(erased_key_of(customer_key(name)) for name in ("c1", "a1")))
        else:
            client.flushall()


@pytest.mark.parametrize("alone", [False, True], ids=["Redis was emptied", "of before this was kept"])
def test_what_came_in_while_redis_did_not_know_of_an_erasure_goes_with_a_rebuild(home, any_redis_url, alone):
    """A yes and a contact, too; what came of later stays."""
    rebuild(home, any_redis_url)
    erase(home, any_redis_url, "c1", NOW)
    forgotten_by_redis(any_redis_url, alone=alone)
    told_late(any_redis_url, NOW, 1)
    rebuild(home, any_redis_url)
    for name in ("c1", "a1"):
        state = known(any_redis_url, name)
        assert (state.values, state.contacts) == ({"views_24h": 0.0, "consent_marketing": 0.0}, b"")
    told_late(any_redis_url, NOW + 2, 2)
    before = [known(any_redis_url, name) for name in ("c1", "a1")]
    later = [EventRecord(f"2-{name}", name, "product_viewed", "web", NOW + 2, NOW + 9, {}) for name in ("c1", "a1")]
    write_segment(home, "events", "later", later, NOW + 9)
    rebuild(home, any_redis_url)
    assert [known(any_redis_url, name) for name in ("c1", "a1")] == before
    assert before[0].values == {"views_24h": 1.0, "consent_marketing": 1.0}


def test_what_an_id_that_was_not_erased_said_stays_with_whom_it_leads_to_now(home, any_redis_url):
    """A consent, and what came of a decision whose id a client chose, of before that customer was erased; rebuilt twice."""
    rebuild(home, any_redis_url)
    erase(home, any_redis_url, "c1", NOW)
    decided = DecisionRecord("mine-1", "x1", NOW - 10, {}, {}, (SERVED,), VERSIONS)
    write_segment(home, "decisions", "test", [decided], NOW)
    outcome = OutcomeRecord("o-x1", "mine-1", "click", NOW - 5, NOW + 9, "page", "offer")
    consent = ConsentRecord("x1", "marketing", True, NOW - 5, NOW - 5)
    for kind, record in (("identities", IdentityRecord("x1", "c1", NOW + 1)), ("outcomes", outcome), ("consents", consent)):
        write_segment(home, kind, "test", [record], NOW + 9)
    for _ in range(2):
        rebuild(home, any_redis_url)
        state = known(any_redis_url, "x1")
        assert (state.values["consent_marketing"], len(state.contacts or b"")) == (1.0, 32)


def test_what_came_of_an_erased_decision_afterwards_counts_after_a_rebuild_as_it_does_before(home, any_redis_url):
    """By an id that a client chose: the decision is forgotten, the click is of somebody new."""
    rebuild(home, any_redis_url)
    write_segment(home, "decisions", "test", [DecisionRecord("mine-2", "c2", NOW - 10, {}, {}, (SERVED,), VERSIONS)], NOW)
    erase(home, any_redis_url, "c2", NOW)
    write_segment(
        home, "outcomes", "test", [OutcomeRecord("o-c2", "mine-2", "click", NOW + 5, NOW + 9, "page", "offer")], NOW + 9
    )
    rebuild(home, any_redis_url)
    entries = split_entries(known(any_redis_url, "c2").contacts or b"")
    assert [is_served(entry) for entry in entries] == [False]


def test_an_event_that_was_received_before_an_erasure_is_of_before_it_whatever_its_clock_said(home, any_redis_url):
    """Live, after a rebuild, and in what reads the log."""
    fast = EventRecord("fast", "c1", "product_viewed", "web", NOW + 100, NOW - 1, {})
    rebuild(home, any_redis_url)
    erase(home, any_redis_url, "c1", NOW)
    write_segment(home, "events", "fast", [fast], NOW)
    fed_with(any_redis_url, fast)
    assert known(any_redis_url, "c1").values["views_24h"] == 0.0
    rebuild(home, any_redis_url)
    assert known(any_redis_url, "c1").values["views_24h"] == 0.0
    assert "fast" not in {record.event_id for record in read_events(home)}


def test_alerts_about_an_erased_customer_go_from_stream_and_queue(home, any_redis_url, capsys):
    """On every page of the stream; the same may be raised again."""
    others = [f"other-{number}" for number in range(2 * alert_stream.PAGE)]
    names = ["c1", *others[: alert_stream.PAGE - 1], "a1", *others[alert_stream.PAGE - 1 :], "c1"]
    alerts = [
        AlertRaised(
            f"al-{number}", "unhappy", "high", "desk", name, f"e-{number}", "said", NOW + number, {"event.mood": -1.0}, 1e9
        )
        for number, name in enumerate(names)
    ]
    write_segment(home, "alerts", "test", alerts, NOW)
    rebuild(home, any_redis_url)
    key = alert_stream.held_key(alerts[0])

    def told() -> tuple[list[str], list[str], bool]:
        with redis_client(any_redis_url) as client:
            entries = [fields[b"customer_id"].decode() for _, fields in client.xrange(alert_stream.STREAM)]
            return entries, [one.alert.customer_id for one in read_alerts(home).values()], bool(client.exists(key))

    assert told() == (names, names, True)
    assert main(["--home", str(home), "--redis-url", any_redis_url, "erase", "c1"]) == 0
    assert told() == (others, others, False)
    rebuild(home, any_redis_url)
    assert told() == (others, others, False)
    assert main(["--home", str(home), "alerts", "close", "al-0"]) == 1
    assert "al-0" in capsys.readouterr().err


def test_where_redis_does_not_answer_nothing_is_written_down(home, capsys):
    """So that the same command, given again, still knows all of a customer's ids."""
    assert main(["--home", str(home), "--redis-url", "unix:///nowhere", "erase", "c1"]) == 1
    assert "Expected Redis to answer" in capsys.readouterr().err
    assert not (home / "log" / "erasures").exists()
    assert read_aliases(home) == {"a1": "c1"}
