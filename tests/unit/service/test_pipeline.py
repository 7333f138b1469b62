"""The pipeline: always an answer in time, what is missing said, what was decided written down."""

import asyncio
import gc
import time
from collections.abc import Collection, Sequence

import msgspec
import pytest
import uvloop

from service.asks import NO_CUSTOMER_FEATURES, NO_MODEL, Ask, PlacementAsked, as_sent
from service.catalog.entities import Arm, Experiment
from service.catalog.policies import RESERVATION_S, Budget, Cap, ContactPolicy, Selector
from service.claims import ATTEMPTS
from service.decision.contact_policy import NO_CONTACT_HISTORY
from service.decision.contacts import SIZE
from service.decision.engine import Engine, with_arms
from service.decision.entities import CustomerState, PlacementRequest
from service.decision.experiments import Assigned
from service.decision.records import DecisionRecord, OutcomeRecord
from service.errors import (
    DependencyDown,
    DependencyFailed,
    DependencyRefused,
    IdReused,
    LogUnavailable,
    NotReady,
    UnknownPlacement,
)
from service.feedback import take_outcomes
from service.ids import new_decision_id, with_key
from service.metrics import Metrics
from service.pipeline import FEW, FEW_DUE, NOT_LOGGED, OVERDUE_S, Answer, Limits, Parts, Pipeline
from service.ports import NO_TERMS, Acknowledgement, Claim, Entry, Reading, Terms
from service.stores.contact_history import MemoryContactHistory
from service.stores.customer_reader import MemoryCustomerReader
from service.stores.memory_log import MemoryDecisionLog

STATES = {"c1": CustomerState({"age": 40.0}), "old": CustomerState({}, stale=("age",))}


class SlowReader:
    """A feature store that takes its time, and counts how many it was asked for at once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.batches: list[int] = []

    async def read(self, customer_ids: Sequence[str], now: float, terms: Terms = NO_TERMS) -> Reading:
        self.batches.append(len(customer_ids))
        await asyncio.sleep(self._seconds)
        return Reading([CustomerState({"age": now + len(terms.budgets)}) for _ in customer_ids])

    async def close(self) -> None:
        """Nothing is open."""


class HeldReader(SlowReader):
    """A feature store that answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.go = asyncio.Event()

    async def read(self, customer_ids: Sequence[str], now: float, terms: Terms = NO_TERMS) -> Reading:
        found = await super().read(customer_ids, now, terms)
        await self.go.wait()
        return found


class DeadReader(SlowReader):
    """A feature store that is gone."""

    async def read(self, customer_ids: Sequence[str], now: float, terms: Terms = NO_TERMS) -> Reading:
        raise DependencyFailed(f"Expected an answer, got none for {customer_ids}, {terms} at {now}")


class FullLog:
    """A disk that takes nothing any more."""

    def entry(self, record: DecisionRecord) -> Entry:
        return Entry(record, (), (0, 0))

    async def append_decisions(self, entries: Sequence[Entry]) -> None:
        raise LogUnavailable(f"Expected room for {len(entries)} records, found none")

    async def append_outcomes(self, records: Sequence[OutcomeRecord]) -> Acknowledgement:
        raise LogUnavailable(f"Expected room for {len(records)} records, found none")

    async def close(self) -> None:
        """Nothing is open."""


class StuckLog(MemoryDecisionLog):
    """A disk that hangs."""

    async def append_decisions(self, entries: Sequence[Entry]) -> None:
        await asyncio.sleep(5)
        await super().append_decisions(entries)


def ask(decision_id: str = "d1", placement: str = "hero", **given) -> Ask:
    return Ask(decision_id, given.pop("customer_id", "c1"), {"device": "mobile"}, (PlacementRequest(placement, 1),), **given)


def golds(at_most: int, name: str = "golds", count: str = "decisions") -> Budget:
    return Budget(name, "gold", at_most, per_day=False, count=count)


@pytest.fixture
def engine(tiny):
    return tiny.engine([tiny.action("gold"), tiny.action("news")], tiny.placement(epsilon=0.5), rates={"gold": 0.2, "news": 0.1})


@pytest.fixture
def make(engine):
    """A pipeline of in-memory parts; a test replaces those it is about."""

    def build(**parts) -> Pipeline:
        given = {
            "reader": MemoryCustomerReader(STATES),
            "history": MemoryContactHistory(),
            "log": MemoryDecisionLog(),
            "engine": lambda: engine,
            "metrics": Metrics(),
        }
        return Pipeline(Parts(**(given | {"clock": lambda: 1e9} | parts)))

    return build


async def test_an_answer_is_in_the_log_as_it_was_given(make):
    """The record that explains the decision is the record on disk: values, context, moment and versions."""
    log = MemoryDecisionLog()
    answer = await make(log=log).recommend(ask())
    [logged] = log.decisions
    assert logged == answer.record
    assert logged.customer == {"age": 40.0}
    moment = {"hour": 1.0, "weekday": 6.0, "local_hour": pytest.approx(1 + 46 / 60 + 40 / 3600)}
    assert logged.context == {"device": "mobile"} | moment  # 2001-09-09 01:46:40 UTC, a Sunday
    assert logged.degraded == ()


@pytest.mark.parametrize(
    ("customer", "context", "hour"),
    [("Asia/Tokyo", "Europe/London", 10), ("Tokyo", "Europe/London", 2), ("Tokyo", "London", 3), (None, "", 3), (7.0, None, 3)],
)
async def test_the_local_hour_is_that_of_the_first_time_zone_that_is_one(make, tiny, customer, context, hour):
    """The customer's, the request's or the catalog's, which is Berlin's; it is 01:46 UTC, in summer."""
    engine = tiny.engine([tiny.action("gold")], time_zone="Europe/Berlin")
    reader = MemoryCustomerReader({"c1": CustomerState({"time_zone": customer})})
    asked = msgspec.structs.replace(ask(), context={"time_zone": context})
    answer = await make(engine=lambda: engine, reader=reader).recommend(asked)
    assert int(answer.record.context["local_hour"]) == hour


async def test_requests_that_arrive_together_are_read_together(make):
    """Forty requests in one turn of the loop: one read of forty."""
    reader = SlowReader(0.0)
    pipeline = make(reader=reader)
    await asyncio.gather(*(pipeline.recommend(ask(f"d{i}")) for i in range(40)))
    assert reader.batches == [40]


async def test_a_batch_is_never_larger_than_its_limit(make):
    """Seventy requests at a limit of thirty-two: all answered, in batches within the limit."""
    reader = SlowReader(0.001)
    pipeline = make(reader=reader, limits=Limits(coalesce=32, in_flight=2))
    answers = await asyncio.gather(*(pipeline.recommend(ask(f"d{i}")) for i in range(70)))
    assert [a.record.decision_id for a in answers] == [f"d{i}" for i in range(70)]
    assert sum(reader.batches) == 70
    assert max(reader.batches) <= 32


