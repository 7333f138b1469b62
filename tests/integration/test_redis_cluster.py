"""A real Redis Cluster of three nodes: what it answers, when slots move, and when a node is gone."""

import asyncio
import contextlib
import signal

import httpx
import pytest

from features.contract import parse_contract
from features.layout import CustomerLayout
from features.live import CHANNEL, Event
from service.catalog.policies import Budget, Purpose
from service.claims import DOUBT_S, Claims
from service.decision.contacts import CANCELLED, SERVED, Contact, decode_contacts
from service.decision.entities import UNKNOWN_CUSTOMER
from service.decision.records import ConsentRecord, OutcomeRecord
from service.errors import BadRequest, DependencyDown, DependencyFailed, DependencyTimedOut, no_answer
from service.ids import customer_key, new_decision_id
from service.metrics import Metrics
from service.ports import Claim, Terms
from service.stores.aliases import alias_key
from service.stores.budgets import budget_keys
from service.stores.completeness import set_complete
from service.stores.consents import RedisConsents
from service.stores.contact_history import RedisContactHistory, contacts_key, decision_key
from service.stores.customer_reader import RedisCustomerReader
from service.stores.identities import RedisIdentities, joined_key
from service.stores.links import open_link
from service.stores.live_features import RedisLiveFeatures
from service.stores.resp import encode
from service.stores.slots import slot_of
from tests.acceptance.rows.story import story_home
from tests.redis_cluster import NODES, Cluster
from training.demo.running import running_server

NOW = 1_790_000_000.0
CONTRACT = parse_contract("""
features:
  - {name: age, type: number, origin: profile, max_age: 1d}
  - {name: views_24h, type: number, origin: activity, events: {aggregate: count, type: viewed, window: 24h}}
""")
LAYOUT = CustomerLayout(CONTRACT)
CUSTOMERS = [f"c{n}" for n in range(120)]
BUDGETS = tuple(Budget(f"b{n}", "gold", 40 + n, per_day=False, count="impressions") for n in range(6))
TERMS = Terms(BUDGETS, (Purpose("marketing"),))
BACK_WITHIN_S = 10.0


def claim(customer: str, decision: str, seen: bytes | None = b"", budgets: tuple[Budget, ...] = ()) -> Claim:
    return Claim(customer, decision, (Contact(NOW, "gold", decision, "hero", SERVED),), seen, budgets)


def slot_of_customer(customer: str) -> int:
    return slot_of(contacts_key(customer_key(customer)).encode())


def node_of(cluster, customer: str) -> int:
    return cluster.owner(slot_of_customer(customer))


def feast_node_of(cluster, customer: str) -> int:
    return cluster.owner(slot_of(LAYOUT.key(customer)))


def customers_on(cluster, number: int) -> list[str]:
    """Those of whom this node has everything."""
    return [c for c in CUSTOMERS if node_of(cluster, c) == feast_node_of(cluster, c) == number]


def customer_on(cluster, number: int) -> str:
    return customers_on(cluster, number)[0]


@contextlib.asynccontextmanager
async def linked(url: str, timeout_ms: float = 5000):
    link = open_link(url, timeout_ms=timeout_ms)
    try:
        yield link
    finally:
        await link.close()


@contextlib.contextmanager
def stopped(cluster, number: int):
    """The node holds its connections and answers nothing."""
    cluster.process(number).send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        cluster.process(number).send_signal(signal.SIGCONT)


async def until(answers) -> None:
    """Wait until a call is answered."""
    async with asyncio.timeout(BACK_WITHIN_S):
        while True:
            with contextlib.suppress(DependencyFailed):
                await answers()
                return
            await asyncio.sleep(0.05)


