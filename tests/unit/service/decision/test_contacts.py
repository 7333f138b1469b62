"""Contacts as bytes."""

from service.decision.contacts import CANCELLED, IMPRESSION, SERVED, Contact, encode_contacts, not_yet_in, without_decision


def contact(action: str, decision: str, at: float = 1e9, kind: int = SERVED) -> Contact:
    return Contact(at, action, decision, "hero", kind)


def test_a_decision_that_is_made_again_does_not_count_against_itself():
    """What its first try served is not there, but what came of it is, and what others served."""
    history = encode_contacts([contact("gold", "d1"), contact("gold", "d1", kind=IMPRESSION), contact("gold", "d2")])
    assert without_decision(history, "d1") == encode_contacts([contact("gold", "d1", kind=IMPRESSION), contact("gold", "d2")])
    assert without_decision(history, "d3") is history


def test_what_a_first_try_took_is_not_taken_again():
    """The same action in the same place is, whatever the moment; another action is not. A torn entry is none."""
    history, later = encode_contacts([contact("gold", "d1")]), 1e9 + 60
    assert not_yet_in(history, [contact("gold", "d1", later)]) == ()
    assert not_yet_in(history, [contact("news", "d1", later)]) == (contact("news", "d1", later),)
    assert not_yet_in(history[:-1], [contact("gold", "d1", later)]) == (contact("gold", "d1", later),)


def test_what_was_taken_back_is_taken_again_and_is_younger_than_what_took_it_back():
    """Within the same second, too: else the old cancellation would take back the new contact."""
    history = encode_contacts([contact("gold", "d1"), contact("gold", "d1", kind=CANCELLED)])
    assert not_yet_in(history, [contact("gold", "d1")]) == (contact("gold", "d1", 1e9 + 1),)
    assert not_yet_in(history, [contact("gold", "d1", 1e9 + 60)]) == (contact("gold", "d1", 1e9 + 60),)
    again = history + encode_contacts([contact("gold", "d1", 1e9 + 1)])
    assert not_yet_in(again, [contact("gold", "d1", 1e9 + 60)]) == ()