async def asked_in_a_moment(pipeline: Pipeline, numbers: range) -> list[asyncio.Task]:
    """Tasks that have come to where they wait: no timer has rung meanwhile."""
    tasks = [asyncio.create_task(pipeline.recommend(ask(f"d{n}", deadline=5.0))) for n in numbers]
    for _ in range(20):
        await asyncio.sleep(0)
    return tasks


async def asked_while_nobody_is_impatient(build, *moments: range):
    """The tasks of those who ask, some in each moment, and the batches by then.

    `build` makes a pipeline and its reader. A machine that is busy may take longer than patience lasts: then it is tried again.
    """
    loop = asyncio.get_running_loop()
    for _ in range(20):
        pipeline, reader = build()
        started = loop.time()
        tasks = [task for numbers in moments for task in await asked_in_a_moment(pipeline, numbers)]
        batches = list(reader.batches)
        if loop.time() - started < OVERDUE_S:
            return tasks, reader, batches
        for task in tasks:
            task.cancel()
    raise AssertionError


@pytest.mark.parametrize(("count", "batches"), [(FEW - 1, [1]), (FEW, [1, FEW])], ids=["a few", "many"])
async def test_a_few_wait_for_the_batch_before_theirs_and_many_do_not(make, count, batches):
    """Beside it a few would take longer, and make it longer; all of them are decided together then."""

    def build():
        reader = HeldReader()
        return make(reader=reader), reader

    tasks, reader, found = await asked_while_nobody_is_impatient(build, range(1), range(1, 1 + count))
    assert found == batches
    reader.go.set()
    assert len(await asyncio.gather(*tasks)) == 1 + count
    assert reader.batches == [1, count]


async def test_so_many_do_not_wait_for_the_batch_before_theirs_whenever_each_of_them_came(make):
    """One by one, a few turns of the loop apart: with the last of them it begins, and whoever comes then waits for FEW anew."""

    def build():
        reader = HeldReader()
        return make(reader=reader, limits=Limits(in_flight=3)), reader

    moments = [range(n, n + 1) for n in range(1 + FEW + FEW - 1)]
    tasks, reader, found = await asked_while_nobody_is_impatient(build, *moments)
    assert found == [1, FEW]
    reader.go.set()
    assert len(await asyncio.gather(*tasks)) == len(moments)
    assert reader.batches == [1, FEW, FEW - 1]


async def first_batches_of_twelve(build, together: int, turn_s: float) -> list[int]:
    """How many of twelve requests are read first, so many of which come in each turn of the loop: five tries, fewest first.

    A machine that does something else for a millisecond makes any turn a long one.
    """
    sizes = []
    for _ in range(5):
        reader = HeldReader()
        pipeline = build(reader=reader)
        answers = []
        for number in range(0, 12, together):
            asked = [ask(f"d{n}", deadline=5.0) for n in range(number, number + together)]
            answers += [asyncio.create_task(pipeline.recommend(one)) for one in asked]
            time.sleep(turn_s)  # noqa: ASYNC251  # a turn that others fill
            await asyncio.sleep(0)
        reader.go.set()
        await asyncio.gather(*answers)
        sizes.append(reader.batches[0])
    return sorted(sizes)


@pytest.mark.parametrize(("turn_s", "which", "fewest", "most"), [(0.0, -1, 10, 12), (0.0015, 2, 2, 6)], ids=["quick", "slow"])
async def test_a_batch_is_gathered_while_turns_are_quick(make, turn_s, which, fewest, most):
    """Two in each turn of the loop: where a turn takes long, those who came first do not wait for the others.

    A machine that stalls makes any turn slow, and none quick.
    """
    sizes = await first_batches_of_twelve(make, 2, turn_s)
    assert fewest <= sizes[which] <= most


async def test_a_batch_that_is_being_gathered_does_not_begin_with_few(make):
    """Four in each turn of the loop: with the second four they are FEW, and the third four come all the same."""
    sizes = await first_batches_of_twelve(make, 4, 0.0)
    assert sizes[-1] == 12


async def test_a_few_do_not_wait_for_a_disk_that_hangs(make):
    """They are decided from what is known of them, whatever becomes of those before."""

    def build():
        reader = SlowReader(0.0)
        return make(reader=reader, log=StuckLog()), reader

    tasks, reader, found = await asked_while_nobody_is_impatient(build, range(1), range(1, 3))
    assert found == [1]
    await asyncio.sleep(4 * OVERDUE_S)
    assert reader.batches == [1, 2]
    for task in tasks:
        task.cancel()


async def test_a_dead_feature_store_degrades_the_answer(make):
    """Decided from context alone, and the answer says so."""
    answer = await make(reader=DeadReader(0)).recommend(ask())
    assert answer.record.degraded == (NO_CUSTOMER_FEATURES,)
    assert answer.record.placements[0].items


async def test_a_feature_store_that_hangs_costs_the_deadline_and_no_more(make):
    """50 ms were granted; the answer comes then, without features, and admits that it was not written down."""
    log = MemoryDecisionLog()
    started = asyncio.get_running_loop().time()
    answer = await make(reader=SlowReader(5), log=log).recommend(ask(deadline=0.05))
    assert asyncio.get_running_loop().time() - started < 0.5
    assert answer.record.degraded == (NO_CUSTOMER_FEATURES, NOT_LOGGED)
    assert log.decisions == []


async def test_while_a_feature_store_owes_an_answer_nobody_else_begins_to_wait_for_it(make):
    """They are read together once it has answered: where it is given up instead, they have lost nothing."""
    reader = SlowReader(0.05)
    pipeline = make(reader=reader)
    answers = [asyncio.create_task(pipeline.recommend(ask("d0", deadline=5.0)))]
    await asyncio.sleep(4 * OVERDUE_S)
    for number in range(1, 6):
        answers.append(asyncio.create_task(pipeline.recommend(ask(f"d{number}", deadline=5.0))))
        await asyncio.sleep(0.001)
    assert [answer.record.decision_id for answer in await asyncio.gather(*answers)] == [f"d{n}" for n in range(6)]
    assert reader.batches == [1, 5]


async def test_each_request_is_answered_at_its_own_deadline(make):
    """Whichever came first."""
    pipeline, loop = make(reader=SlowReader(5)), asyncio.get_running_loop()
    wanted, started = (0.3, 0.1, 0.2, 0.1), loop.time()

    async def answered(number: int, deadline: float) -> float:
        await pipeline.recommend(ask(f"d{number}", deadline=deadline))
        return loop.time() - started

    took = await asyncio.gather(*(answered(*one) for one in enumerate(wanted)))
    assert took == pytest.approx(wanted, abs=0.05)