async def everything(url: str):
    """What a batch of customers looks like after events, consents, links, claims and outcomes."""
    async with linked(url) as link:
        reader, history = RedisCustomerReader(link, CONTRACT, lambda: True), RedisContactHistory(link)
        assert await reader.begin()
        events = [(c, Event(f"e{n}-{c}", "viewed", NOW, {CHANNEL: "web"})) for c in CUSTOMERS for n in range(len(c))]
        await RedisLiveFeatures(link, CONTRACT).apply(events)
        said = [ConsentRecord(c, "marketing", given=n % 3 > 0, at=NOW, received_at=NOW) for n, c in enumerate(CUSTOMERS)]
        await RedisConsents(link).record(said)
        links = [await RedisIdentities(link, CONTRACT, lambda: True).link(f"c{n}", f"c{n + 1}") for n in range(0, 40, 2)]
        held = await history.claim([claim(c, f"d-{c}", budgets=BUDGETS[:2]) for c in CUSTOMERS[40:]], NOW, 900.0)
        await history.record(
            [OutcomeRecord(f"o-{c}", f"d-{c}", "impression", NOW, NOW, "hero", "gold") for c in CUSTOMERS[40:60]]
        )
        again = await history.claim([claim(c, f"again-{c}") for c in CUSTOMERS[40:80]], NOW, 900.0)
        reading = await reader.read(CUSTOMERS, NOW + 60, TERMS)
        return links, held, again, reading


async def test_a_batch_over_three_nodes_is_what_it_is_on_one_server(redis_url, cluster):
    """Features, contacts, consents, aliases and budgets, in order; and every node has its part."""
    alone, spread = await everything(redis_url), await everything(cluster.url)
    assert spread == alone
    assert alone[1].count(True) == 40
    assert alone[3].exhausted == (BUDGETS[0],)
    for number in range(NODES):
        with cluster.node(number) as client:
            assert sum(1 for _ in client.scan_iter("nb:contacts:*")) > 10


async def test_a_slot_that_moves_while_it_is_used_answers_all_the_time(cluster):
    """Before, between and after: what is there is read, what is new is written where the slot goes to."""
    async with linked(cluster.url) as link:
        customer = customer_on(cluster, 0)
        slot, key, new = slot_of_customer(customer), contacts_key(customer_key(customer)), joined_key("a-1", customer)
        await link.ask(encode("SET", key, "before"), 1)
        cluster.begin_to_move(slot, 1)
        between = encode("GET", key) + encode("SET", new, "between") + encode("GET", new) + encode("GET", "other")
        assert await link.ask(between, 4) == [b"before", b"OK", b"between", None]
        cluster.end_moving(slot, 1)
        assert await link.ask(encode("GET", key) + encode("GET", new), 2) == [b"before", b"between"]
        with cluster.node(0) as here, cluster.node(1) as there:
            assert there.get(key) == b"before"
            moved = here.info("errorstats")
            assert await link.ask(encode("GET", key), 1) == [b"before"]
            assert here.info("errorstats") == moved  # the right node is asked from now on


async def test_a_script_whose_keys_are_on_their_way_is_refused_until_they_are_there(cluster):
    """Redis runs none over two nodes: nothing was done, and it can be done again."""
    async with linked(cluster.url) as link:
        history, customer = RedisContactHistory(link), customer_on(cluster, 1)
        cluster.begin_to_move(slot_of_customer(customer), 2)
        [moving] = await history.claim([claim(customer, "d1")], NOW, 900.0)
        assert "TRYAGAIN" in str(moving)
        cluster.end_moving(slot_of_customer(customer), 2)
        assert await history.claim([claim(customer, "d1")], NOW, 900.0) == [True]


async def test_a_node_that_does_not_answer_fails_what_needs_it_and_nothing_else(cluster):
    """One call waits; then it is known to be down. The others go on, and it is asked again once it is back."""
    async with linked(cluster.url, timeout_ms=100) as link:
        reader = RedisCustomerReader(link, CONTRACT, lambda: True)
        here, there = customer_on(cluster, 0), customer_on(cluster, 1)
        await until(reader.begin)
        with stopped(cluster, 0):
            with pytest.raises(DependencyTimedOut, match="within 100 ms"):
                await reader.read([here, there], NOW)
            for _ in range(3):
                with pytest.raises(DependencyDown):
                    await reader.read([here], NOW)
            assert reader.status() == {"answers": False, "problem": link.problem}
            assert link.problem.startswith(f"127.0.0.1:{cluster.ports[0]}: Expected Redis to answer within")
            assert (await reader.read([there], NOW)).states[0].contacts == b""
        await until(lambda: reader.read([here, there], NOW))
        assert link.problem is None


