"""The follow-up queue: what the log says of alerts, who did what, and how long it took."""

import json

import pytest

from service.cli import main
from service.decision.records import AlertFollowUp, AlertRaised
from service.errors import AlertSettled, UnknownAlert
from training.alerts import Spread, Wanted, follow_up, read_alerts, report, selected, still_held, still_open
from training.live_log import write_segment

NOW = 1_790_000_000.0
HOUR = 3600.0


def raised(alert_id: str, hours_ago: float, severity: str = "high", route: str = "desk", **changes) -> AlertRaised:
    at, because = NOW - hours_ago * HOUR, {"event.score": 3.0}
    return AlertRaised(alert_id, "unhappy", severity, route, "c42", f"e-{alert_id}", "survey_answered", at, because, **changes)


def step(alert_id: str, what: str, hours_ago: float, by: str = "ann") -> AlertFollowUp:
    return AlertFollowUp(alert_id, what, NOW - hours_ago * HOUR, by, "called")


@pytest.fixture
def home(tmp_path):
    """Three alerts, one of them written twice, as two workers would."""
    alerts = [raised("a1", 5), raised("a2", 4, "critical"), raised("a3", 3, "low", "shop"), raised("a1", 2)]
    write_segment(tmp_path, "alerts", "t", alerts, NOW - 5 * HOUR)
    return tmp_path


@pytest.fixture
def run(home, capsys):
    def command(*arguments: str):
        code = main(["--home", str(home), "alerts", *arguments])
        return code, *capsys.readouterr()

    return command


def test_an_alert_that_was_written_twice_is_one(home):
    """As of the first time."""
    found = read_alerts(home)
    assert [(name, one.state) for name, one in found.items()] == [("a1", "open"), ("a2", "open"), ("a3", "open")]
    assert found["a1"].alert.at == NOW - 5 * HOUR


def test_the_most_severe_comes_first_then_the_oldest_and_closed_ones_only_where_asked_for(home):
    """Only those of a route or a severity, too."""
    follow_up(home, step("a3", "closed", 1))
    alerts = read_alerts(home).values()
    names = [[one.alert.alert_id for one in selected(alerts, wanted)] for wanted in (Wanted(), Wanted(settled=True))]
    assert names == [["a2", "a1"], ["a2", "a1", "a3"]]
    assert [one.alert.alert_id for one in selected(alerts, Wanted(severity="high"))] == ["a1"]
    assert [one.alert.alert_id for one in selected(alerts, Wanted("shop", settled=True))] == ["a3"]


def test_what_was_done_is_in_the_log_and_is_done_once(home):
    """Whoever comes second is told who was first, and nothing is written."""
    follow_up(home, step("a1", "acknowledged", 2))
    with pytest.raises(AlertSettled, match="nobody has acknowledged, got `a1`, acknowledged by ann before"):
        follow_up(home, step("a1", "acknowledged", 1, "bob"))
    follow_up(home, step("a1", "closed", 1, "bob"))
    for again in ("closed", "acknowledged"):
        with pytest.raises(AlertSettled, match="closed by bob before"):
            follow_up(home, step("a1", again, 0.5))
    with pytest.raises(UnknownAlert, match="Expected the id of an alert that was raised, got `never`"):
        follow_up(home, step("never", "closed", 1))
    one = read_alerts(home)["a1"]
    assert (one.state, one.acknowledged.by, one.closed.by) == ("closed", "ann", "bob")


def test_of_two_who_close_it_at_the_same_moment_the_first_counts(home):
    """Both are in the log, where nothing is taken back."""
    for by, hours in (("bob", 1), ("ann", 2)):
        write_segment(home, "alerts", by, [step("a1", "closed", hours, by)], NOW)
    assert read_alerts(home)["a1"].closed.by == "ann"