def test_a_deadline_that_is_over_at_once_fails_nobody(make):
    """The alarm for a moment that has come is no timer with uvloop: whoever came next was answered with 500."""

    async def ask_at_once() -> list[Answer]:
        pipeline = make(reader=SlowReader(0.01))
        return await asyncio.gather(*(pipeline.recommend(ask(f"d{number}", deadline=0.0)) for number in range(5)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answers = runner.run(ask_at_once())
    assert [answer.record.degraded[-1] for answer in answers] == [NOT_LOGGED] * 5


async def test_what_was_answered_is_not_kept_until_its_deadline(make):
    """Two thousand requests that may take a minute each leave a few hundred behind."""
    pipeline = make()
    for number in range(2000):
        await pipeline.recommend(ask(f"d{number}", deadline=60.0))
    assert 0 < kept_requests() <= FEW_DUE
    await pipeline.close()


def kept_requests() -> int:
    gc.collect()
    return sum(type(one).__name__ == "_Waiting" for one in gc.get_objects())


async def test_what_was_answered_while_a_disk_hangs_is_not_kept_until_it_moves(make):
    """Of a thousand answered at their deadline only those of the batches that hang are left."""
    limits = Limits()
    pipeline = make(log=StuckLog(), limits=limits)
    for begin in range(0, 1000, 100):
        await asyncio.gather(*(pipeline.recommend(ask(f"d{begin + n}", deadline=0.01)) for n in range(100)))
    assert 0 < kept_requests() <= limits.coalesce * limits.in_flight


async def test_a_log_that_hangs_costs_the_deadline_and_no_more(make):
    """The decision was made with everything known; only its being on disk cannot be promised."""
    answer = await make(log=StuckLog()).recommend(ask(deadline=0.05))
    assert answer.record.degraded == (NOT_LOGGED,)
    assert answer.record.customer == {"age": 40.0}


async def test_a_full_disk_degrades_the_answer(make):
    """The customer still sees something; the answer says that it cannot be learned from."""
    answer = await make(log=FullLog()).recommend(ask())
    assert answer.record.degraded == (NOT_LOGGED,)


async def test_a_stale_value_is_named(make):
    """A feature past its age counts as missing, and `degraded` names it."""
    answer = await make().recommend(ask(customer_id="old"))
    assert answer.record.degraded == ("stale:age",)


async def test_an_unknown_customer_gets_an_answer_that_is_not_degraded(make):
    """Nothing failed: there is nothing to know."""
    answer = await make().recommend(ask(customer_id="nobody"))
    assert answer.record.degraded == ()
    assert answer.record.customer == {}


async def test_serving_without_a_model_is_said(make, tiny, engine):
    """Ranked by priority alone."""
    bare = tiny.engine([tiny.action("gold")])
    object.__setattr__(bare, "versions", type(engine.versions)(1, None, "x"))
    answer = await make(engine=lambda: bare).recommend(ask())
    assert answer.record.degraded == (NO_MODEL,)


async def test_the_same_client_chosen_id_gets_the_same_answer_and_one_record(make):
    """A retry after a lost connection, at the same time or later, decides nothing new."""
    log = MemoryDecisionLog()
    pipeline = make(log=log)
    first, second = await asyncio.gather(*(pipeline.recommend(as_sent(ask())) for _ in range(2)))
    third = await pipeline.recommend(as_sent(ask()))
    assert first == second == third
    assert len(log.decisions) == 1


async def test_a_client_chosen_id_names_one_request_for_good(make):
    """The same id with another customer is a mistake of the caller."""
    pipeline = make()
    await pipeline.recommend(as_sent(ask()))
    with pytest.raises(IdReused, match="`d1`"):
        await pipeline.recommend(as_sent(ask(customer_id="old")))


class Yesterday:
    """A log that knows what another process decided; `slow` takes longer than any deadline."""

    def __init__(self, answer: Answer | None, slow: bool = False) -> None:
        self._answer, self._slow = answer, slow

    async def answer(self, decision_id: str) -> Answer | None:
        await asyncio.sleep(5.0 if self._slow else 0.0)
        return self._answer if self._answer is None or decision_id == self._answer.record.decision_id else None


async def test_what_was_decided_before_a_restart_is_told_again_and_not_decided(make):
    """A new process finds the id in the log; the same request gets the same answer, another is refused, and nothing is added."""
    log = MemoryDecisionLog()
    first = await make(log=log).recommend(as_sent(ask()))
    restarted = make(log=log, past=Yesterday(first), clock=lambda: 2e9)
    assert await restarted.recommend(as_sent(ask(deadline=0.5))) == first
    with pytest.raises(IdReused, match="`d1`"):
        await make(log=log, past=Yesterday(first)).recommend(as_sent(ask(customer_id="old")))
    assert len(log.decisions) == 1


async def test_what_was_decided_before_is_told_again_whatever_became_of_the_catalog(make, tiny):
    """The placement is gone since; what nobody decided, or cannot be told, is 404."""
    log, without_hero = MemoryDecisionLog(), tiny.engine([tiny.action("news")], tiny.placement("side"))
    first = await make(log=log).recommend(as_sent(ask()))
    later = make(log=log, engine=lambda: without_hero, past=Yesterday(first))
    assert await later.recommend(as_sent(ask())) == first
    for untold in (as_sent(ask("d2")), as_sent(ask(dry_run=True))):
        with pytest.raises(UnknownPlacement, match="`side`"):
            await later.recommend(untold)
    for past in (Yesterday(None), Yesterday(first, slow=True)):
        with pytest.raises(UnknownPlacement, match="`side`"):
            await make(log=log, engine=lambda: without_hero, past=past).recommend(as_sent(ask(deadline=0.02)))


async def test_a_record_of_before_has_the_slots_that_were_left_out_in_what_was_sent(make):
    """The checksum that earlier versions wrote, of one slot that the catalog gave, is that of a request that leaves slots out."""
    log, sparing = MemoryDecisionLog(), (PlacementAsked("hero"),)
    first = await make(log=log).recommend(as_sent(ask()))
    retry = as_sent(msgspec.structs.replace(ask(), placements=sparing))
    assert retry.sent != first.record.sent
    assert await make(log=log, past=Yesterday(first)).recommend(retry) == first
    with pytest.raises(IdReused):
        await make(log=log, past=Yesterday(first)).recommend(as_sent(msgspec.structs.replace(retry, customer_id="old")))


@pytest.fixture
async def told_before(make) -> tuple[MemoryDecisionLog, Answer]:
    """A log, and the answer in it under an id that the service made."""
    log = MemoryDecisionLog()
    return log, await make(log=log).recommend(ask(new_decision_id("c1"), exclude_actions=("news",)))


async def test_an_id_that_the_service_made_gets_its_answer_told_again(make, told_before):
    """Sent with the same request, by the same customer, also at another hour and with another deadline."""
    log, first = told_before
    again = as_sent(ask(first.record.decision_id, exclude_actions=("news",), deadline=0.5))
    assert await make(log=log, past=Yesterday(first), clock=lambda: 1e9 + 7200).recommend(again) == first
    assert len(log.decisions) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"customer_id": "old"},
        {"exclude_actions": ()},
        {"candidates": ("gold",)},
        {"context": {"device": "desktop"}},
        {"placements": (PlacementRequest("hero", 2),)},
        {"placements": (PlacementRequest("hero", 1), PlacementRequest("hero", 1))},
    ],
)
async def test_an_id_that_the_service_made_gives_nobody_elses_answer(make, told_before, other):
    """What was shown to a customer is told to that customer, who asks for the same; whatever else is asked is refused."""
    log, first = told_before
    asked = msgspec.structs.replace(ask(first.record.decision_id, exclude_actions=("news",)), **other)
    pipeline = make(log=log, past=Yesterday(first))
    with pytest.raises(IdReused, match=f"`{first.record.decision_id}`"):
        await pipeline.recommend(as_sent(asked))
    assert pipeline._remembered == {}