async def test_a_batch_is_read_in_parts_while_a_node_is_gone(cluster):
    """Those who lie elsewhere are known; whoever needs the node is unknown, by any id, and its budgets count as used up."""
    async with linked(cluster.url, timeout_ms=200) as link:
        reader, identities = (
            RedisCustomerReader(link, CONTRACT, lambda: True, in_parts=True),
            RedisIdentities(link, CONTRACT, lambda: True),
        )
        assert await reader.begin()
        [here, gone], there = customers_on(cluster, 0)[:2], customers_on(cluster, 1)[0]
        alias = next(a for n in range(100) if {node_of(cluster, a := f"a{n}"), feast_node_of(cluster, a)} == {1})
        await identities.link(alias, gone)
        await RedisLiveFeatures(link, CONTRACT).apply([(there, Event("e1", "viewed", NOW, {CHANNEL: "web"}))])
        whole = await reader.read(CUSTOMERS, NOW, TERMS)
        assert (whole.states.count(UNKNOWN_CUSTOMER), whole.exhausted) == (0, ())
        with stopped(cluster, 0):
            for _ in range(2):  # waits, then knows
                reading = await reader.read(CUSTOMERS, NOW, TERMS)
                needed = [0 in (node_of(cluster, c), feast_node_of(cluster, c)) for c in CUSTOMERS]
                assert [state is UNKNOWN_CUSTOMER for state in reading.states] == needed
                assert reading.states[CUSTOMERS.index(there)].values["views_24h"] == 1.0
                where = [cluster.owner(slot_of(budget_keys(budget, NOW)[0].encode())) for budget in BUDGETS]
                assert reading.exhausted == tuple(b for b, number in zip(BUDGETS, where, strict=True) if number == 0)
            states = (await reader.read([alias, there], NOW)).states
            assert [state is UNKNOWN_CUSTOMER for state in states] == [True, False]
            with pytest.raises(DependencyDown):
                await reader.read([here], NOW)
        await until(lambda: link.ask(encode("GET", contacts_key(customer_key(here))), 1))
        assert await reader.read(CUSTOMERS, NOW, TERMS) == whole


async def test_claims_in_doubt_are_taken_back_once(cluster):
    """Where nodes answer at once, and only once; where one does not, when it is back. The others of the batch hold."""
    async with linked(cluster.url, timeout_ms=200) as link:
        reader, history = RedisCustomerReader(link, CONTRACT, lambda: True), RedisContactHistory(link)
        assert await reader.begin()
        here, there = customer_on(cluster, 0), customer_on(cluster, 1)
        made, desk = [claim(c, new_decision_id(c)) for c in (here, there)], Claims(reader, history, Metrics())

        async def types(customer: str) -> list[int]:
            [found] = await link.ask(encode("GET", contacts_key(customer_key(customer))), 1)
            return decode_contacts([found or b""]).entries["type"].tolist()

        with stopped(cluster, 0):
            gone, held = await history.claim(made, NOW, 900.0)
            assert (type(gone), held) == (DependencyTimedOut, True)
            gone, held = await history.claim([made[0], claim(there, new_decision_id(there), seen=None)], NOW, 900.0)
            assert (type(gone), held) == (DependencyDown, True)
            desk.doubt(made)
            await asyncio.sleep(2.5 * DOUBT_S)
            assert await types(there) == [SERVED, SERVED, CANCELLED]
        await until(lambda: types(here))
        await asyncio.sleep(1.5 * DOUBT_S)
        assert (await types(here))[-1] == CANCELLED
        assert await types(there) == [SERVED, SERVED, CANCELLED]
        await desk.close()


async def test_claims_that_need_a_node_that_is_gone_use_up_nothing_on_the_others(cluster):
    """What the decision would have taken of a budget is given back at once, and so is a contact; only who waited is in doubt."""
    golds = (Budget(f"b{n}", "gold", 1000, per_day=False, count="decisions") for n in range(100))
    counters = ((budget, budget_keys(budget, NOW)[0]) for budget in golds)
    budget, counter = next((budget, key) for budget, key in counters if cluster.owner(slot_of(key.encode())) == 1)
    gone = [c for c in (f"c{n}" for n in range(1000)) if node_of(cluster, c) == 0][:50]
    there = customer_on(cluster, 1)
    chosen = next(d for d in (f"d{n}" for n in range(100)) if cluster.owner(slot_of(decision_key(d).encode())) == 0)
    async with linked(cluster.url, timeout_ms=200) as link:
        history = RedisContactHistory(link)
        await link.ask(b"".join(encode("GET", customer) for customer in CUSTOMERS), len(CUSTOMERS))
        with stopped(cluster, 0):
            answers = [(await history.claim([claim(c, f"x-{c}", budgets=(budget,))], NOW, 900.0))[0] for c in gone]
            answers += await history.claim([claim(there, chosen, budgets=(budget,))], NOW, 900.0)
            assert [no_answer(answer) for answer in answers] == [True] + 50 * [False]
            found, history_of_there = await link.ask(encode("GET", counter) + encode("GET", contacts_key(customer_key(there))), 2)
            assert found == b"0"
            assert decode_contacts([history_of_there]).entries["type"].tolist() == [SERVED, CANCELLED]


