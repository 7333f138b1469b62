"""What only the moment of a request tells."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.contract import Contract, ContractError, Feature
from features.request_time import REQUEST_TIME_NAMES, check_request_time, is_zone, request_time_values


@given(st.integers(0, 4_000_000_000))
def test_hour_and_weekday_are_those_of_the_calendar_in_utc(at):
    """Monday is 0, as the calendar of Python says."""
    moment = datetime.fromtimestamp(at, UTC)
    found = request_time_values(at + 0.5)
    assert (found["hour"], found["weekday"]) == (moment.hour, moment.weekday())


@given(st.integers(0, 4_000_000_000), st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "UTC"]))
def test_the_local_hour_is_what_the_clock_on_the_wall_says(at, zone):
    """Summer time, half hours and all; its fraction tells the minutes."""
    wall = datetime.fromtimestamp(at, ZoneInfo(zone))
    assert request_time_values(at, zone)["local_hour"] == pytest.approx(wall.hour + wall.minute / 60 + wall.second / 3600)


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc/passwd", 7.0, None])
def test_a_time_zone_that_is_none_counts_as_utc(zone):
    """What a customer record says may be anything."""
    assert request_time_values(3600.0, zone)["local_hour"] == 1.0


@pytest.mark.parametrize("none", ["Europe/berlin", "Mars/Base", "", None, 7.0, 99 * "Europe/", "a\0b"])
def test_the_first_time_zone_that_is_one_counts(none):
    """What is none is passed over, whatever it is."""
    assert request_time_values(3600.0, none, "Asia/Tokyo", "Europe/Berlin")["local_hour"] == 10.0
    assert request_time_values(3600.0, none, none, "Asia/Tokyo")["local_hour"] == 10.0
    assert not is_zone(none)


def test_the_names_it_announces_are_the_values_it_gives():
    """A contract is checked against the names, a request gets the values."""
    assert tuple(request_time_values(0.0)) == REQUEST_TIME_NAMES


def test_a_declared_moment_that_nothing_produces_is_refused():
    """Such an input would be missing in every request, silently."""
    check_request_time(Contract((Feature(name="hour", type="number", origin="request_time"),)))
    with pytest.raises(ContractError, match=r"Expected .*`hour`, `weekday`, `local_hour`, got `moon_phase` - at `features\[0\]`"):
        check_request_time(Contract((Feature(name="moon_phase", type="number", origin="request_time"),)))
