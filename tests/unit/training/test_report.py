"""The figures of a report against worlds with an obvious answer, and a page that holds them."""

import re
import shutil
import xml.etree.ElementTree as ET

import msgspec
import numpy as np
import pytest

from features.homes import home_contract
from service.catalog.entities import Exploration, Fallback, Holdout, Placement
from service.cli import main
from service.decision.experiments import HOLDOUT, Assigned, Assignment
from service.errors import NotReady
from service.registry import Registry
from tests.unit.training.conftest import write_log
from training.decision_log import read_decisions
from training.experiments import MISMATCH
from training.off_policy import Interval, Rows
from training.report_counts import DAY, Answers, Served, effective_actions, periods
from training.report_figures import Figures, claim, figures, lifts
from training.report_holdout import Holdouts, Shares
from training.report_loop import Floors, loop, share_interval, starved
from training.report_page import mix, page
from training.report_pictures import Point, Series, _ticks, calibration, dots, lines, number, stacked

FALLBACK = Fallback("none", "none", "nothing", {})
HOME = {"home": Placement("home", "web", 1, ("offer",), FALLBACK, Exploration(epsilon=0.2))}


def served(actions, *, candidates=("a", "b"), explored=False, days=8) -> Served:
    """First slots spread evenly over some days."""
    count = len(actions)
    return Served(
        np.linspace(0, days * DAY - 1, count), np.repeat("home", count), np.array(actions, np.str_), np.full(count, explored),
        np.zeros(count, np.bool_), (candidates,) * count,
    )  # fmt: skip


def answers(chance, lift: float, customers: int = 4000, money: float = 10.0) -> Answers:
    """One in ten is in the holdout; the others succeed more often by `lift`."""
    held = np.arange(customers) % 10 == 0
    success = (chance.random(customers) < np.where(held, 0.1, 0.1 + lift)).astype(float)
    return Answers(
        np.arange(customers, dtype=float), np.array([f"c{n}" for n in range(customers)]), np.ones(customers, np.intp),
        np.where(held, HOLDOUT, ""), held.astype(float), ((),) * customers, success, {"purchase": money * success},
    )  # fmt: skip


@pytest.mark.parametrize(("span", "length", "number"), [(3600 * 5, 3600, 6), (DAY * 10, DAY, 11), (DAY * 60, 7 * DAY, 9)])
def test_time_is_cut_into_what_people_call_by_name(span, length, number):
    """Hours, days, weeks: the shortest that are 24 at most; every moment lies in one."""
    found = periods(0.0, span)
    assert (found.length, len(found.starts)) == (length, number)
    assert found.of(np.array([0.0, span])).tolist() == [0, number - 1]


@pytest.mark.parametrize(("counts", "expected"), [([5, 5, 5, 5], 4.0), ([7, 0], 1.0), ([0, 0], 0.0), ([3, 1], 1.7548)])
def test_the_effective_number_of_actions_is_the_exponential_of_entropy(counts, expected):
    """Four alike are four, one alone is one."""
    assert effective_actions(np.array(counts, float)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("successes", "rows", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634)])
def test_a_share_has_the_interval_of_wilson(successes, rows, low, high):
    """Known figures; never outside of 0 and 1, and never without width."""
    assert share_interval(successes, rows)[1:] == pytest.approx((low, high), abs=1e-4)
    assert share_interval(0, 0)[1:] == (0.0, 1.0)


def test_few_customers_few_successes_and_one_heavy_row_carry_no_claim():
    """Each with its sentence."""
    many = np.array([f"c{n}" for n in range(400)])
    assert claim("x", np.tile([0.0, 1.0], 200), many).doubt == ""
    assert "99 customers" in claim("x", np.ones(99), many[:99]).doubt
    assert "3 successes" in claim("x", np.r_[np.ones(3), np.zeros(397)], many).doubt
    judged = Rows(np.r_[1000.0, np.ones(399)], *np.ones((3, 400)))
    assert "effective sample size" in claim("x", np.ones(400), many, judged).doubt
    assert "successes" in claim("x", np.ones(400), many, Rows(*np.ones((1, 400)), *np.zeros((3, 400)))).doubt
    assert claim("x", np.zeros(0), many[:0]).doubt == "no rows"


def test_the_lift_is_told_in_money_over_all_decisions():
    """A tenth more successes of ten each: one a decision, 3,600 in all; the intervals hold that and exclude zero."""
    found = {one.kind: one for one in lifts(answers(np.random.default_rng(1), 0.1), Shares(0.1))}
    money = found["purchase"]
    assert money.each.low < 1.0 < money.each.high
    assert money.total == pytest.approx(tuple(3600 * end for end in money.each))
    assert money.each.low > 0
    assert money.planned > 0.5
    assert found["successes"].each.value == pytest.approx(money.each.value / 10)


