"""Where it is kept that an id is an alias of another."""

from collections.abc import Iterable, Mapping

from service.ids import customer_key
from service.stores.links import Link
from service.stores.resp import encode

MOST_HOPS = 16  # from an alias to its customer; one as a rule: more where links were interrupted, or are of before that was so
ENDLESS = f"Expected an alias to lead to a customer within {MOST_HOPS} steps, found no end: `nextbest rebuild`"


def alias_key(name: str) -> str:
    """Holds the customer that an id leads to."""
    return alias_key_of(customer_key(name))


def alias_key_of(key: str) -> str:
    """The same, by the key of an id."""
    return f"nb:alias:{{{key}}}"


def aliases_key(customer: str) -> str:
    """Holds the keys of the ids that lead to a customer; some may lead elsewhere by now."""
    return f"nb:aliases:{{{customer_key(customer)}}}"


def end_of(alias: str, steps: Mapping[str, str]) -> str | None:
    """The customer that an alias leads to, step by step; None where that goes round in a circle."""
    name, passed = alias, {alias}
    while name in steps:
        name = steps[name]
        if name in passed:
            return None
        passed.add(name)
    return name


async def customers_of(link: Link, names: Iterable[str]) -> dict[str, str]:
    """The customer that each id leads to, without those that lead to no end; a round trip a step. Raises DependencyFailed."""
    asked = whom = list(dict.fromkeys(names))
    steps: dict[str, str] = {}
    for _ in range(MOST_HOPS + 1):
        if not whom:
            break
        found = await link.ask(b"".join(encode("GET", alias_key(name)) for name in whom), len(whom))
        led = {name: owner.decode() for name, owner in zip(whom, found, strict=True) if owner is not None}
        steps |= led
        whom = [owner for owner in dict.fromkeys(led.values()) if owner not in steps]
    ends = {name: end_of(name, steps) for name in asked}
    return {name: end for name, end in ends.items() if end is not None and end not in whom}
