"""Who has to know: what raises an alert, how often, and what happens where something does not answer."""

import msgspec
import pytest

from features.contract import parse_contract
from features.event_types import parse_event_types
from service.alerts import AlertDesk, by_type
from service.catalog.alerting import parse_alerts
from service.decision.entities import UNKNOWN_CUSTOMER, CustomerState
from service.decision.records import EventRecord
from service.errors import DependencyFailed, LogUnavailable
from service.ids import alert_id_of
from service.metrics import Metrics
from service.ports import NO_TERMS, Reading
from service.stores.alert_stream import MemoryAlerts
from service.stores.customer_reader import MemoryCustomerReader
from service.stores.memory_log import MemoryDecisionLog

CONTRACT = parse_contract("""
features:
  - {name: open_complaint, type: number, origin: attitude, default: 0, max_age: 1d}
  - {name: chats_24h, type: number, origin: attitude, events: {aggregate: count, type: answered, window: 24h}}
""")
TYPES = parse_event_types("events: {answered: {properties: {score: number, final: truth}}, bought: {}}")
RULES = parse_alerts(
    """
alerts:
  - {name: bad_score, on: [answered], when: event.score <= 2, severity: medium, route: desk}
  - {name: unhappy, on: [answered], when: event.score <= 6 and customer.open_complaint == 1, severity: high, route: desk}
  - {name: talkative, on: [answered], when: not (customer.chats_24h <= 3), severity: low, route: desk}
  - {name: rarely, on: [answered], when: event.final == 1, severity: critical, route: lead, once_per: 7d}
""",
    CONTRACT,
    TYPES,
)
STATES = {
    "calm": CustomerState({"open_complaint": 0.0, "chats_24h": 1.0}),
    "cross": CustomerState({"open_complaint": 1.0, "chats_24h": 1.0}),
    "chatty": CustomerState({"chats_24h": 9.0}),
}
NOW = 1_790_000_000.0


def answered(name: str, customer: str = "cross", kind: str = "answered", **properties: float | bool) -> EventRecord:
    return EventRecord(name, customer, kind, "web", NOW, NOW, properties)


class Reader(MemoryCustomerReader):
    """Counts how often it is asked, and can be told to fail, to doubt, of whom nothing can be read, or whose alias an id is."""

    def __init__(self) -> None:
        super().__init__(STATES)
        self.asked: list[list[str]] = []
        self.fails = self.doubts = False
        self.unread: set[str] = set()
        self.owners: dict[str, str] = {}

    async def read(self, customer_ids, now, terms=NO_TERMS):
        self.asked.append(list(customer_ids))
        if self.fails:
            raise DependencyFailed("down")
        states = (await super().read([self.owners.get(c, c) for c in customer_ids], now, terms)).states
        if self.doubts:
            states = [msgspec.structs.replace(state, contacts=None) for state in states]
        states = [UNKNOWN_CUSTOMER if c in self.unread else state for c, state in zip(customer_ids, states, strict=True)]
        return Reading(states, (), self.owners)


class FailingStore(MemoryAlerts):
    async def erased_until(self, _customer_ids):
        raise DependencyFailed("down")

    async def first(self, _alerts):
        raise DependencyFailed("down")

    async def release(self, _alerts):
        raise DependencyFailed("down")

    async def publish(self, _alerts):
        raise DependencyFailed("down")


class FailingLog(MemoryDecisionLog):
    async def append_alerts(self, _records):
        raise LogUnavailable("full")


