"""Until when what was known of an id is forgotten: what happened before that and comes in late must not bring it back."""

from collections.abc import Iterable

from service.ids import customer_key
from service.stores.resp import encode

NEVER = float("-inf")


def erased_key_of(key: str) -> str:
    """Holds that moment, seconds since 1970 UTC, by the key of an id."""
    return f"nb:erased:{{{key}}}"


def erased_command(name: str, at: float) -> bytes:
    """One command that says of an id that what was until then is forgotten. It stays: a consent of then may come at any time."""
    return encode("SET", erased_key_of(customer_key(name)), repr(at))


def ask_erased(keys: Iterable[str]) -> bytes:
    """A command for each key of an id that asks for its moment."""
    return b"".join(encode("GET", erased_key_of(key)) for key in keys)


def until_in(reply: bytes | None) -> float:
    """The moment that was answered; before all others where nobody was erased."""
    return NEVER if reply is None else float(reply)