def test_a_report_says_how_a_route_keeps_up(home):
    """Counts, the middle and the slow end of the times, and how long the oldest has been waiting."""
    write_segment(home, "alerts", "more", [raised("a4", 10), raised("a5", 1)], NOW - HOUR)
    follow_up(home, step("a1", "acknowledged", 4))
    follow_up(home, step("a4", "acknowledged", 7))
    follow_up(home, step("a4", "closed", 4))
    critical, high, low = report(read_alerts(home).values(), NOW)
    assert (critical.severity, high.severity, low.route) == ("critical", "high", "shop")
    assert (high.open, high.acknowledged, high.closed) == (1, 1, 1)
    assert high.to_acknowledge == Spread(pytest.approx(2 * HOUR), pytest.approx(2.8 * HOUR))
    assert high.to_close == Spread(pytest.approx(6 * HOUR), pytest.approx(6 * HOUR))
    assert (high.oldest_open, low.to_close) == (5 * HOUR, None)


def test_what_a_rebuild_puts_back_is_open_or_holds_a_customer(tmp_path):
    """A closed alert still keeps the same from being raised again."""
    write_segment(tmp_path, "alerts", "t", [raised("a1", 5, once_per=6 * HOUR), raised("a2", 5, once_per=2 * HOUR)], NOW)
    follow_up(tmp_path, step("a1", "closed", 1))
    alerts = read_alerts(tmp_path)
    assert [alert.alert_id for alert in still_open(alerts)] == ["a2"]
    assert [(alert.alert_id, left) for alert, left in still_held(alerts, NOW)] == [("a1", HOUR)]


def test_the_commands_list_take_on_close_and_report(run):
    """In words for people."""
    _, listed, _ = run()
    assert listed.index("a2") < listed.index("a1")
    assert "event.score = 3.0" in listed
    code, out, _ = run("acknowledge", "a2", "--by", "ann", "--note", "calling")
    assert (code, out.startswith("`unhappy` of customer c42: acknowledged after ")) == (0, True)
    assert "acknowledged by ann" in run("list", "--severity", "critical")[1]
    code, out, _ = run("close", "a2")
    assert (code, "closed after" in out) == (0, True)
    assert "a2" not in run("--open")[1]
    assert "a2" in run("--all")[1]
    assert run("--route", "nowhere")[1] == "no open alerts\n"
    assert "critical" in run("report")[1]


def test_the_commands_speak_json(run):
    """For machines."""
    run("acknowledge", "a2", "--by", "ann")
    found = json.loads(run("--json")[1])
    assert [(one["alert"]["alert_id"], one["state"]) for one in found] == [("a2", "acknowledged"), ("a1", "open"), ("a3", "open")]
    assert found[0]["acknowledged"]["by"] == "ann"
    assert json.loads(run("report", "--json")[1])[0]["acknowledged"] == 1


def test_what_cannot_be_done_is_an_error(run):
    """Exit code 1, in one line."""
    assert run("close", "never")[::2] == (1, "error: Expected the id of an alert that was raised, got `never`\n")
    run("close", "a1", "--by", "ann")
    code, _, told = run("close", "a1")
    assert (code, "closed by ann before" in told) == (1, True)


def test_a_document_is_checked_before_it_serves(run, home):
    """The home's, or a draft; none is no mistake."""
    assert run("check")[:2] == (0, f"0 alerts - at `{home / 'alerts.yaml'}`\n")
    good = "alerts: [{name: a, on: [chat_message], when: event.sentiment < 0, severity: low, route: desk}]"
    (home / "alerts.yaml").write_text(good)
    assert run("check")[1].startswith("a: low, to desk, on chat_message\n1 alerts")
    (home / "draft.yaml").write_text(good.replace("sentiment", "mood"))
    code, _, told = run("check", str(home / "draft.yaml"))
    assert code == 1
    assert told.startswith("error: draft.yaml: line 1: Expected a known name")
    assert "Expected a readable document" in run("check", str(home / "nowhere.yaml"))[2]


def test_a_queue_without_alerts_says_so(tmp_path, capsys):
    """Not an empty table."""
    for arguments in ([], ["--all"], ["report"]):
        assert main(["--home", str(tmp_path), "alerts", *arguments]) == 0
    assert capsys.readouterr().out == "no open alerts\nno alerts\nno alerts\n"