class Office:
    """A desk, and all that stands around it."""

    def __init__(self) -> None:
        self.reader, self.log, self.now = Reader(), MemoryDecisionLog(), NOW
        self.store = MemoryAlerts(lambda: self.now)
        self.metrics = Metrics()

    async def look(self, *records: EventRecord, fed: bool = True) -> list[str]:
        before = len(self.log.alerts)
        desk = AlertDesk(by_type(RULES), self.reader, self.log, self.store, self.metrics, lambda: self.now)
        await desk.look(records, fed=fed)
        return [alert.name for alert in self.log.alerts[before:]]

    def counted(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("nextbest_alerts_total", {"result": result}) or 0.0


@pytest.fixture
def office() -> Office:
    return Office()


async def test_an_alert_says_who_what_and_because_of_what(office):
    """In the log and in the stream; its id follows from its name and the event."""
    assert await office.look(answered("e1", score=3.0)) == ["unhappy"]
    [alert] = office.log.alerts
    assert (alert.alert_id, alert.customer_id, alert.event_id) == (alert_id_of("unhappy", "e1"), "cross", "e1")
    assert (alert.severity, alert.route, alert.at) == ("high", "desk", NOW)
    assert alert.because == {"event.score": 3.0, "customer.open_complaint": 1.0}
    assert office.store.stream == {alert.alert_id: alert}
    assert office.counted("raised") == 1.0


async def test_features_are_read_in_one_round_trip_for_a_whole_call_and_only_where_a_condition_reads_them(office):
    """Each customer once; events of other types cost nothing."""
    assert await office.look(answered("e0", kind="bought"), answered("e00", kind="unheard_of")) == []
    assert office.reader.asked == []
    found = await office.look(*(answered(f"e{n}", c, score=5.0) for n, c in enumerate(["calm", "cross", "chatty", "cross"])))
    assert found == ["unhappy", "talkative", "unhappy"]
    assert office.reader.asked == [["calm", "cross", "chatty"]]


async def test_the_same_event_gives_the_same_alert_and_the_stream_has_it_once(office):
    """Another worker, a replay, a retry."""
    await office.look(answered("e1", score=3.0))
    await office.look(answered("e1", score=3.0))
    assert len({alert.alert_id for alert in office.log.alerts}) == len(office.store.stream) == 1


async def test_once_per_holds_a_customer_back_and_nobody_else(office):
    """In one call and across calls, until the time is over; the alert that holds may come again."""
    first = answered("e1", final=True, score=9.0)
    assert await office.look(first, answered("e2", final=True, score=9.0)) == ["rarely"]
    assert await office.look(answered("e3", final=True, score=9.0)) == []
    assert await office.look(answered("e4", "calm", final=True, score=9.0)) == ["rarely"]
    assert await office.look(first) == ["rarely"]
    assert office.counted("held") == 2.0
    office.now += 7 * 86_400
    assert await office.look(answered("e5", final=True, score=9.0)) == ["rarely"]


async def test_an_alert_of_an_alias_is_the_customers(office):
    """Also where it is held back."""
    office.reader.owners = {"a-1": "cross"}
    assert await office.look(answered("e1", "a-1", score=3.0, final=True)) == ["unhappy", "rarely"]
    assert {alert.customer_id for alert in office.log.alerts} == {"cross"}
    assert await office.look(answered("e2", "cross", score=9.0, final=True)) == []


async def test_what_happened_before_a_customer_was_erased_raises_nothing(office):
    """However late it comes; what happened since does, and so does what others did."""
    office.store.erased = {"cross": NOW}
    late, since = (
        answered("e1", score=1.0),
        msgspec.structs.replace(answered("e2", score=1.0), at=NOW + 1.0, received_at=NOW + 1.0),
    )
    assert await office.look(late, since, answered("e3", "calm", score=1.0)) == ["bad_score", "unhappy", "bad_score"]
    assert {alert.event_id for alert in office.log.alerts} == {"e2", "e3"}


@pytest.mark.parametrize("cause", ["reader fails", "features do not know the event"])
async def test_what_needs_features_that_cannot_be_trusted_is_counted_as_unjudged(office, cause):
    """Nobody believes that it was judged: not even a condition that holds where a value is missing. The others are raised."""
    office.reader.fails = cause == "reader fails"
    found = await office.look(answered("e1", score=1.0), fed=cause == "reader fails")
    assert found == (["bad_score"] if office.reader.fails else ["bad_score", "unhappy"])
    assert office.counted("unjudged") == (2.0 if office.reader.fails else 1.0)


async def test_an_emptied_store_is_not_believed(office):
    """Features that events feed are in doubt, the others are not."""
    office.reader.doubts = True
    assert await office.look(answered("e1", "chatty", score=9.0), answered("e2", "cross", score=5.0)) == ["unhappy"]
    assert office.counted("unjudged") == 2.0


async def test_of_a_customer_of_whom_nothing_could_be_read_nothing_is_judged_that_needs_features(office):
    """The others of the call are, and so is what the event alone says."""
    office.reader.unread = {"chatty"}
    found = await office.look(answered("e1", "chatty", score=1.0), answered("e2", "cross", score=5.0))
    assert found == ["bad_score", "unhappy"]
    assert office.counted("unjudged") == 2.0


async def test_a_store_that_does_not_answer_keeps_no_alert_out_of_the_log(office):
    """Held back is nobody then: better twice than never."""
    office.store = FailingStore(lambda: NOW)
    assert await office.look(answered("e1", score=1.0, final=True)) == ["bad_score", "unhappy", "rarely"]
    assert office.counted("unsent") == office.counted("raised") == 3.0


async def test_what_the_disk_refuses_is_counted_and_not_sent(office):
    """The event is acknowledged all the same: it is on disk."""
    office.log = FailingLog()
    assert await office.look(answered("e1", score=1.0)) == []
    assert (office.counted("unwritten"), office.counted("raised"), office.store.stream) == (2.0, 0.0, {})


async def test_what_the_disk_refused_holds_nobody_back(office):
    """The customer's next alert is raised; where the store does not answer then, it is held back all the same."""
    office.log = FailingLog()
    assert await office.look(answered("e1", score=9.0, final=True)) == []
    office.log = MemoryDecisionLog()
    assert await office.look(answered("e2", score=9.0, final=True)) == ["rarely"]
    assert await office.look(answered("e3", score=9.0, final=True)) == []
    office.log, office.store = FailingLog(), FailingStore(lambda: NOW)
    assert await office.look(answered("e4", score=9.0, final=True)) == []
    assert office.counted("unwritten") == 2.0