def test_a_holdout_of_another_size_than_planned_is_noticed():
    """A tenth where a half was planned; and nobody in a holdout is no lift."""
    told = answers(np.random.default_rng(2), 0.0)
    assert lifts(told, Shares(0.5))[0].planned < 1e-6
    assert lifts(told._replace(arm=np.repeat("", 4000)), Shares(0.1)) == ()


def test_those_who_are_not_personalised_are_no_mismatch_of_the_holdout():
    """50,000 customers as they are really assigned, a tenth to the holdout, a twentieth of the others to neither side."""
    customers = np.array([f"c{n}" for n in range(50_000)])
    assignment = Assignment((), Holdout(0.1, "holdout"), Holdout(0.05, "not_personalised"))
    arms = [assigned.id if (assigned := assignment.of(name)) else "" for name in customers.tolist()]
    told = answers(np.random.default_rng(1), 0.1, 50_000)._replace(customer=customers, arm=np.array(arms))
    assert lifts(told, Shares(0.1, 0.05))[0].planned > MISMATCH
    assert lifts(told, Shares(0.1))[0].planned < MISMATCH


def test_a_lift_of_hardly_any_successes_is_in_doubt():
    """The holdout's 400 customers have none: four were to be expected, and the interval would know of the others alone."""
    told = answers(np.random.default_rng(1), 0.0)
    success = np.where(told.arm == "holdout", 0.0, (np.arange(4000) % 100 == 1) * 1.0)
    [found] = lifts(told._replace(success=success, worth={}), Shares(0.1))
    assert found.doubt == "too few outcomes: 5 customers of each group must have one or be expected to"


def published(home, *holdouts) -> tuple[Holdouts, list[int]]:
    """One catalog after the other, each with such a holdout; their revisions."""
    registry, revisions = Registry(home / "registry"), []
    document = registry.catalog(registry.current().catalog or 0).document
    for share in holdouts:
        planned = {**document, "holdout": {"share": share}} if share else document
        revisions.append(registry.publish_catalog(planned, fingerprint="f", author="a", note="n", at="2026-01-01T00:00:00Z"))
    return Holdouts(registry, home_contract(home)), revisions


def test_a_holdout_is_compared_with_whoever_could_have_been_in_it(own_busy_home):
    """Everybody succeeded before there was one, and after it: neither season counts, and both revisions of one plan do."""
    made, (before, first, same, after) = published(own_busy_home, None, 0.1, 0.1, 0.2)
    told = answers(np.random.default_rng(1), 0.0)
    catalog = np.repeat([before, first, same, after], 1000)
    is_another = np.isin(catalog, [before, after])
    told = told._replace(
        catalog=catalog, arm=np.where(is_another, "", told.arm), success=np.where(is_another, 1.0, told.success), worth={}
    )
    compared, shares = made.compared(told)
    assert shares == Shares(0.1, 0.01)
    assert compared.at.tolist() == told.at[1000:3000].tolist()
    [found] = lifts(compared, shares)
    assert found.each.low < 0.0 < found.each.high
    assert found.planned > MISMATCH
    assert lifts(told, shares)[0].each.low > 0.0
    elsewhere, unknown = made.compared(told._replace(catalog=np.where(is_another, before, 99)))
    assert (set(elsewhere.catalog.tolist()), unknown) == ({99}, Shares())


def test_a_holdout_that_nobody_is_in_is_noticed(own_busy_home, found):
    """Where there should be somebody among so many; not where there is none, or where nobody need be there yet."""
    made, (without, planned) = published(own_busy_home, None, 0.1)
    told = answers(np.random.default_rng(1), 0.0)._replace(arm=np.repeat("", 4000), catalog=np.repeat(planned, 4000))
    assert made.nobody(told, planned) < MISMATCH
    assert made.nobody(told._replace(customer=np.repeat(["a", "b"], 2000)), planned) > MISMATCH
    assert np.isnan(made.nobody(told, without))
    assert np.isnan(made.nobody(answers(np.random.default_rng(1), 0.0)._replace(catalog=told.catalog), planned))
    text = page(found._replace(nobody=made.nobody(told, planned)))
    assert "Nobody is in the holdout that the catalog declares" in text
    assert "Customers of the holdout are not shared out as planned" in text
    assert "Customers of the holdout" not in page(found._replace(nobody=0.5))


