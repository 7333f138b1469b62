"""What a draft would have made of the log: counted, and valued by what was logged."""

import shutil

import msgspec
import numpy as np
import pytest
import yaml

from service.decision.again import request_of
from service.decision.experiments import HOLDOUT, Assigned
from service.decision.records import OutcomeRecord
from service.errors import BundleRefused, CatalogInvalid, NotReady, RegistryError
from service.registry import Registry
from tests.conftest import SHOP_ENDS, WEEK
from tests.unit.training.conftest import write_log
from training.decision_log import read_decisions, read_decisions_of
from training.left_out import LeftOut
from training.live_log import read_log, sources, write_segment
from training.off_policy import mean_interval
from training.simulate import probabilities
from training.tallies import parts_of, tally_part
from training.whatif import GONE, Draft, build, value_of, what_if


def draft_of(home, change=None) -> Draft:
    document = yaml.safe_load((home / "busy.yaml").read_text())
    if change is not None:
        change(document)
    return Draft(document, Registry(home / "registry").current().champion)


@pytest.fixture(scope="module")
def unchanged(busy_home):
    return what_if(busy_home, draft_of(busy_home), "click", processes=1)


def test_a_draft_that_changes_nothing_would_have_made_the_same_choices(unchanged):
    """Outside of the experiment every choice is the same; inside it, those of the arm that changes nothing."""
    assert (unchanged.decisions, unchanged.unknown_placements) == (3000, 0)
    differences = [abs(unchanged.actions.logged.get(a, 0) - share) for a, share in unchanged.actions.drafted.items()]
    assert max(differences) < 0.1
    assert sum(unchanged.actions.drafted.values()) == pytest.approx(1.0, abs=1e-4)
    assert unchanged.channels.logged == unchanged.channels.drafted


def test_who_was_held_out_counts_on_neither_side(own_busy_home, unchanged):
    """They got the fallback whatever the catalog said: the same draft would not show them more."""
    first = next(read_decisions(own_busy_home)).record
    placement = first.placements[0]
    item = msgspec.structs.replace(
        placement.items[0], action_id="welcome", predicted_rate=0.0, utility=0.0, choice_probability=1.0
    )
    nothing = msgspec.structs.replace(placement, items=(item,), fallback=True, candidates=(), dropped={})
    held = [
        msgspec.structs.replace(first, decision_id=f"held-{n}", placements=(nothing,), experiment=Assigned(HOLDOUT, HOLDOUT))
        for n in range(200)
    ]
    write_segment(own_busy_home, "decisions", "other", held, 1e11)
    found = what_if(own_busy_home, draft_of(own_busy_home), "click", processes=1)
    assert found.held_out == 200
    assert msgspec.structs.replace(found, held_out=0) == unchanged


def test_its_value_is_the_true_one_within_twice_the_interval(busy_home, shop, unchanged):
    """The truth of the shop, for the draft's own probabilities, on the decisions that were logged with an offer."""
    records = [logged.record for logged in read_decisions(busy_home)]
    moments = shop.moments(len(records), SHOP_ENDS, SHOP_ENDS + WEEK, seed=9)
    shown = np.array([not record.placements[0].fallback for record in records])
    likely = probabilities(build(busy_home, draft_of(busy_home)), [request_of(record) for record in records])[shown]
    truth = float((likely * shop.rates(moments)[shown]).sum() / likely.sum())
    low, high = unchanged.value_drafted.ci
    assert abs(unchanged.value_drafted.value - truth) < high - low
    assert 100 < unchanged.effective_rows <= unchanged.rows
    assert not unchanged.doubts


def test_its_intervals_hold_the_truth_where_a_customers_decisions_go_together():
    """300 worlds of 100 customers with 40 decisions each, who seldom or nearly always respond: 95 of 100, as promised."""
    chance = np.random.default_rng(1)
    customers = np.repeat(np.arange(100, dtype=np.uint64), 40)
    held = 0
    for _ in range(300):
        rates = chance.choice([0.05, 0.95], 100, p=[0.7, 0.3])
        low, high = value_of((chance.random(4000) < np.repeat(rates, 40)).astype(float), customers).ci
        held += low <= 0.7 * 0.05 + 0.3 * 0.95 <= high
    assert 0.92 <= held / 300 <= 0.98


def test_they_are_over_the_customers_of_the_log(busy_home, unchanged):
    """Whoever was shown something counts once, however often it was: the same interval as from the records and outcomes alone."""
    shown = [logged.record for logged in read_decisions(busy_home) if not logged.record.placements[0].fallback]
    clicked = {outcome.decision_id for outcome in read_log(busy_home, "outcomes", OutcomeRecord) if outcome.type == "click"}
    customers = np.unique([record.customer_id for record in shown], return_inverse=True)[1]
    expected = mean_interval(np.array([float(record.decision_id in clicked) for record in shown]), customers)
    assert (unchanged.value_logged.value, *unchanged.value_logged.ci) == pytest.approx(tuple(expected), abs=2e-6)