class Linked(MemoryCustomerReader):
    """Knows whose an anonymous id is."""

    async def read(self, customer_ids: Sequence[str], now: float, terms: Terms = NO_TERMS) -> Reading:
        reading = await super().read(["c1" for _ in customer_ids], now, terms)
        return reading._replace(owners={"anonymous": "c1"})


class Emptied(MemoryCustomerReader):
    """Has lost what it knew."""

    async def read(self, customer_ids: Sequence[str], now: float, terms: Terms = NO_TERMS) -> Reading:
        return (await super().read(customer_ids, now, terms))._replace(is_doubted=True)


async def test_an_answer_to_an_alias_is_told_again_to_that_alias(make):
    """Its record names the customer; another id, or one of which nobody knows whose it is just now, does not get it."""
    log, reader = MemoryDecisionLog(), Linked(STATES)
    first = await make(log=log, reader=reader).recommend(ask(new_decision_id("anonymous"), customer_id="anonymous"))
    again = as_sent(ask(first.record.decision_id, customer_id="anonymous"))
    assert first.record.customer_id == "c1"
    assert await make(log=log, reader=reader, past=Yesterday(first)).recommend(again) == first
    with pytest.raises(IdReused):
        await make(log=log, past=Yesterday(first)).recommend(again)
    for unsure in (DeadReader(0.0), Emptied(STATES)):
        blind = await make(log=log, reader=unsure, past=Yesterday(first)).recommend(again)
        assert (blind.record.customer_id, blind.record.degraded[-1]) == ("anonymous", NOT_LOGGED)


async def test_an_id_that_a_client_chose_stays_as_it_is_whatever_it_looks_like(make):
    """36 hexadecimal digits, as those of the service, and an alias: the answer has the id, and so has the log, for a retry."""
    log, theirs = MemoryDecisionLog(), "36d161ca10f2ab4f0c3d9e8b7a6f5e4d3c2b"
    answer = await make(log=log, reader=Linked(STATES)).recommend(as_sent(ask(theirs, customer_id="anonymous")))
    assert (answer.record.customer_id, answer.record.decision_id) == ("c1", theirs)
    assert log.has_decision(theirs)


async def test_what_a_first_try_claimed_before_its_process_died_does_not_count_against_the_second(make, tiny):
    """A cap of one: the second try may show the same, the customer has one contact, and the next decision is capped."""
    capped = tiny.engine([tiny.action("gold")], tiny.placement(), rates={"gold": 0.2}, contact=ONCE)
    history = MemoryContactHistory()
    reader = MemoryCustomerReader(STATES, history)
    await make(engine=lambda: capped, history=history, reader=reader, log=MemoryDecisionLog()).recommend(as_sent(ask()))
    log = MemoryDecisionLog()  # the first one died with its process
    second = await make(engine=lambda: capped, history=history, reader=reader, log=log).recommend(as_sent(ask()))
    third = await make(engine=lambda: capped, history=history, reader=reader, log=log).recommend(as_sent(ask("d2")))
    assert [a.record.placements[0].fallback for a in (second, third)] == [False, True]
    assert len(history.contacts("c1")) == SIZE


@pytest.mark.parametrize("count", ["decisions", "impressions"])
async def test_what_a_first_try_took_of_a_budget_before_its_process_died_is_not_taken_again(make, tiny, count):
    """Two golds for everybody: both tries of one decision take one, and the other is there for the next customer."""
    budgets = ContactPolicy(budgets=(golds(2, count=count),))
    engine = tiny.engine([tiny.action("gold"), tiny.action("news")], rates={"gold": 0.2, "news": 0.1}, contact=budgets)
    history = MemoryContactHistory()
    reader = MemoryCustomerReader(STATES, history)
    asked = [as_sent(ask()), as_sent(ask()), ask("d2", customer_id="c2"), ask("d3", customer_id="c3")]
    answers = [await make(engine=lambda: engine, history=history, reader=reader).recommend(one) for one in asked]
    assert [a.record.placements[0].items[0].action_id for a in answers] == ["gold", "gold", "gold", "news"]


async def test_a_past_that_cannot_be_told_is_decided_again(make):
    """Its catalog is gone, say: there is an answer all the same."""
    log = MemoryDecisionLog()
    await make(log=log).recommend(as_sent(ask()))
    answer = await make(log=log, past=Yesterday(None), clock=lambda: 2e9).recommend(as_sent(ask()))
    assert answer.record.at == 2e9


async def test_a_past_that_takes_too_long_is_answered_for_now_and_looked_up_the_next_time(make):
    """At the deadline there is an answer that nobody wrote down; it does not become the answer of that id."""
    log = MemoryDecisionLog()
    first = await make(log=log).recommend(as_sent(ask()))
    restarted = make(log=log, past=Yesterday(first, slow=True))
    answer = await restarted.recommend(as_sent(ask(deadline=0.02)))
    assert NOT_LOGGED in answer.record.degraded
    assert restarted._remembered == {}


async def test_a_caller_who_leaves_does_not_take_anothers_answer_along(make):
    """Two wait for one id; the first disconnects; the second is answered."""
    pipeline = make(reader=SlowReader(0.02))
    leaving = asyncio.create_task(pipeline.recommend(as_sent(ask())))
    staying = asyncio.create_task(pipeline.recommend(as_sent(ask())))
    await asyncio.sleep(0.005)
    leaving.cancel()
    assert (await staying).record.decision_id == "d1"


async def test_callers_who_leave_do_not_stop_the_batch(make):
    """One of two disconnects while the features are read: the other is answered."""
    pipeline = make(reader=SlowReader(0.02))
    leaving, staying = (asyncio.create_task(pipeline.recommend(ask(f"d{i}"))) for i in range(2))
    await asyncio.sleep(0.005)
    leaving.cancel()
    assert (await staying).record.decision_id == "d1"