def test_a_holdout_that_nobody_is_in_is_told_beside_the_lift_of_one_of_before(own_busy_home, found):
    """A tenth worked; of the three tenths that came then nobody is there. How many are left out is told, too."""
    made, (tenth, more) = published(own_busy_home, 0.1, 0.3)
    told = answers(np.random.default_rng(1), 0.1)
    told = told._replace(catalog=np.repeat([tenth, more], 2000), arm=np.where(np.arange(4000) < 2000, told.arm, ""))
    counted = found.counted._replace(answers=told)
    text = page(found._replace(counted=counted, lifts=lifts(*made.compared(told)), nobody=made.nobody(told, more)))
    assert "Nobody is in the holdout that the catalog declares" in text
    assert "Customers of the holdout are not shared out as planned" in text
    assert "2,000 decisions are left out, of when the holdout was planned otherwise" in text


def test_an_action_that_gets_its_floor_is_no_warning():
    """A tenth of 2,000 at least, by epsilon: drawn so in 200 worlds, one false alarm at most."""
    chance, alarms = np.random.default_rng(3), 0
    for _ in range(200):
        rows = served(np.where(chance.random(2000) < 0.1, "b", "a"))
        alarms += bool(starved(rows, np.ones(2000, np.bool_), Floors(HOME, {})))
    assert alarms <= 1


def test_an_action_that_stopped_getting_its_floor_is_named():
    """Shown at first, and not in the newest quarter; where an action is mandatory nothing can be said."""
    rows = served([*["a", "b"] * 750, *["a"] * 500])
    times = periods(0.0, 8 * DAY - 1)
    [found] = loop(rows, times, Floors(HOME, {})).starved
    assert (found.action, found.shown) == ("b", 0)
    assert "`b` stopped getting its floor at `home`" in found.told
    assert loop(rows, times, Floors(HOME, {}, frozenset({"a"}))).starved == ()


def test_the_floor_of_actions_with_little_evidence_is_theirs_alone():
    """Of 1,000 choices, a floor of 0.3 over one of them: 300 and its share of epsilon."""
    explore = Exploration(epsilon=0.2, floor_share=0.3, floor_below=10)
    placed = {"home": msgspec.structs.replace(HOME["home"], explore=explore)}
    found = starved(served(["a"] * 1000), np.ones(1000, np.bool_), Floors(placed, {"home": frozenset({"b"})}))
    assert [(one.action, round(one.expected)) for one in found] == [("b", 370)]


def test_exploration_and_coverage_are_told_by_period():
    """Four actions could be shown, two are, and nothing is explored."""
    found = loop(served(["a", "b"] * 100, candidates=("a", "b", "c", "d")), periods(0.0, 8 * DAY - 1), Floors(HOME, {}))
    assert [one.actions for one in found.explored] == pytest.approx([2.0] * 8, rel=0.01)
    assert [one.share.value for one in found.explored] == [0.0] * 8
    assert found.coverage[0].shown == (0.5,) * 8


def test_shares_of_actions_add_up():
    """Nine actions: seven by name, and all others."""
    names, shares = mix(served(list("aaabcdefghi") * 8), periods(0.0, 8 * DAY - 1))
    assert names[0] == "a"
    assert names[-1] == "all others"
    assert shares.sum(axis=0) == pytest.approx(np.ones(8))


POINTS = [
    Point("mon & tue", 0.2, 0.1, 0.3),
    Point("<wed>", float("nan"), -np.inf, np.inf, carries=False),
    Point("thu", 0.4, 0.4, 0.4),
]


@pytest.mark.parametrize(
    "drawing",
    [
        lines("t", [Series("a", POINTS), Series("b", POINTS)]), dots("t", [Series("a", POINTS)]),
        stacked("t", ["x", "y"], ["one", "two"], np.array([[0.25, 0.0], [0.75, 0.0]])),
        calibration("t", [(0.1, POINTS[0]), (0.3, POINTS[2])]), lines("t", [Series("a", POINTS[1:2])]),
    ],
    ids=["lines", "dots", "stacked", "calibration", "nothing known"],
)  # fmt: skip
def test_every_picture_is_well_formed_and_draws_no_unknown_number(drawing):
    """Names are escaped, and no coordinate is `nan`."""
    ET.fromstring(drawing)  # noqa: S314  # our own drawing
    assert not re.search(r'="[^"]*\b(nan|inf)\b', drawing)