async def test_a_slot_that_another_node_took_over_is_found_without_the_dead_one(cluster):
    """As after a failover: nobody who could say `MOVED` is there."""
    async with linked(cluster.url, timeout_ms=200) as link:
        key = contacts_key(customer_key(customer_on(cluster, 0)))
        slot = slot_of(key.encode())
        await link.ask(encode("GET", key), 1)
        with stopped(cluster, 0):
            with pytest.raises(DependencyTimedOut):
                await link.ask(encode("GET", key), 1)
            cluster.take_over(slot, 1)
            await until(lambda: link.ask(encode("SET", key, "taken over"), 1))
        with cluster.node(1) as there:
            assert there.get(key) == b"taken over"
        cluster.wait_until_ok()


async def test_what_an_emptied_node_held_is_in_doubt_and_nothing_else(cluster):
    """Its customers are not believed to have no history, its budgets count as used up, until everything was rebuilt."""
    async with linked(cluster.url) as link:
        reader, history = RedisCustomerReader(link, CONTRACT, lambda: False), RedisContactHistory(link)
        await set_complete(link)
        await history.claim([claim(c, f"d-{c}") for c in CUSTOMERS], NOW, 900.0)
        assert await reader.begin()
        cluster.process(2).kill()
        cluster.process(2).wait()
        cluster.start_node(2)
        cluster.wait_until_ok()
        await until(lambda: reader.read(CUSTOMERS, NOW, TERMS))
        assert not await reader.begin()
        reading = await reader.read(CUSTOMERS, NOW, TERMS)
        lost = [state.contacts is None for state in reading.states]
        assert lost == [node_of(cluster, customer) == 2 for customer in CUSTOMERS]
        assert 10 < sum(lost) < 110
        assert reading.is_doubted
        intact = [customer for customer, is_lost in zip(CUSTOMERS, lost, strict=True) if not is_lost]
        await link.ask(encode("SET", alias_key(intact[0]), intact[1]), 1)
        gone = CUSTOMERS[lost.index(True)]
        assert [(await reader.read(some, NOW)).is_doubted for some in ([gone, intact[0]], [intact[0]])] == [True, False]
        await link.ask(encode("DEL", alias_key(intact[0])), 1)
        there = [slot_of(budget_keys(budget, NOW)[0].encode()) for budget in BUDGETS]
        assert reading.exhausted == tuple(b for b, slot in zip(BUDGETS, there, strict=True) if cluster.owner(slot) == 2)
        await set_complete(link)
        assert await reader.begin()
        assert None not in [state.contacts for state in (await reader.read(CUSTOMERS, NOW, TERMS)).states]


async def test_a_password_opens_every_node(cluster):
    """Also the nodes that the first one told of."""
    clients = [cluster.node(number) for number in range(NODES)]
    for client in clients:
        client.config_set("requirepass", "p@ss:word")
    try:
        async with linked(cluster.url.replace("://", "://default:p%40ss%3Aword@")) as link:
            keys = b"".join(encode("GET", key) for key in CUSTOMERS)
            assert await link.ask(keys, len(CUSTOMERS)) == [None] * len(CUSTOMERS)
        async with linked(cluster.url) as link:
            with pytest.raises(DependencyFailed, match="NOAUTH"):
                await link.ask(keys, len(CUSTOMERS))
    finally:
        for client in clients:
            client.config_set("requirepass", "")
            client.close()


async def test_a_node_that_knows_no_slots_is_passed_over(cluster, tmp_path):
    """It was reset, or is not in the cluster yet: whoever believed it would find nobody."""
    lone = Cluster(tmp_path)
    lone.start_node(0)
    try:
        async with linked(cluster.url.replace("://", f"://127.0.0.1:{lone.ports[0]},")) as link:
            assert await link.ask(encode("GET", "a"), 1) == [None]
        async with linked(f"redis+cluster://127.0.0.1:{lone.ports[0]}") as link:
            with pytest.raises(DependencyFailed, match="knows no slots"):
                await link.ask(encode("GET", "a"), 1)
    finally:
        lone.process(0).kill()
        lone.process(0).wait()


