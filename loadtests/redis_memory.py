"""What a customer takes in Redis: many of them, with the features that Feast wrote for the shop's and a history of contacts."""

import random
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import redis

from features.homes import home_contract
from features.layout import CustomerLayout
from loadtests.servers import Place
from loadtests.world import ACTIONS, PLACEMENT, contract, customer_ids
from service.decision.contacts import IMPRESSION, SERVED, Contact, encode_contacts
from service.ids import customer_key
from service.stores.contact_history import KEPT_S, contacts_key
from service.stores.resp import bulk, encode

FEATURES, CONTACTS = len(contract().customer), 50
AT_ONCE = 5000  # customers in a round trip
SAMPLE = 500  # customers who are read again
BEGAN = 1.79e9  # of the contacts, seconds since 1970 UTC

Client = Any  # redis-py's types promise coroutines as well, which its plain client never returns


class Kept(NamedTuple):
    """How many customers there are, bytes that each of them takes, and how many of a sample read as they should."""

    customers: int
    features_bytes: float
    contacts_bytes: float
    resident_bytes: float
    sampled: int
    right: int


def kept(place: Place, customers: int) -> Kept:
    """Load so many and look."""
    layout = CustomerLayout(home_contract(place.home))
    with redis.Redis.from_url(place.redis_url) as client:
        models = _models(client, layout)
        before = _memory(client)
        load_features(client, layout, models, customers)
        between = _memory(client)
        load_contacts(client, customers)
        after = _memory(client)
        sample = random.Random(0).sample(range(customers), min(SAMPLE, customers))
        right = sum(_reads(client, layout, number, models[number % len(models)]) for number in sample)
    features, contacts, resident = (
        (late[key] - early[key]) / customers
        for early, late, key in ((before, between, USED), (between, after, USED), (before, after, RESIDENT))
    )
    return Kept(customers, features, contacts, resident, len(sample), right)


def load(place: Place, customers: int) -> None:
    """So many, each with the features of one of the shop's customers, as Feast has written them, and a history of contacts."""
    layout = CustomerLayout(home_contract(place.home))
    with redis.Redis.from_url(place.redis_url) as client:
        load_features(client, layout, _models(client, layout), customers)
        load_contacts(client, customers)


def _models(client: Client, layout: CustomerLayout) -> list[dict[bytes, bytes]]:
    return [client.hgetall(layout.key(customer)) for customer in customer_ids()]


def load_features(client: Client, layout: CustomerLayout, models: Sequence[Mapping[bytes, bytes]], customers: int) -> None:
    """Customer after customer has those of the next model."""
    tails = [b"".join(bulk(part) for pair in model.items() for part in pair) for model in models]
    sizes = [2 + 2 * len(model) for model in models]
    _send(client, customers, lambda n: _features(layout, n, sizes[n % len(sizes)], tails[n % len(tails)]))


def load_contacts(client: Client, customers: int) -> None:
    """A history for each; as many different ones as the shop has customers."""
    histories = [_history(number) for number in range(len(customer_ids()))]
    _send(client, customers, lambda n: _contacts(n, histories[n % len(histories)]))


USED, RESIDENT = "used_memory", "used_memory_rss"


def _memory(client: Client) -> dict[str, int]:
    found: dict[str, int] = client.info("memory")
    return found


def customer_name(number: int) -> str:
    """Of those that are loaded, by their numbers from 0 on."""
    return f"customer-{number:08}"


def _features(layout: CustomerLayout, number: int, size: int, tail: bytes) -> bytes:
    return b"*%d\r\n" % size + bulk("HSET") + bulk(layout.key(customer_name(number))) + tail


def _contacts(number: int, history: bytes) -> bytes:
    return encode("SET", contacts_key(customer_key(customer_name(number))), history, "EX", str(KEPT_S))


def _history(seed: int) -> bytes:
    """Half of them shown, the other half what came of it."""
    chance = random.Random(seed)
    found = []
    for number in range(CONTACTS // 2):
        at, action, decision = BEGAN + 3600.0 * number, f"action_{chance.randrange(ACTIONS)}", f"d{seed}-{number}"
        found += [Contact(at + late, action, decision, PLACEMENT, kind) for late, kind in ((0.0, SERVED), (2.0, IMPRESSION))]
    return encode_contacts(found)


def _send(client: Client, customers: int, command: Callable[[int], bytes]) -> None:
    """Ready-made commands, past the client library, which would take minutes to make them."""
    where = client.connection_pool.connection_kwargs
    with closing(socket.create_connection((where["host"], where["port"]))) as line, line.makefile("rb") as replies:
        for some in _slices(customers):
            line.sendall(b"".join(map(command, some)))
            for _ in some:
                reply = replies.readline()
                if not reply.startswith((b":", b"+")):
                    raise RuntimeError(f"Expected Redis to take it, got `{reply.decode().strip()}`")


def _slices(count: int) -> Iterator[range]:
    return (range(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE))


def _reads(client: Client, layout: CustomerLayout, number: int, model: dict[bytes, bytes]) -> bool:
    """Whether the service would read of this customer what it reads of the model, and a history of the right length."""
    reply = client.hmget(layout.key(customer_name(number)), list(layout.fields))
    wanted = layout.decode([model.get(field) for field in layout.fields], BEGAN)
    history = client.get(contacts_key(customer_key(customer_name(number)))) or b""
    return layout.decode(reply, BEGAN) == wanted and bool(wanted.values) and len(history) == len(_history(0))