async def test_a_dry_run_leaves_no_trace(make):
    """Decided like any other, written down nowhere."""
    log = MemoryDecisionLog()
    answer = await make(log=log).recommend(ask(dry_run=True))
    assert answer.record.placements[0].items
    assert log.decisions == []


async def test_an_unknown_placement_is_refused_naming_the_known(make):
    """Before anything is read or decided."""
    with pytest.raises(UnknownPlacement, match=r"\(`hero`\), got `side`"):
        await make().recommend(ask(placement="side"))


async def test_a_placement_that_a_new_catalog_dropped_meanwhile_is_refused(make, tiny, engine):
    """Accepted under one catalog, decided under the next: the caller learns it, and others in the batch are answered."""
    other = tiny.engine([tiny.action("x", placements=("side",))], tiny.placement("side"))
    engines = [engine, other]
    pipeline = make(engine=lambda: engines[0], reader=SlowReader(0.01))
    gone = asyncio.create_task(pipeline.recommend(ask()))
    await asyncio.sleep(0.002)
    engines.reverse()
    kept = asyncio.create_task(pipeline.recommend(ask("d2", "side")))
    with pytest.raises(UnknownPlacement):
        await gone
    assert (await kept).record.placements[0].items[0].action_id == "x"


async def test_before_the_first_catalog_there_is_no_answer(make):
    """NotReady reaches the caller."""

    def nothing():
        raise NotReady("no catalog")

    with pytest.raises(NotReady):
        await make(engine=nothing).recommend(ask())


async def test_a_defect_in_one_batch_reaches_its_callers_and_ends_there(make, engine):
    """Nobody waits for ever, and the next request is answered."""
    broken = [True]

    def clock() -> float:
        if broken:
            broken.pop()
            raise ZeroDivisionError
        return 1e9

    pipeline = make(clock=clock)
    with pytest.raises(ZeroDivisionError):
        await pipeline.recommend(ask())
    assert (await pipeline.recommend(ask())).engine is engine


async def test_closing_answers_what_was_asked(make):
    """A service that is told to stop owes nobody an answer."""
    pipeline = make(reader=SlowReader(0.02))
    pending = [asyncio.create_task(pipeline.recommend(ask(f"d{i}"))) for i in range(3)]
    await asyncio.sleep(0)
    await pipeline.close()
    assert all(task.done() or not task.cancelled() for task in pending)
    assert len(await asyncio.gather(*pending)) == 3


async def test_what_is_counted_is_what_happened(make):
    """One good answer, one without features."""
    counted = Metrics()
    for pipeline in (make(metrics=counted), make(metrics=counted, reader=DeadReader(0))):
        await pipeline.recommend(ask())
        await pipeline.close()  # nobody who asks waits for the counting
    text = counted.text().decode()
    assert "nextbest_decisions_total 2.0" in text
    assert 'nextbest_degraded_total{reason="no_customer_features"} 1.0' in text


ONCE = ContactPolicy(caps=(Cap("once", 1, "action", 86_400.0, "impressions"),))


@pytest.fixture
def capped(tiny):
    """Gold once a day, then news once, then nothing."""
    return tiny.engine(
        [tiny.action("gold"), tiny.action("news")], tiny.placement(), rates={"gold": 0.2, "news": 0.1}, contact=ONCE
    )


@pytest.fixture
def make_capped(make, capped):
    """A pipeline whose customers have a history."""

    def build(**parts) -> Pipeline:
        history = parts.pop("history", None) or MemoryContactHistory()
        given = {"reader": MemoryCustomerReader(STATES, history), "history": history, "engine": lambda: capped}
        return make(**(given | parts))

    return build


def actions_of(answers) -> list[str]:
    return sorted(a.record.placements[0].items[0].action_id for a in answers)


async def test_a_cap_holds_for_requests_of_one_customer_that_arrive_together(make_capped):
    """Ten at once: one gold, one news, eight fallbacks; those who came too late were decided again."""
    counted, log = Metrics(), MemoryDecisionLog()
    pipeline = make_capped(metrics=counted, log=log)
    answers = await asyncio.gather(*(pipeline.recommend(ask(f"d{i}")) for i in range(10)))
    assert actions_of(answers) == ["gold", "news"] + ["welcome"] * 8
    assert sorted(log.decisions, key=lambda r: r.decision_id) == sorted((a.record for a in answers), key=lambda r: r.decision_id)
    assert "nextbest_reclaims_total 0.0" not in counted.text().decode()


class UnhurriedHistory(MemoryContactHistory):
    """Contacts that take a moment to claim."""

    async def claim(self, claims: Sequence[Claim], now: float, reservation: float) -> list[bool]:
        await asyncio.sleep(0.01)
        return await super().claim(claims, now, reservation)


