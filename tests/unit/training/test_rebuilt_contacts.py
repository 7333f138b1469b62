"""What the log says of contacts, joined with what Redis holds."""

from service.decision.contacts import CANCELLED, IMPRESSION, SERVED, Contact, encode_contacts
from training.rebuild import joined


def entries(*contacts: tuple[float, int]) -> bytes:
    return encode_contacts(Contact(1e9 + at, "gold", "d1", "hero", kind) for at, kind in contacts)


def test_a_decision_that_was_claimed_at_one_moment_and_logged_at_another_counts_once():
    """Its process died in between, and it was made again; what came of it is joined by moment."""
    assert joined(entries((5, SERVED)), entries((1, SERVED), (9, IMPRESSION))) == entries((1, SERVED), (9, IMPRESSION))
    assert joined(entries((5, SERVED), (9, IMPRESSION)), b"") == entries((5, SERVED), (9, IMPRESSION))


def test_what_was_taken_back_and_then_logged_counts():
    """Younger than what took it back, in the same second too."""
    before = entries((1, SERVED), (1, CANCELLED))
    assert joined(entries((1, SERVED)), before) == before + entries((2, SERVED))
    assert joined(entries((7, SERVED)), before) == before + entries((7, SERVED))
