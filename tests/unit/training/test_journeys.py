"""Journeys of many customers: counted over everything that was written down, told in words, drawn."""

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from features.journey import parse_journey
from features.live import Event, hash_of
from features.walk import US, Walk
from service.cli import main
from service.decision.records import EventRecord, IdentityRecord
from service.errors import NotReady
from training.event_history import write_events
from training.journey_page import write_report
from training.journey_tables import friction, lasting
from training.journeys import Loop, journey_path_of, journey_report, visits
from training.live_log import write_segment

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "journey.yaml"
START = 1_750_000_000.0  # 2025-06-15: in the past of every clock
MINUTE, DAY = 60.0, 86_400.0
UNTIL = START + 20 * DAY
VIEW, CART, REMOVE, BUY = "product_viewed", "cart_added", "cart_removed", "purchased"
WAYS = {
    "buyer": [(0, VIEW), (1, CART), (2, BUY)],
    "waverer": [(0, VIEW), (1, CART), (2, REMOVE), (3, CART), (4, REMOVE), (5, CART)],  # abandoned, and quiet a week later
    "looker": [(0, VIEW)],
    "other": [(0, "survey_answered")],  # leads nowhere
}


@pytest.fixture(scope="module")
def told_home(tmp_path_factory):
    """Three customers on their ways, minutes apart; one of them began under another id."""
    home = tmp_path_factory.mktemp("journeys")
    (home / "features").mkdir()
    shutil.copy(EXAMPLE, home / "features" / "journey.yaml")
    records = [
        EventRecord(f"{who}{n}", "anonymous" if (who, n) == ("buyer", 0) else who, kind, "web", at, at)
        for who, way in WAYS.items()
        for n, (minute, kind) in enumerate(way)
        for at in [START + minute * MINUTE]
    ]  # fmt: skip
    write_events(home, "told", records[::-1])
    write_segment(home, "identities", "test", [IdentityRecord("anonymous", "buyer", START)], START)
    return home


@pytest.fixture
def report(told_home):
    return journey_report(told_home, None, UNTIL)


def test_every_visit_is_counted_with_what_became_of_it(report):
    """Led on by an event, ended by a time-out, or still there; an alias's events are its customer's."""
    figures = {one.stage: (one.customers, one.visits, one.moved_on, one.timed_out, one.here) for one in report.stages}
    assert report.customers == 3
    assert figures == {
        "new": (3, 3, 3, 0, 0),
        "browsing": (3, 5, 4, 1, 0),
        "cart": (2, 4, 3, 1, 0),
        "abandoned": (1, 1, 0, 1, 0),
        "bought": (1, 1, 0, 0, 1),
        "quiet": (2, 2, 0, 0, 2),
    }
    cart = next(one for one in report.stages if one.stage == "cart")
    assert (cart.drop_off, cart.median_s) == (0.25, MINUTE)


def test_flows_say_how_often_one_stage_led_to_another(report):
    """By events and by time-outs apart; their shares are of the visits to where they come from."""
    found = {(f.origin, f.target, f.timed_out): (f.count, f.customers, f.share) for f in report.flows}
    assert found["browsing", "cart", False] == (4, 2, 0.8)
    assert found["browsing", "quiet", True] == (1, 1, 0.2)
    assert found["cart", "abandoned", True] == (1, 1, 0.25)
    assert sum(count for count, _, _ in found.values()) == 13


def test_turning_back_is_a_loop(report):
    """There and straight back, counted from either side."""
    assert report.loops[:2] == (Loop("browsing", "cart", 2, 1, 0), Loop("cart", "browsing", 2, 1, 0))
    lines = friction(report)
    assert lines[0] == "loop      browsing → cart → browsing: 2 times by 1 customers"
    assert "drop-off  cart → abandoned: a time-out ended 1 (25%) of its visits" in lines


def test_only_visits_that_began_in_the_time_count_as_they_stood_at_its_end(told_home):
    """A week later only one began; a minute after the start, nobody has left by a time-out."""
    late = journey_report(told_home, START + DAY, UNTIL)
    assert [(one.stage, one.visits) for one in late.stages] == [("quiet", 1)]
    early = journey_report(told_home, None, START + 1.5 * MINUTE)
    assert {one.stage: one.here for one in early.stages} == {"new": 0, "browsing": 1, "cart": 2}
    assert friction(early) == ["no friction: nobody turned back, and no time-out passed"]


