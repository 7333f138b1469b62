"""Which slot a key lies in."""

import pytest

from service.ids import customer_key
from service.stores.aliases import alias_key, aliases_key
from service.stores.consents import consents_key
from service.stores.contact_history import contacts_key
from service.stores.identities import joined_key
from service.stores.live_features import live_key
from service.stores.slots import SLOTS, slot_of, slot_tags


@pytest.mark.parametrize(
    ("key", "same"),
    [
        (b"{user1000}.following", b"user1000"),
        (b"foo{bar}{zap}", b"bar"),
        (b"foo{{bar}}zap", b"{bar"),
        (b"}a{b}", b"b"),
    ],
)
def test_of_a_key_with_braces_only_what_they_hold_counts(key, same):
    """The first pair, as Redis's specification has it."""
    assert slot_of(key) == slot_of(same)


@pytest.mark.parametrize(("key", "slot"), [(b"123456789", 0x31C3), (b"", 0), (b"foo", 12182), (b"foo{}", 5542), (b"a{b", 13340)])
def test_slots_are_those_that_redis_says(key, slot):
    """`CLUSTER KEYSLOT` of a real server; the first is the check value of the specification."""
    assert slot_of(key) == slot


def test_every_slot_has_a_word_that_lies_in_it():
    """Marks of completeness are named after them."""
    assert [slot_of(tag.encode()) for tag in slot_tags()] == list(range(SLOTS))


def test_what_one_step_touches_of_a_customer_lies_in_one_slot():
    """Contacts, state, consents, alias, aliases."""
    keys = [
        alias_key("c1"), aliases_key("c1"), contacts_key(customer_key("c1")), consents_key("c1"), live_key("c1"),
        joined_key("a1", "c1"),
    ]  # fmt: skip
    assert len({slot_of(key.encode()) for key in keys}) == 1