def test_a_mark_says_its_figures_and_is_hollow_where_they_do_not_carry():
    """What a pointer, or a reader of the text, finds."""
    drawing = lines("t", [Series("a", [Point("mon", 0.25, 0.2, 0.3), Point("tue", 0.5, 0.1, 0.9, carries=False)])])
    assert "<title>a, mon: 0.25 [0.2, 0.3]</title>" in drawing
    assert "tue: 0.5 [0.1, 0.9] (too little to tell)" in drawing
    assert drawing.count('fill="white"') == 1
    assert drawing.count("V") == 1  # an interval is drawn of the one that carries


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]), (-0.14, 0.0, [-0.1, -0.05, 0.0]), (3.0, 11.0, [4.0, 6.0, 8.0, 10.0])],
)
def test_ticks_are_round_numbers_within_the_span(low, high, expected):
    """As people write them on an axis."""
    assert _ticks(low, high) == expected


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (0.01234567, "0.01235"), (float("nan"), "unknown"), (-np.inf, "-∞")]
)
def test_numbers_have_the_digits_that_one_reads(value, text):
    """Thousands whole, others with four."""
    assert number(value) == text


@pytest.fixture(scope="session")
def found(busy_home) -> Figures:
    return figures(busy_home)


def test_the_busy_shop_is_told_as_it_is(found):
    """Three policies on the rows of the log; the champion beats chance; items that were served are calibrated roughly."""
    values = {policy.overall.name: policy.overall for policy in found.policies}
    assert list(values) == ["logged", "champion", "uniform"]
    assert values["champion"].interval.low > values["uniform"].interval.value
    assert found.gains[0].name == "champion over logged"
    assert found.gains[0].interval.low > 0
    assert all(one.interval.low <= 1.0 <= one.interval.high for one in found.mean_weights)
    assert len(found.deciles) == 10
    assert found.deciles[0].predicted < found.deciles[-1].predicted
    assert found.deciles[0].observed.interval.value < found.deciles[-1].observed.interval.value
    assert {report.id for report in found.experiments} == {"levels", "not_personalised"}
    assert found.lifts == ()


def test_an_experiment_of_which_everybody_got_one_arm_is_told_and_warned_of(own_busy_home):
    """As in a home where two arms were planned and the assignment of one is broken."""
    records = [logged.record for logged in read_decisions(own_busy_home)]
    shutil.rmtree(own_busy_home / "log" / "decisions")
    taken = Assigned("levels", "as_it_is")
    write_log(own_busy_home, [msgspec.structs.replace(r, experiment=taken) if r.experiment else r for r in records])
    found = figures(own_busy_home)
    report = next(one for one in found.experiments if one.id == "levels")
    assert [(arm.arm, arm.customers > 0) for arm in report.arms] == [("as_it_is", True), ("chance", False)]
    assert "Customers of levels are not shared out as planned" in page(found)


def test_the_page_holds_every_section_and_needs_nothing_else(found):
    """All drawings parse, the figures are there as text, and no address is fetched."""
    text = page(found)
    for heading in ("Value", "Lift over the holdout", "Calibration in production", "Feedback loop", "Drift since training"):
        assert f"<h2>{heading}</h2>" in text
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) > 8
    for drawing in drawings:
        ET.fromstring(drawing)  # noqa: S314  # our own drawing
        assert not re.search(r'="[^"]*\b(nan|inf)\b', drawing)
    assert number(found.policies[0].overall.interval.value) in text
    assert "Nobody is in a holdout" in text
    assert not re.search(r'(src|href)="(?!#)', text)
    assert "<script" not in text
    assert page(found) == text


def test_a_holdout_is_told_in_words(found):
    """Money with its interval, or that the customers are too few."""
    chance = np.random.default_rng(4)
    text = page(found._replace(lifts=lifts(answers(chance, 0.1), Shares(0.1))))
    assert "more value of <code>purchase</code> than if everybody were in the holdout" in text
    few = found._replace(lifts=lifts(answers(chance, 0.1, customers=500), Shares(0.1)))
    assert "50 customers in the smaller group, at least 100 are needed" in page(few)


def test_wrong_weights_are_a_warning(found):
    """Where the logged probabilities cannot be right."""
    wrong = found.mean_weights[0]._replace(interval=Interval(1.3, 1.2, 1.4))
    assert "they would average 1" in page(found._replace(mean_weights=(wrong,)))


def test_the_command_writes_one_file(busy_home, tmp_path, capsys):
    """Where it was told to; and says that there is nothing in a time to come."""
    path = tmp_path / "new" / "report.html"
    assert main(["--home", str(busy_home), "report", "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert path.read_text().startswith("<!doctype html>")
    assert main(["--home", str(busy_home), "report", "--since", "2999-01-01", "--out", str(path)]) == 1
    assert "in this time, found none" in capsys.readouterr().err


def test_without_a_champion_there_is_no_report(trained_home):
    """What to do is said."""
    with pytest.raises(NotReady, match="nextbest promote"):
        figures(trained_home)
