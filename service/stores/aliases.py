"""Where it is kept that an id is an alias of another."""

from service.ids import customer_key

MOST_HOPS = 4  # from an alias to its customer


def alias_key(name: str) -> str:
    """Holds the customer that an id leads to."""
    return alias_key_of(customer_key(name))


def alias_key_of(key: str) -> str:
    """The same, by the key of an id."""
    return f"nb:alias:{{{key}}}"