def test_one_customers_way_has_moments_and_causes(told_home):
    """Oldest first, by either id."""
    path = journey_path_of(told_home, "anonymous", UNTIL)
    assert path == journey_path_of(told_home, "buyer", UNTIL)
    assert [(v.stage, v.began - START, v.cause) for v in path] == [
        ("new", 0.0, None), ("browsing", 0.0, VIEW), ("cart", MINUTE, CART), ("bought", 2 * MINUTE, BUY),
    ]  # fmt: skip
    assert path[-1].left is None
    waverer = journey_path_of(told_home, "waverer", UNTIL)
    assert [(v.stage, v.cause) for v in waverer[-2:]] == [("abandoned", None), ("quiet", None)]
    assert waverer[-1].began - START == 35 * MINUTE + 7 * DAY
    assert waverer[-2].timed_out


def test_a_path_forgets_nothing():
    """A hundred views in and out of the cart: all of them, where the live features follow the last sixteen of a kind."""
    walk = Walk(parse_journey(EXAMPLE.read_text()))
    happened = [Event(f"e{n}", CART if n % 2 else REMOVE, START + n, {}) for n in range(1, 101)]
    entries = [(round(e.at * US), hash_of(e.event_id), walk.kind(e.type, e.properties)) for e in happened]
    assert len(list(visits(walk, entries, UNTIL))) == 1 + 100 + 1  # the start, and the time-out at the end


@pytest.mark.parametrize(("span", "text"), [(None, ""), (12, "12 s"), (90, "1.5 min"), (7200, "2 h"), (200_000, "2.3 d")])
def test_a_time_is_told_as_people_say_it(span, text):
    """In the largest unit that it fills."""
    assert lasting(span) == text


def test_a_report_is_drawn_as_the_name_of_its_file_says(report, tmp_path):
    """A picture, a drawing that is the same each time, or a page with both picture and figures."""
    assert write_report(report, tmp_path / "new" / "j.png").read_bytes().startswith(b"\x89PNG")
    drawing = write_report(report, tmp_path / "j.svg").read_text()
    assert drawing == write_report(report, tmp_path / "again.svg").read_text()
    texts = {text.strip() for text in ET.fromstring(drawing).itertext()}  # noqa: S314  # our own file
    assert {"cart", "4 visits", "4 (80%) →", "1 (25%) →"} <= texts
    page = write_report(report, tmp_path / "j.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "<td>abandoned</td>" in page
    assert "<svg" in page


def test_nothing_happened_is_no_picture(told_home, tmp_path):
    """Said, not drawn empty."""
    with pytest.raises(NotReady, match="found none in this time"):
        write_report(journey_report(told_home, UNTIL, UNTIL), tmp_path / "j.svg")


def test_a_home_without_a_journey_says_what_is_missing(tmp_path):
    """The file to write; and a customer of whom nothing is known."""
    with pytest.raises(NotReady, match=r"Expected a journey, found none - at .*features/journey\.yaml"):
        journey_report(tmp_path, None, UNTIL)


def test_the_commands_tell_and_write(told_home, tmp_path, capsys):
    """Tables for people, JSON for machines, a file on request."""
    run = ["--home", str(told_home), "journey"]
    output = tmp_path / "report.svg"
    assert main([*run, "report", "--since", "2025-06-01", "--output", str(output)]) == 0
    out = capsys.readouterr().out
    assert "3 customers" in out
    assert "loop      browsing → cart → browsing" in out
    assert output.exists()
    assert main([*run, "report", "--json"]) == 0
    assert '"by_way_of": "cart"' in capsys.readouterr().out
    assert main([*run, "show", "waverer"]) == 0
    assert "time-out" in capsys.readouterr().out
    assert main([*run, "show", "buyer", "--json"]) == 0
    assert '"cause": "purchased"' in capsys.readouterr().out
    assert main([*run, "show", "other"]) == 1
    assert "got `other`" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*run, "report", "--output", "report.pdf"])
    assert "Expected a name that ends with .html, .svg, .png" in capsys.readouterr().err