class SpellingLog(MemoryDecisionLog):
    """Tells which records were spelt out, and when they were written."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[DecisionRecord | str] = []

    def entry(self, record: DecisionRecord) -> Entry:
        self.told.append(record)
        return super().entry(record)

    async def append_decisions(self, entries: Sequence[Entry]) -> None:
        self.told.append("written")
        await super().append_decisions(entries)


async def test_what_did_not_hold_is_not_what_is_written(make_capped):
    """Records are spelt out while claims are under way; one that was made again is spelt out again."""
    log, history = SpellingLog(), UnhurriedHistory()
    pipeline = make_capped(log=log, history=history, reader=MemoryCustomerReader(STATES, history))
    answers = await asyncio.gather(*(pipeline.recommend(ask(f"d{i}")) for i in range(3)))
    answered = {a.record.decision_id: a.record for a in answers}
    assert {r.decision_id: r for r in log.decisions} == answered
    assert {r.decision_id for r in log.told[:3]} == answered.keys()
    replaced = [r for r in log.told[:3] if r != answered[r.decision_id]]
    assert len(replaced) == 2
    assert log.told.index("written") == 3 + len(replaced)


async def test_a_trial_is_not_spelt_out(make_capped):
    """Nothing is written of a dry run."""
    log, history = SpellingLog(), UnhurriedHistory()
    pipeline = make_capped(log=log, history=history, reader=MemoryCustomerReader(STATES, history))
    await asyncio.gather(pipeline.recommend(ask("d1", dry_run=True)), pipeline.recommend(ask("d2", customer_id="c2")))
    assert {r if r == "written" else r.decision_id for r in log.told} == {"d2", "written"}


async def test_a_reservation_that_nobody_sees_ends_with_its_time(make_capped):
    """Gold is offered again after fifteen minutes without an impression, and not before."""
    now = [1e9]
    pipeline = make_capped(clock=lambda: now[0])
    assert actions_of([await pipeline.recommend(ask("d1"))]) == ["gold"]
    now[0] += 800.0
    assert actions_of([await pipeline.recommend(ask("d2"))]) == ["news"]
    now[0] += 200.0
    assert actions_of([await pipeline.recommend(ask("d3"))]) == ["gold"]


async def test_a_dry_run_takes_nothing_from_a_cap(make_capped):
    """Asked three times for a look: gold each time, and the real one gets it."""
    pipeline = make_capped()
    looks = [await pipeline.recommend(ask(f"look{i}", dry_run=True)) for i in range(3)]
    assert actions_of(looks) == ["gold"] * 3
    assert actions_of([await pipeline.recommend(ask("real"))]) == ["gold"]


async def test_without_the_history_caps_count_as_reached(make_capped):
    """Redis is gone: nothing that a cap might forbid, and the answer says why."""
    answer = await make_capped(reader=DeadReader(0)).recommend(ask())
    assert answer.record.degraded == (NO_CUSTOMER_FEATURES, NO_CONTACT_HISTORY)
    assert answer.record.placements[0].fallback


class DeadHistory(MemoryContactHistory):
    """Reads go well, and then Redis is gone."""

    async def claim(self, claims: Sequence[Claim], now: float, reservation: float) -> list[bool]:
        raise DependencyFailed(f"Expected {len(claims)} claims to be taken at {now} for {reservation}, got no answer")


async def test_a_claim_that_gets_no_answer_is_no_claim(make_capped):
    """The decision is made again as if nothing were known: no cap is broken."""
    answer = await make_capped(history=DeadHistory()).recommend(ask())
    assert answer.record.placements[0].fallback
    assert NO_CONTACT_HISTORY in answer.record.degraded


async def test_without_rules_about_contacts_a_dead_history_costs_nothing(make):
    """Nothing depends on it: the answer is whole, and what Redis did not take is counted."""
    counted = Metrics()
    pipeline = make(history=DeadHistory(), metrics=counted)
    answer = await pipeline.recommend(ask())
    await pipeline.close()
    assert answer.record.degraded == ()
    assert "nextbest_contacts_forgotten_total 1.0" in counted.text().decode()


async def test_contacts_are_kept_also_while_no_rule_asks_for_them(make, engine, capped):
    """A cap that is published tomorrow counts what was shown today."""
    history, engines = MemoryContactHistory(), [engine]
    pipeline = make(history=history, reader=MemoryCustomerReader(STATES, history), engine=lambda: engines[0])
    first = await pipeline.recommend(ask("d1"))
    await asyncio.sleep(0)
    engines[0] = capped
    second = await pipeline.recommend(ask("d2"))
    assert first.record.placements[0].items[0].action_id != second.record.placements[0].items[0].action_id


async def test_a_budget_is_not_overdrawn_by_requests_that_arrive_together(make, tiny):
    """Three golds for everybody, ten customers at once."""
    budget = ContactPolicy(budgets=(Budget("three", "gold", 3, per_day=False, count="decisions"),))
    engine = tiny.engine([tiny.action("gold"), tiny.action("news")], rates={"gold": 0.2, "news": 0.1}, contact=budget)
    history = MemoryContactHistory()
    pipeline = make(history=history, reader=MemoryCustomerReader({}, history), engine=lambda: engine)
    answers = await asyncio.gather(*(pipeline.recommend(ask(f"d{i}", customer_id=f"c{i}")) for i in range(10)))
    assert actions_of(answers) == ["gold"] * 3 + ["news"] * 7


@pytest.fixture
def with_budgets(tiny):
    """An engine whose contact policy has these budgets, and one arm for everybody with those; gold goes before news."""

    def build(own: Sequence[Budget], of_arm: Sequence[Budget], share: float = 1.0) -> Engine:
        actions, rates = [tiny.action("gold"), tiny.action("news")], {"gold": 0.2, "news": 0.1}
        other = tiny.engine(actions, rates=rates, contact=ContactPolicy(budgets=tuple(of_arm)))
        experiment = Experiment("e", "e", 0.0, share, (Arm("arm", 1.0, other.catalog),))
        policy = ContactPolicy(budgets=tuple(own))
        engine = tiny.engine(actions, rates=rates, contact=policy, experiments=(experiment,))
        return with_arms(engine, {Assigned("e", "arm"): other})

    return build


@pytest.mark.parametrize("is_of_arm", [True, False])
async def test_without_the_history_the_answer_says_so_where_the_customers_arm_has_caps(make, tiny, is_of_arm):
    """Whatever the others' catalog has: caps that nobody of this arm knows of are nothing to be told."""
    policies = {True: ONCE, False: ContactPolicy()}
    other = tiny.engine([tiny.action("gold")], contact=policies[is_of_arm])
    experiment = Experiment("e", "e", 0.0, 1.0, (Arm("arm", 1.0, other.catalog),))
    engine = tiny.engine([tiny.action("gold")], contact=policies[not is_of_arm], experiments=(experiment,))
    engine = with_arms(engine, {Assigned("e", "arm"): other})
    answer = await make(engine=lambda: engine, reader=DeadReader(0.0)).recommend(ask())
    assert (NO_CONTACT_HISTORY in answer.record.degraded) is is_of_arm


async def test_an_arm_holds_what_it_reserves_as_long_as_its_own_catalog_says(make, tiny):
    """One gold for everybody: what the arm's customer never saw is free again after a minute, not after fifteen."""
    actions, rates, now, history = [tiny.action("gold"), tiny.action("news")], {"gold": 0.2}, [1e9], MemoryContactHistory()
    policy = ContactPolicy(budgets=(golds(1, count="impressions"),))
    other = tiny.engine(actions, rates=rates, contact=msgspec.structs.replace(policy, reservation=60.0))
    experiment = Experiment("e", "e", 0.0, 1.0, (Arm("arm", 1.0, other.catalog),))
    engine = with_arms(
        tiny.engine(actions, rates=rates, contact=policy, experiments=(experiment,)), {Assigned("e", "arm"): other}
    )
    reader = MemoryCustomerReader({}, history)
    pipeline = make(engine=lambda: engine, history=history, reader=reader, clock=lambda: now[0])
    shown = []
    for later in (0.0, 50.0, 20.0):
        now[0] += later
        shown += actions_of([await pipeline.recommend(ask(f"d{now[0]}", customer_id=f"c{now[0]}"))])
    assert shown == ["gold", "news", "gold"]


