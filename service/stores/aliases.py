"""Where it is kept that an id is an alias of another."""

from collections.abc import Mapping

from service.ids import customer_key

MOST_HOPS = 16  # from an alias to its customer
ENDLESS = f"Expected an alias to lead to a customer within {MOST_HOPS} steps, found no end: `nextbest rebuild`"


def alias_key(name: str) -> str:
    """Holds the customer that an id leads to."""
    return alias_key_of(customer_key(name))


def alias_key_of(key: str) -> str:
    """The same, by the key of an id."""
    return f"nb:alias:{{{key}}}"


def end_of(alias: str, steps: Mapping[str, str]) -> str | None:
    """The customer that an alias leads to, step by step; None where that goes round in a circle."""
    name, passed = alias, {alias}
    while name in steps:
        name = steps[name]
        if name in passed:
            return None
        passed.add(name)
    return name