def test_two_processes_count_what_one_counts(busy_home, unchanged):
    """The log is cut into stretches; what they add up to does not depend on where."""
    draft = draft_of(busy_home)
    engine = build(busy_home, draft)
    total = None
    for part in parts_of(sources(busy_home, "decisions"), 50_000):
        found = tally_part(engine, part, LeftOut(frozenset(), {}))
        if total is None:
            total = found
        else:
            total.add(found)
    assert total.decisions == 3000
    assert dict(total.dropped) == unchanged.dropped
    assert what_if(busy_home, draft, "click", processes=2) == unchanged


def test_a_decision_that_two_workers_wrote_counts_once(own_busy_home):
    """Wherever the second record lies: in a segment of its own, or beside the first; in one process and in two."""
    draft = draft_of(own_busy_home)
    once = what_if(own_busy_home, draft, "click", processes=1)
    records = [logged.record for logged in read_decisions(own_busy_home)]
    write_segment(own_busy_home, "decisions", "other", [*records[:900], *records[:900]], 1e11)
    assert [what_if(own_busy_home, draft, "click", processes=n) for n in (1, 2)] == [once] * 2


def test_ids_that_json_has_to_escape_are_told_apart(own_busy_home):
    """Quotes, backslashes and what is not ASCII, at any place: each counts, is found by its id, and counts once."""
    names = ['x"1', 'x"2', "x\\", "x\\\\", 'x\\"', '"', "x\n", "über", "x"]
    first = next(read_decisions(own_busy_home)).record
    records = [msgspec.structs.replace(first, decision_id=name) for name in names]
    shutil.rmtree(own_busy_home / "log" / "decisions")
    write_log(own_busy_home, [*records, *records[:3]])
    assert what_if(own_busy_home, draft_of(own_busy_home), "click", processes=1).decisions == len(names)
    assert [[r.decision_id for r in read_decisions_of(own_busy_home, {name})] for name in names[3:]] == [[n] for n in names[3:]]
    assert [r.decision_id for r in read_decisions_of(own_busy_home, names)] == [*names, *names[:3]]


def test_a_rule_that_is_added_tells_how_many_candidates_it_drops(busy_home, unchanged):
    """By its name; and those who now get nothing are counted by placement."""

    def nobody(document):
        document["issues"][0]["suitability"] = [{"nobody_at_all": "customer.age > 200"}]
        document["placements"][2]["accepts"] = ["offer"]
        for action in document["actions"]:
            for treatment in action["treatments"]:
                if action["kind"] == "content":
                    treatment["placements"] = ["home_hero", "app_card"]

    report = what_if(busy_home, draft_of(busy_home, nobody), "click", processes=1)
    assert report.dropped["nobody_at_all"] > 10_000
    assert report.nothing.drafted["mail_top"] == 1.0
    assert report.nothing.logged["mail_top"] < 0.5
    assert "sale" not in report.groups.drafted
    assert unchanged.groups.drafted["sale"] > 0.1


def test_what_the_draft_does_not_have_is_counted_as_gone(busy_home):
    """A placement's answers are left out, an action's group is called gone."""

    def smaller(document):
        document["placements"] = document["placements"][:2]
        document["actions"] = [a for a in document["actions"] if a["id"] != "gold_card"]
        for action in document["actions"]:
            for treatment in action["treatments"]:
                treatment["placements"] = [p for p in treatment["placements"] if p != "mail_top"]

    report = what_if(busy_home, draft_of(busy_home, smaller), "click", processes=1)
    assert report.unknown_placements > 100
    assert report.groups.logged[GONE] > 0
    assert "gold_card" not in report.actions.drafted


def test_a_draft_that_would_show_what_was_never_shown_is_doubted(busy_home):
    """No logged row speaks of it: the effective rows say so, and nobody is told a figure as if it were one."""

    def only_new(document):
        shown = {"id": "new_card", "placements": ["home_hero", "app_card", "mail_top"]}
        document["actions"] = [{"id": "brand_new", "group": "stories", "kind": "content", "value": 1, "treatments": [shown]}]
        document.pop("experiments")

    report = what_if(busy_home, draft_of(busy_home, only_new), "click", processes=1)
    assert report.effective_rows == 0
    assert report.doubts


def test_without_outcomes_there_is_no_value(busy_home):
    """An outcome nobody logged: all rows were seen, none was a success."""
    report = what_if(busy_home, draft_of(busy_home), "never_heard_of", processes=1)
    assert report.value_logged.value == 0.0


def test_bad_drafts_and_empty_logs_are_told(busy_home, trained_home):
    """A mistake in the catalog, an unknown bundle, nothing logged."""
    with pytest.raises(CatalogInvalid):
        what_if(busy_home, draft_of(busy_home, lambda d: d.pop("actions")), "click", processes=1)
    with pytest.raises((RegistryError, BundleRefused)):
        what_if(busy_home, Draft(draft_of(busy_home).document, "no-such-bundle"), "click", processes=1)
    with pytest.raises(NotReady, match="logged decisions"):
        what_if(trained_home, draft_of(busy_home), "click", processes=1)