async def test_an_arm_keeps_to_a_budget_of_its_own(make, with_budgets):
    """One gold for the arm: the second customer is not offered it, whether they come later or at once."""
    engine, history = with_budgets([], [golds(1)]), MemoryContactHistory()
    pipeline = make(engine=lambda: engine, history=history, reader=MemoryCustomerReader({}, history))
    answers = [await pipeline.recommend(ask(f"d{i}", customer_id=f"c{i}")) for i in range(2)]
    answers += await asyncio.gather(*(pipeline.recommend(ask(f"d{i}", customer_id=f"c{i}")) for i in range(2, 4)))
    assert [a.record.placements[0].items[0].action_id for a in answers] == ["gold", "news", "news", "news"]
    assert answers[1].record.placements[0].dropped == {"golds": ("gold",)}


async def test_a_budget_that_an_arm_changes_ends_for_each_where_its_own_catalog_says(make, with_budgets):
    """One name, three for the arm and two for the others: what both take counts, and each stops at its own."""
    engine, history = with_budgets([golds(2)], [golds(3)], share=0.5), MemoryContactHistory()
    pipeline = make(engine=lambda: engine, history=history, reader=MemoryCustomerReader({}, history))
    of_arm = [c for c in (f"c{i}" for i in range(100)) if engine.assignment.of(c) is not None][:3]
    others = [c for c in (f"c{i}" for i in range(100)) if engine.assignment.of(c) is None][:3]
    asked = [others[0], of_arm[0], others[1], of_arm[1], of_arm[2], others[2]]
    answers = [await pipeline.recommend(ask(f"d{n}", customer_id=c)) for n, c in enumerate(asked)]
    assert [a.record.placements[0].items[0].action_id for a in answers] == ["gold", "gold", "news", "gold", "news", "news"]
    assert [a.record.exhausted for a in answers] == [(), (), ("golds",), (), ("golds",), ("golds",)]


async def test_while_nothing_is_known_budgets_of_arms_count_as_used_up(make, with_budgets):
    """Redis is gone: nobody can take a share."""
    engine = with_budgets([], [golds(1)])
    answer = await make(engine=lambda: engine, reader=DeadReader(0)).recommend(ask())
    assert answer.record.exhausted == ("golds",)
    assert actions_of([answer]) == ["news"]


@pytest.mark.parametrize("own", [[], [golds(9, count="impressions")]], ids=["its own", "changed"])
async def test_an_impression_uses_up_the_budget_of_an_arm_once(with_budgets, own):
    """Also where the catalog's budget of that name allows another number: both are one counter."""
    engine, moments = with_budgets(own, [golds(3, count="impressions")]), [1e9]
    history = MemoryContactHistory()
    reader = MemoryCustomerReader({}, history)
    parts = Parts(reader, history, MemoryDecisionLog(), lambda: engine, Metrics(), lambda: moments[0])
    pipeline = Pipeline(parts)
    for number in range(2):
        await pipeline.recommend(ask(f"d{number}", customer_id=f"c{number}"))
        seen = OutcomeRecord(f"o{number}", f"d{number}", "impression", 1e9, 1e9, "hero", "gold")
        await take_outcomes(parts, [seen])
    moments[0] += 2 * RESERVATION_S  # only what was seen counts still
    later = [await pipeline.recommend(ask(f"d{i}", customer_id=f"c{i}")) for i in range(2, 4)]
    assert [a.record.placements[0].items[0].action_id for a in later] == ["gold", "news"]


class ReadOnlyHistory(MemoryContactHistory):
    """Redis answers, and takes nothing; counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def claim(self, claims: Sequence[Claim], now: float, reservation: float) -> list[bool]:
        self.asked += 1
        raise DependencyRefused(f"Expected {len(claims)} claims to be taken at {now} for {reservation}, got READONLY")


async def test_where_redis_takes_nothing_decisions_are_made_once_and_not_twice(make_capped):
    """After a claim that was refused none is tried for half a second; caps count as reached; then one is tried again."""
    history, moments = ReadOnlyHistory(), [1e9, 1e9 + 0.4, 1e9 + 0.6]
    pipeline = make_capped(history=history, clock=lambda: moments[0])
    asked = []
    for number in range(3):
        answer = await pipeline.recommend(ask(f"d{number}"))
        asked.append((history.asked, answer.record.placements[0].fallback, NO_CONTACT_HISTORY in answer.record.degraded))
        moments[:1] = []
        moments.append(1e9 + 9)
    assert asked == [(1, True, True), (1, True, True), (2, True, True)]


class EmptiedReader(SlowReader):
    """Redis answers, and has lost everything."""

    async def read(self, customer_ids: Sequence[str], now: float, terms: Terms = NO_TERMS) -> Reading:
        reading = await super().read(customer_ids, now, terms)
        return Reading([CustomerState(state.values, contacts=None) for state in reading.states])


class HistoryOfNobody(MemoryContactHistory):
    """Appends whatever comes; nobody can read it, as after FLUSHALL."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bytes | None] = []

    async def claim(self, claims: Sequence[Claim], now: float, reservation: float) -> list[bool]:
        self.seen += [claim.seen for claim in claims]
        return await super().claim(claims, now, reservation)


async def test_what_is_shown_where_no_history_can_be_read_needs_none_to_hold(make, tiny):
    """No cap speaks of it, so it is noted down after the answer, whatever is there: ten at once are decided once each."""
    policy = ContactPolicy(caps=(Cap("once", 1, "action", 86_400.0, "impressions", Selector(actions=("gold",))),))
    engine = tiny.engine(
        [tiny.action("gold"), tiny.action("news")], tiny.placement(), rates={"gold": 0.2, "news": 0.1}, contact=policy
    )
    history, counted = HistoryOfNobody(), Metrics()
    pipeline = make(engine=lambda: engine, history=history, reader=EmptiedReader(0.0), metrics=counted)
    answers = await asyncio.gather(*(pipeline.recommend(ask(f"d{n}")) for n in range(10)))
    await pipeline.close()
    assert {a.record.placements[0].items[0].action_id for a in answers} == {"news"}
    assert history.seen == [None] * 10
    assert "nextbest_reclaims_total 0.0" in counted.text().decode()


