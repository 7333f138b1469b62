"""A customer's hash: which fields, which values, which are too old."""

import math
import sys
from dataclasses import dataclass

import pytest
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from features import native
from features.contract import Contract, ContractError, Feature
from features.layout import CustomerLayout, field
from features.protobuf import MalformedValue, encode_timestamp

DAY = 86_400
NOW = 1_790_000_000
CONTRACT = Contract(
    (
        Feature(name="visits", type="number", origin="activity", max_age=2.0 * DAY),
        Feature(name="last_channel", type="category", origin="activity", max_age=5.0 * DAY, categories=("web",)),
        Feature(name="age", type="number", origin="profile", max_age=400.0 * DAY),
        Feature(name="device", type="category", origin="context", categories=("mobile",)),
    )
)


@dataclass
class Hash:
    """One customer's hash, as Redis would hold it."""

    layout: CustomerLayout
    fields: dict[bytes, bytes]

    def write(self, view, values, age_days=0.0):
        self.fields |= self.layout.encode(view, values, int((NOW - age_days * DAY) * 1_000_000))
        return self

    def read(self):
        return self.layout.decode([self.fields.get(name) for name in self.layout.fields], NOW)


@pytest.fixture(params=[None, native.rows], ids=["in Python", "in C"])
def customer(request) -> Hash:
    """As it is read with and without what is written in C."""
    return Hash(CustomerLayout(CONTRACT, rows=request.param), {})


@given(st.text(max_size=30), st.text(min_size=1, max_size=10))
def test_a_customers_key_is_feasts(customer_id, project):
    """Any text may be a customer id; the key is Feast's entity key and the project."""
    entity = EntityKey(join_keys=["customer_id"], entity_values=[Value(string_val=customer_id)])
    assert CustomerLayout(CONTRACT, project).key(customer_id) == _redis_key(project, entity)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_a_features_field_is_feasts(view, feature):
    """Four bytes of murmur3, little-endian."""
    assert field(view, feature) == _mmh3(f"{view}:{feature}")


def test_only_views_with_features_are_asked_for(customer):
    """Two of the four views have features here: three values and two moments, and nothing of the request's context."""
    assert set(customer.layout.fields) == {
        field("activity", "visits"), field("activity", "last_channel"), field("profile", "age"), b"_ts:activity", b"_ts:profile",
    }  # fmt: skip
    assert len(customer.layout.fields) == 5
    assert CustomerLayout(Contract(())).decode([], NOW) == ({}, ())


def test_values_come_back_and_missing_ones_are_left_out(customer):
    """No value, no number and an unwritten view are all the same: missing."""
    customer.write("activity", {"visits": 3.0, "last_channel": None})
    assert customer.read() == ({"visits": 3.0}, ())
    customer.write("activity", {"visits": math.nan, "last_channel": "web"})
    assert customer.read() == ({"last_channel": "web"}, ())


@pytest.mark.parametrize("beyond", [math.inf, -math.inf])
def test_a_number_beyond_all_numbers_is_missing(customer, beyond):
    """No record could hold it, so that a replay would decide from something else. The largest float is a number."""
    customer.write("activity", {"visits": beyond, "last_channel": "web"}).write("profile", {"age": sys.float_info.max})
    assert customer.read() == ({"last_channel": "web", "age": sys.float_info.max}, ())
    customer.write("activity", {"visits": sys.float_info.max, "last_channel": "web"})
    assert customer.read().values["visits"] == sys.float_info.max


def test_each_feature_has_its_own_age_within_a_view(customer):
    """After three days the visits are stale, the channel is not, and a missing value is never stale."""
    customer.write("activity", {"visits": 3.0, "last_channel": "web"}, age_days=3).write("profile", {"age": 40.0}, age_days=3)
    assert customer.read() == ({"last_channel": "web", "age": 40.0}, ("visits",))
    customer.write("activity", {"visits": None, "last_channel": "web"}, age_days=9)
    assert customer.read() == ({"age": 40.0}, ("last_channel",))


def test_the_maximum_age_itself_still_counts(customer):
    """`max_age` is the oldest that a value may be."""
    assert customer.write("activity", {"visits": 3.0}, age_days=2).read() == ({"visits": 3.0}, ())
    assert customer.write("profile", {"age": 3.0}, age_days=400).read() == ({"visits": 3.0, "age": 3.0}, ())
    assert customer.write("activity", {"visits": 3.0, "last_channel": "web"}, age_days=5).read().stale == ("visits",)


def test_a_value_without_a_moment_is_stale(customer):
    """Nothing says that it is fresh."""
    customer.write("profile", {"age": 40.0})
    del customer.fields[b"_ts:profile"]
    assert customer.read() == ({}, ("age",))


def test_numbers_that_others_wrote_in_other_widths_are_read(customer):
    """A feature repository of someone else may say Int64 or Float32: the slow path says the same."""
    customer.write("activity", {"visits": 1.0}).write("profile", {"age": 40.0})
    customer.fields[field("profile", "age")] = Value(int64_val=-7).SerializeToString()
    assert customer.read() == ({"visits": 1.0, "age": -7.0}, ())


@pytest.mark.parametrize(
    ("name", "where"),
    [
        (field("profile", "age"), "profile:age"),
        (field("activity", "last_channel"), "activity:last_channel"),
        (b"_ts:activity", "_ts:activity"),
    ],
)
def test_damaged_bytes_are_refused_with_the_field_they_stand_in(customer, name, where):
    """Garbage is never scored."""
    customer.write("activity", {"visits": 1.0, "last_channel": "web"}).write("profile", {"age": 40.0})
    customer.fields[name] = b"\x29\x00"
    with pytest.raises(MalformedValue, match=f"at `{where}`"):
        customer.read()


def test_bytes_whose_lengths_happen_to_add_up_are_refused(customer):
    """Numbers are unpacked together: 5 and 13 bytes must not pass for two of 9."""
    customer.write("activity", {"visits": 1.0}).write("profile", {"age": 40.0})
    customer.fields[field("profile", "age")] = b"\x29" * 5
    customer.fields[field("activity", "visits")] = b"\x29" * 13
    with pytest.raises(MalformedValue, match="profile:age"):
        customer.read()


def test_a_feature_is_written_only_into_its_own_view(customer):
    """Otherwise it would never be found again."""
    with pytest.raises(ContractError, match=r"Expected a feature of `profile` \(age\), got `visits`"):
        customer.layout.encode("profile", {"visits": 1.0}, 0)


def test_the_moment_is_that_of_the_view(customer):
    """Seconds and nanoseconds, exact to the microsecond."""
    assert customer.layout.encode("profile", {}, 1_500_000) == {b"_ts:profile": encode_timestamp(1_500_000)}