async def test_a_cluster_of_which_nobody_answers_is_a_failure_that_names_it():
    """Asked in turn; the first one's problem is told."""
    async with linked("redis+cluster://127.0.0.1:1,127.0.0.1:2", timeout_ms=500) as link:
        assert await link.ask(b"", 0) == []
        with pytest.raises(DependencyFailed, match=r"127\.0\.0\.1"):
            await link.ask(encode("GET", "a"), 1)
        assert link.problem.startswith("127.0.0.1:1: ")


@contextlib.asynccontextmanager
async def node_that_says(slots: str, text: str):
    """A server that answers `slots` when asked for slots, where `PORT` is its own, and `text` to anything else."""

    async def talk(reader, writer):
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(10_000):
                said = slots if b"CLUSTER" in data else text
                writer.write(said.replace("PORT", str(writer.get_extra_info("sockname")[1])).encode())

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"redis+cluster://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.sleep(0.01)  # transports close in the next turns of the loop


OWN = "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:PORT\r\n"  # every slot, at a node that does not know its own name


@pytest.mark.parametrize("said", ["CLUSTERDOWN The cluster is down", "LOADING Redis is loading", "MASTERDOWN Link is down"])
async def test_where_a_node_says_that_it_is_away_another_is_asked_who_has_its_slots(said):
    """It is cut off from the others, or began anew: what it knows of the cluster is what was true before."""
    async with contextlib.AsyncExitStack() as stack:
        away = await stack.enter_async_context(node_that_says(OWN, f"-{said}\r\n"))
        there = await stack.enter_async_context(node_that_says(OWN, "+OK\r\n"))
        link = await stack.enter_async_context(linked(f"{away},{there.removeprefix('redis+cluster://')}"))
        with pytest.raises(DependencyFailed, match=said):
            await link.ask(encode("GET", "a"), 1)
        await until(lambda: link.ask(encode("GET", "a"), 1))


async def test_a_slot_that_no_node_has_is_a_failure_that_names_it():
    """A cluster that was set up in part: one slot has a node."""
    async with node_that_says("*1\r\n*3\r\n:0\r\n:0\r\n*2\r\n$0\r\n\r\n:1\r\n", "+OK\r\n") as url, linked(url) as link:
        with pytest.raises(DependencyFailed, match="Expected a node that has slot 15495, found none"):
            await link.ask(encode("GET", "a"), 1)


async def test_a_slot_that_is_said_to_be_elsewhere_for_ever_is_an_error_in_the_end():
    """The node does not know its own name, which is that of who was asked; and it sends everybody to itself."""
    async with node_that_says(OWN, "-MOVED 15495 :PORT\r\n") as url, linked(url) as link:
        with pytest.raises(DependencyFailed, match="MOVED 15495"):
            await link.ask(encode("GET", "a"), 1)


@pytest.mark.parametrize("url", ["redis+cluster://host:6379/1", "unix+cluster:///path", "http+cluster://host"])
def test_a_cluster_that_cannot_be_one_is_refused_at_once(url):
    """It has one database, and its nodes find each other by host and port."""
    with pytest.raises(BadRequest, match="Expected"):
        open_link(url, timeout_ms=30)


def test_while_a_node_is_stopped_answers_are_degraded_and_then_whole_again(cluster, tmp_path):
    """Over HTTP: everybody is answered, and those who lie elsewhere know nothing of it."""
    home = story_home(tmp_path / "home")

    def degraded(web, customer: str) -> list[str]:
        body = {"customer_id": customer, "placement": "hero", "context": {"channel": "web"}}
        return web.post("/recommend", json=body).raise_for_status().json()["degraded"]

    here, there = customer_on(cluster, 0), customer_on(cluster, 1)
    with running_server(home, cluster.url) as server, httpx.Client(base_url=server.url, timeout=5.0) as web:
        assert degraded(web, here) == degraded(web, there) == ["no_model"]
        with stopped(cluster, 0):
            assert "no_customer_features" in degraded(web, here)
            assert degraded(web, there) == ["no_model"]
        for _ in range(100):
            if degraded(web, here) == ["no_model"]:
                break
        assert degraded(web, here) == degraded(web, there) == ["no_model"]