class LostReply(MemoryContactHistory):
    """The first claim is taken, and nobody hears of it."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0

    async def claim(self, claims: Sequence[Claim], now: float, reservation: float) -> list[bool]:
        taken = await super().claim(claims, now, reservation)
        self.lost += 1
        if self.lost == 1:
            raise DependencyFailed(f"Expected an answer to {len(taken)} claims, got none")
        return taken


async def test_a_claim_whose_answer_was_lost_is_taken_back(make_capped):
    """The customer saw the fallback; the gold that Redis had noted down is there for the next request."""
    history = LostReply()
    pipeline = make_capped(history=history)
    assert (await pipeline.recommend(ask("d1"))).record.placements[0].fallback
    await asyncio.sleep(0)
    await pipeline.close()
    assert actions_of([await make_capped(history=history).recommend(ask("d2"))]) == ["gold"]


class PartlyGone(MemoryContactHistory):
    """Of some customers nobody can be asked; counts what is taken back."""

    released = 0

    async def claim(self, claims: Sequence[Claim], now: float, reservation: float) -> list[bool | DependencyFailed]:
        held = await super().claim(claims, now, reservation)
        return [DependencyDown("gone") if one.customer_id == "gone" else holds for one, holds in zip(claims, held, strict=True)]

    async def release(self, claims: Sequence[Claim], now: float) -> None:
        await super().release(claims, now)
        self.released += len(claims)


async def test_a_claim_that_nobody_could_be_asked_about_costs_the_others_of_its_batch_nothing(make_capped):
    """Its decision is made again as if nothing were known; the other holds, and nothing is in doubt."""
    history = PartlyGone()
    pipeline = make_capped(history=history)
    gone, there = await asyncio.gather(*(pipeline.recommend(ask(f"d-{c}", customer_id=c)) for c in ("gone", "there")))
    await pipeline.close()
    assert (NO_CONTACT_HISTORY in gone.record.degraded, NO_CONTACT_HISTORY in there.record.degraded) == (True, False)
    assert actions_of([there]) == ["gold"]
    assert history.released == 0


class SlowHistory(MemoryContactHistory):
    """Claims take longer than the deadline."""

    async def claim(self, claims: Sequence[Claim], now: float, reservation: float) -> list[bool]:
        await asyncio.sleep(0.05)
        return await super().claim(claims, now, reservation)


async def test_a_claim_for_an_answer_that_came_too_late_is_taken_back(make_capped):
    """Answered from nothing at the deadline; the gold that was claimed meanwhile is there for the next request."""
    history, log = SlowHistory(), MemoryDecisionLog()
    pipeline = make_capped(history=history, log=log)
    blind = await pipeline.recommend(ask("d1", deadline=0.02))
    assert blind.record.placements[0].fallback
    await pipeline.close()
    assert log.decisions == []
    assert actions_of([await pipeline.recommend(ask("d2"))]) == ["gold"]


class Counting(MemoryCustomerReader):
    """Knows whom it was asked for, and makes the first one wait."""

    def __init__(self) -> None:
        super().__init__({})
        self.asked: list[str] = []

    async def read(self, customer_ids: Sequence[str], now: float, terms: Terms = NO_TERMS) -> Reading:
        self.asked += customer_ids
        await asyncio.sleep(0.05 if len(self.asked) == 1 else 0)
        return await super().read(customer_ids, now, terms)


async def test_work_whose_deadline_has_passed_never_starts(make):
    """It waited behind a slow batch until its deadline: answered then, and nothing is read for it afterwards."""
    reader = Counting()
    pipeline = make(reader=reader, limits=Limits(coalesce=1, in_flight=1))
    first = asyncio.ensure_future(pipeline.recommend(ask("d1")))
    await asyncio.sleep(0.01)
    late = await pipeline.recommend(ask("d2", customer_id="c2", deadline=0.01))
    assert late.record.degraded[-1] == NOT_LOGGED
    assert (await first).record.degraded == ()
    await pipeline.close()
    assert reader.asked == ["c1"]


class Overtaken(MemoryContactHistory):
    """Somebody else is always faster, and it takes its time to say so."""

    def __init__(self) -> None:
        super().__init__()
        self.tries = 0

    async def claim(self, claims: Sequence[Claim], now: float, reservation: float) -> list[bool]:
        self.tries += now > 0 and reservation > 0
        await asyncio.sleep(0.03)
        return [False] * len(claims)


async def test_a_claim_is_not_tried_again_for_somebody_who_has_been_answered(make_capped):
    """The deadline ended during the first try; without it there would be eight."""
    history = Overtaken()
    pipeline = make_capped(history=history)
    await pipeline.recommend(ask("d1", deadline=0.02))
    await pipeline.close()
    assert history.tries == 1


class LinkedMeanwhile(MemoryCustomerReader):
    """Knows whose an anonymous id is from its second reading on."""

    def __init__(self, history: MemoryContactHistory, owners: dict[str, str]) -> None:
        super().__init__(STATES, history)
        self._later = owners
        self._readings = 0

    async def read(self, customer_ids: Sequence[str], now: float, terms: Terms = NO_TERMS) -> Reading:
        self._readings += 1
        owners = self._later if self._readings > 1 else {}
        reading = await super().read([owners.get(customer, customer) for customer in customer_ids], now, terms)
        return reading._replace(owners=owners)


class NothingOfAliases(MemoryContactHistory):
    """Takes nothing under an id that is an alias, as Redis does."""

    def __init__(self, aliases: Collection[str]) -> None:
        super().__init__()
        self._aliases = aliases

    async def claim(self, claims: Sequence[Claim], now: float, reservation: float) -> list[bool]:
        own = [claim for claim in claims if claim.customer_id not in self._aliases]
        held = iter(await super().claim(own, now, reservation))
        return [claim.customer_id not in self._aliases and next(held) for claim in claims]


async def test_who_is_linked_between_reading_and_claiming_is_answered_with_everybody_else(make_capped):
    """The decision is made again under an id that leads to the customer, and others of the batch do not notice."""
    owners, ours = {"anonymous": "c1"}, new_decision_id("anonymous")
    history = NothingOfAliases(owners)
    pipeline = make_capped(history=history, reader=LinkedMeanwhile(history, owners))
    answers = await asyncio.gather(
        pipeline.recommend(ask(ours, customer_id="anonymous")), pipeline.recommend(ask("d2", customer_id="c2"))
    )
    assert [a.record.decision_id for a in answers] == [with_key(ours, "c1"), "d2"]
    assert actions_of(answers) == ["gold", "gold"]
    assert len(history.contacts("c1")) == len(history.contacts("c2")) == SIZE


async def test_a_trial_that_comes_too_late_takes_nothing_from_the_decision_of_its_id(make_capped):
    """Both in one batch under one id: what the decision claimed is not taken back when the trial's deadline has passed."""
    history = SlowHistory()
    pipeline = make_capped(history=history)
    trial, decision = await asyncio.gather(
        pipeline.recommend(ask("d1", deadline=0.02, dry_run=True)), pipeline.recommend(ask("d1", deadline=5.0))
    )
    await pipeline.close()
    assert NOT_LOGGED in trial.record.degraded
    assert actions_of([decision]) == ["gold"]
    assert actions_of([await pipeline.recommend(ask("d2"))]) == ["news"]


async def test_a_trial_that_comes_too_late_does_not_keep_the_decision_of_its_id_from_trying_again(make_capped):
    """Somebody else was faster eight times: whether it is tried again is the decision's affair."""
    history = Overtaken()
    pipeline = make_capped(history=history)
    await asyncio.gather(pipeline.recommend(ask("d1", deadline=5.0)), pipeline.recommend(ask("d1", deadline=0.02, dry_run=True)))
    await pipeline.close()
    assert history.tries == ATTEMPTS
