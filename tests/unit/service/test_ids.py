"""Ids that are nobody's personal data, and decisions that lead to their customer."""

import pytest

from service.ids import customer_key, key_in, new_decision_id, personal


@pytest.mark.parametrize("name", ["ann@shop.example", "a.b+c@x.co", "+49 170 1234567", "+8613800138000", "(0170) 123 45 67"])
def test_addresses_and_numbers_are_told(name):
    """With advice."""
    assert "SHA-256" in personal(name)


@pytest.mark.parametrize(
    "name", ["c42", "10000085207", "a@b", "user@host", "2024-01-02", "9f86d081884c7d65", "+", "x@y@z.de", "(12)"]
)
def test_ids_are_ids(name):
    """An account number of eleven digits, too."""
    assert personal(name) is None


def test_a_decision_leads_to_its_customer():
    """Ours do; those that a client chose do not."""
    assert key_in(new_decision_id("c42")) == customer_key("c42")
    assert key_in("my-own-id") is None
