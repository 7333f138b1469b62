"""`nextbest explain | replay | whatif | experiments` on a home with a log."""

import datetime as dt
import json

import pytest
import yaml

from service.cli import main
from service.registry import Registry
from training.decision_log import read_decisions


@pytest.fixture
def run(busy_home, capsys):
    def command(*arguments: str):
        code = main(["--home", str(busy_home), *arguments])
        return code, *capsys.readouterr()

    return command


def test_an_explanation_has_every_action_its_factors_and_what_the_model_saw(run):
    """Rank, stage, rule, value: in a table that a person reads."""
    code, out, _ = run("explain", "busy-3")
    assert code == 0
    assert "busy-3  customer c" in out
    assert "dropped by stage" in out
    assert "what the model saw in" in out
    for action in ("gold_card", "fashion_sale", "complaint_follow_up"):
        assert action in out


def test_a_change_is_told_where_it_is_asked_for(run):
    """In words, next to the action; for all of them, or for those that are named."""
    _, out, _ = run("explain", "busy-3", "--changes", "*")
    everything = out.count("would be shown with")
    assert everything >= 8
    _, out, _ = run("explain", "busy-3", "--changes", "complaint_follow_up")
    assert 1 <= out.count("would be shown with") < everything


def test_the_same_for_machines(run):
    """JSON: the decision, its placements, contributions of the actions that were asked for."""
    _, out, _ = run("explain", "busy-3", "--json", "--action", "gold_card", "--action", "recipes")
    told = json.loads(out)
    assert told["explanation"]["decision"]["decision_id"] == "busy-3"
    assert set(told["contributions"]) == {"gold_card", "recipes"}


def test_an_unknown_decision_is_an_error(run):
    """Not a stack trace."""
    code, _, err = run("explain", "never-made")
    assert (code, err) == (1, "error: Expected the id of a logged decision, got `never-made`\n")


def test_a_replay_that_holds_exits_with_0_and_one_of_nothing_does_not(run, busy_home):
    """Days are UTC, and the last one counts as a whole."""
    assert run("replay")[:2] == (0, "3,000 decisions: 3,000 identical, 0 different\n")
    code, out, _ = run("replay", "--to", "2020-01-01")
    assert (code, out) == (1, "0 decisions: 0 identical, 0 different\n")
    moments = sorted(logged.record.at for logged in read_decisions(busy_home))
    day = dt.datetime.fromtimestamp(moments[0], dt.UTC).date()
    code, out, _ = run("replay", "--from", str(day), "--to", str(day), "--json")
    until = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC).timestamp() + 86_400.0
    assert (code, json.loads(out)["decisions"]) == (0, sum(at < until for at in moments))


def test_a_moment_that_is_none_is_told(run, capsys):
    """With an example of one."""
    with pytest.raises(SystemExit):
        run("replay", "--from", "yesterday")
    assert "Expected a day like" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "where"), [(("--changes", "gold_card,gold_cart"), "--changes"), (("--action", "gold_cart"), "--action")]
)
def test_an_action_that_nobody_knows_is_told(run, option, where):
    """It had no effect, as if nothing could have been found."""
    code, _, err = run("explain", "busy-3", *option)
    known = "Expected an action of the catalog that decided (did you mean `gold_card`?)"
    assert (code, err) == (1, f"error: {known}, got `gold_cart` - at `{where}`\n")


def test_a_span_that_ends_before_it_begins_is_told(run):
    """It held no decision, as if nothing had been logged."""
    code, _, err = run("replay", "--from", "2026-11-02", "--to", "2026-11-01")
    assert (code, err.startswith("error: Expected a span that begins before it ends")) == (1, True)


@pytest.mark.parametrize("count", ["-1", "0", "two"])
def test_processes_are_counted_from_one(run, capsys, count):
    """Anything else is told as it was written."""
    with pytest.raises(SystemExit):
        run("whatif", "--catalog", "draft.yaml", "--processes", count)
    assert f"Expected a whole number, 1 or more, got `{count}`" in capsys.readouterr().err


def test_a_draft_is_tried_and_told_as_tables(run, busy_home, tmp_path):
    """Value, shares, who gets nothing, rules by what they drop."""
    document = yaml.safe_load((busy_home / "busy.yaml").read_text())
    document["groups"][2]["lever"] = 5
    (tmp_path / "draft.yaml").write_text(yaml.safe_dump(document))
    code, out, _ = run("whatif", "--catalog", str(tmp_path / "draft.yaml"), "--processes", "1")
    assert code == 0
    for words in ("3,000 logged decisions", "click a first item, the draft", "gold_card", "membership", "no_open_complaint"):
        assert words in out
    code, out, _ = run("whatif", "--catalog", str(tmp_path / "draft.yaml"), "--processes", "1", "--json")
    assert json.loads(out)["decisions"] == 3000


def test_a_draft_with_mistakes_or_that_is_not_there_is_an_error(run, tmp_path):
    """Every mistake with its line."""
    (tmp_path / "draft.yaml").write_text("catalog: 1\nissues: []\n")
    code, _, err = run("whatif", "--catalog", str(tmp_path / "draft.yaml"))
    assert code == 1
    assert "Expected key `actions`" in err
    code, _, err = run("whatif", "--catalog", str(tmp_path / "none.yaml"))
    assert code == 1
    assert "Expected a readable catalog" in err


def test_experiments_are_told_with_a_picture_of_each_difference(run):
    """The first arm has none: it is what others are compared with."""
    code, out, _ = run("experiments")
    assert code == 0
    for words in ("levels: click per decision", "as_it_is", "chance", "│"):
        assert words in out
    _, out, _ = run("experiments", "--json")
    assert [arm["arm"] for arm in json.loads(out)[0]["arms"]] == ["as_it_is", "chance"]


def test_an_evaluation_of_an_outcome_that_nobody_logged_is_refused(run):
    """It told 0 of every policy, as if it had been measured."""
    code, _, err = run("evaluate", "--objective", "clik")
    assert (code, "Expected an objective among the outcomes (" in err) == (1, True)


@pytest.mark.parametrize("command", [["experiments"], ["whatif", "--catalog", "busy.yaml", "--processes", "1"]])
def test_an_outcome_that_nobody_logged_is_refused_and_one_by_its_value_is_counted(run, busy_home, command):
    """A misspelt one would bring 0.0 as if it had been counted; `value:` names the same outcome, which is counted."""
    arguments = [str(busy_home / part) if part.endswith(".yaml") else part for part in command]
    for wanted in ("clik", "value:clik"):
        code, _, err = run(*arguments, "--objective", wanted)
        assert code == 1
        assert "Expected an objective among the outcomes (" in err
        assert f"got `{wanted}` - at `--objective`" in err
    assert run(*arguments, "--objective", "value:click", "--json") == run(*arguments, "--json")


def test_a_bundle_is_promoted_beside_the_champion_for_its_own_objective(own_home, capsys):
    """What a placement that weighs several objectives then uses."""
    assert main(["--home", str(own_home), "promote", "--beside", "--why", "clicks too"]) == 0
    assert "predicts `click` beside the champion" in capsys.readouterr().out
    registry = Registry(own_home / "registry")
    assert registry.current().others == {"click": registry.bundles()[0]}
    assert registry.current().champion is None
