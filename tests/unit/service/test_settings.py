"""Settings: command line before environment before default."""

import re

import pytest

from service.errors import BadRequest
from service.settings import Settings, settings_from


def test_nothing_given_means_the_defaults():
    """An empty environment serves on loopback."""
    assert settings_from({}) == Settings()
    assert Settings().host == "127.0.0.1"


def test_the_command_line_comes_before_the_environment():
    """And what the command line leaves out does not hide the environment."""
    settings = settings_from({"NEXTBEST_PORT": "9000", "NEXTBEST_WORKERS": "2", "PATH": "/bin"}, {"port": 9001, "workers": None})
    assert (settings.port, settings.workers) == (9001, 2)


def test_a_value_of_the_wrong_type_names_the_setting():
    """Expected, found, where."""
    with pytest.raises(BadRequest, match=r"Expected `int`.* - at `\$.port`"):
        settings_from({"NEXTBEST_PORT": "many"})


@pytest.mark.parametrize(
    ("name", "spoiled", "expected"),
    [
        ("port", "-1", "`int` >= 0"),
        ("port", "65536", "`int` <= 65535"),
        ("workers", "0", "`int` >= 1"),
        ("redis_timeout_ms", "0", "`float` > 0.0"),
        ("redis_intake_timeout_ms", "-5", "`float` > 0.0"),
        ("coalesce_limit", "0", "`int` >= 1"),
        ("batches_in_flight", "0", "`int` >= 1"),
        ("log_interval_ms", "-1", "`float` > 0.0"),
        ("attribution_days", "0", "`float` > 0.0"),
        ("drain_s", "-0.1", "`float` >= 0.0"),
        ("shadow_share", "1.5", "`float` <= 1.0"),
        ("watch_interval_s", "nan", "`float` > 0.0"),
        ("trace_share", "-0.1", "`float` >= 0.0"),
        ("body_limit", "0", "`int` >= 1"),
        ("redis_timeout_ms", "inf", "`float` <= 3600000.0"),
        ("log_interval_ms", "inf", "`float` <= 3600000.0"),
        ("attribution_days", "inf", "`float` <= 3653.0"),
        ("drain_s", "inf", "`float` <= 86400.0"),
        ("watch_interval_s", "1e300", "`float` <= 86400.0"),
    ],
)
def test_a_number_that_no_service_can_run_with_is_refused_with_its_variable(name, spoiled, expected):
    """No batch would ever begin, or every answer would be too late."""
    variable = f"NEXTBEST_{name.upper()}"
    with pytest.raises(BadRequest, match=re.escape(f"Settings: Expected {expected} - at `$.{name}`, set by `{variable}`")):
        settings_from({variable: spoiled})


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000/",
        "localhost:3000",
        "shop.example",
        "https://shop.example/de",
        "https://Shop.example",
        "https://",
        "null",
    ],
)
def test_an_origin_that_no_browser_tells_is_refused_with_its_variable(origin):
    """It would be compared with every page's, and never be the same."""
    problem = f"got `{origin}` - at `$.allow_origins`, set by `NEXTBEST_ALLOW_ORIGINS`"
    with pytest.raises(BadRequest, match=rf"Settings: Expected `\*`, or `scheme://.*{re.escape(problem)}"):
        settings_from({"NEXTBEST_ALLOW_ORIGINS": f"https://app.example, {origin}"})


def test_origins_are_all_or_some_with_commas():
    """With a port or without, of an app, of every host of a domain, by number."""
    given = [
        "*",
        "http://localhost:3000",
        "https://shop.example",
        "capacitor://localhost",
        "https://*.shop.example",
        "http://[::1]:80",
    ]
    assert settings_from({"NEXTBEST_ALLOW_ORIGINS": ", ".join(given)}).origins == given
    assert settings_from({"NEXTBEST_ALLOW_ORIGINS": ""}).origins == []


def test_nothing_to_wait_for_and_no_share_are_settings():
    """A drain of no time, a port that the system chooses, nothing traced and no shadow asked."""
    found = settings_from(
        {"NEXTBEST_DRAIN_S": "0", "NEXTBEST_PORT": "0", "NEXTBEST_TRACE_SHARE": "0", "NEXTBEST_SHADOW_SHARE": "0"}
    )
    assert (found.drain_s, found.port, found.trace_share, found.shadow_share) == (0.0, 0, 0.0, 0.0)
