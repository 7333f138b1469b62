"""The slot as an input: a log in which whoever stands low is seen less often, and the better ones mostly stood low."""

import importlib.util
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from features.contract import MOST_SLOTS, SLOT, Feature
from features.homes import home_contract
from service.bundles.loading import load_bundle
from service.cli import main
from service.decision.decide import decide
from service.decision.records import ShadowPlacement, ShadowRecord
from service.errors import BadRequest
from service.registry import Registry
from tests.unit.training.conftest import write_log
from tests.unit.training.lists import (
    ACTIONS,
    CONTRACT,
    CUSTOMERS,
    EXAMINED,
    GLAD,
    QUICK,
    SAD,
    asked,
    learned,
    manifest_of,
    moods,
    order,
    outcomes,
    popular,
    served_rates,
    world,
)
from training.batch import serving_engine
from training.cards import slots_told
from training.contributions import contributions
from training.evaluate import current_catalog, engine_of, evaluate
from training.examples import Objective, load_examples
from training.learn import Manner, learn, prepare
from training.learning_rules import FILE, read_rules
from training.live_log import write_segment
from training.policies import chunks
from training.promotion import promote, promote_without_evidence
from training.report_figures import figures
from training.shadowing import shadow_report
from training.slots import SlotRates, with_slot


class Listed(NamedTuple):
    """30,000 lists of three, a bundle that knows slots, and one that ignores them; neither serves."""

    home: Path
    knowing: str
    blind: str


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Listed:
    """Leave it as it is."""
    home = world(tmp_path_factory.mktemp("listed") / "home")
    blind, knowing = learned(home, "ignore"), learned(home)
    return Listed(home, knowing, blind)


@pytest.fixture
def own_listed_home(listed: Listed, tmp_path: Path) -> Path:
    """A copy, to change."""
    return Path(shutil.copytree(listed.home, tmp_path / "home"))


def test_without_the_slot_the_order_is_wrong_and_with_it_right(listed):
    """And what is predicted is near what the first slot brings, with the slots' shares near how often they are looked at."""
    wrong, right = served_rates(listed.home, listed.blind), served_rates(listed.home, listed.knowing)
    assert [order(wrong, who)[0] for who in (0, 1)] == ["bronze", "bronze"]
    assert order(right, 0)[0] == "gold"
    assert order(right, 1) == ["silver", "bronze", "gold"]
    for place, action in enumerate(ACTIONS):
        assert right[action] == pytest.approx([GLAD[place], SAD[place]], abs=0.04)
    off = [abs(wrong[action][0] - GLAD[place]) for place, action in enumerate(ACTIONS)]
    assert max(off) > 0.2
    metrics = manifest_of(listed.home, listed.knowing).metrics
    assert [metrics["slot.2"], metrics["slot.3"]] == pytest.approx(EXAMINED[1:], abs=0.04)


def test_the_bundle_says_what_slots_bring(own_listed_home, listed, capsys):
    """When it is trained and among the models; one that ignores slots says nothing of them."""
    (own_listed_home / FILE).write_text('[training]\nslot = "input"\n')
    assert main(["--home", str(own_listed_home), "train", "--objective", "click", "--threads", "1"]) == 0
    *_, told, bundle = capsys.readouterr().out.splitlines()
    metrics = manifest_of(own_listed_home, bundle).metrics
    second, third = metrics["slot.2"], metrics["slot.3"]
    assert told == f"of what it brings in the first slot, an action brings {second:.0%} in slot 2, {third:.0%} in slot 3"
    assert main(["--home", str(own_listed_home), "models"]) == 0
    assert f"`{bundle}`: {told}" in capsys.readouterr().out
    assert slots_told(manifest_of(listed.home, listed.blind).metrics) == ""


def test_the_same_log_gives_the_same_bundle(own_listed_home, listed):
    """File by file, the figures of slots too."""
    first = manifest_of(own_listed_home, listed.knowing)
    shutil.rmtree(Registry(own_listed_home / "registry").bundle_folder(first.bundle_id))  # one id within a second
    second = manifest_of(own_listed_home, learned(own_listed_home))
    assert (first.files, first.metrics, first.inputs) == (second.files, second.metrics, second.inputs)
    assert [feature.key for feature in first.inputs] == ["customer.mood", "context.channel", "action.id", "slot"]


@pytest.mark.parametrize("lost", [False, True])
def test_a_log_with_one_slot_gives_the_bundle_that_ignores_slots(tmp_path, lost):
    """To the byte: where each list has one slot, and where nobody saw the later ones, which are no failures."""
    home = world(tmp_path / "home", 2000, 3 if lost else 1)
    if lost:
        mood = moods()
        records = decide(popular(), [asked(n, float(mood[n % CUSTOMERS])) for n in range(2000)])
        shutil.rmtree(home / "log")
        seen = {(r.decision_id, r.placements[0].items[0].action_id) for r in records}
        write_log(home, records, [one for one in outcomes(records) if (one.decision_id, one.action_id) in seen])
    assert len(load_examples(home, Objective("click"), CONTRACT)) == 2000
    ignoring = manifest_of(home, learned(home, "ignore"))
    shutil.rmtree(Registry(home / "registry").bundle_folder(ignoring.bundle_id))
    usual = manifest_of(home, learned(home))
    assert (usual.files, usual.metrics, usual.inputs) == (ignoring.files, ignoring.metrics, ignoring.inputs)
    assert SLOT not in usual.inputs


def test_slots_far_down_count_as_the_last_that_is_told_apart():
    """A log of lists without end has as many slots as any other long one."""
    columns = (
        Feature("mood", "number", "profile"),
        Feature("id", "category", "action"),
        Feature("id", "number", "match", matches="x"),
    )
    assert with_slot(columns, np.array([1, 2]), "input") == (*columns[:2], SLOT, columns[2])
    assert with_slot(columns, np.array([1, 2]), "ignore") == columns
    assert with_slot(columns, np.array([MOST_SLOTS, MOST_SLOTS + 7]), "input") == columns


def test_a_bundle_that_knows_slots_may_serve_and_is_explained(own_listed_home, listed):
    """From the log to the engine: proven, promoted, it puts first what is best for each, and says what the slot adds."""
    report = evaluate(own_listed_home, "click", listed.knowing)
    assert [check for check in report.checks if not check.holds] == []
    assert report.verdict == "promote"
    uniform = report.policies["uniform"].estimators or {}
    assert uniform["dm"] == pytest.approx(uniform["dr"], abs=0.02)  # what rows bring in their slots: in the first it is 0.3
    promote(own_listed_home, report)
    engine = serving_engine(own_listed_home)
    glad, sad = decide(engine, [asked(1, 1.0), asked(2, -1.0)])
    assert [record.placements[0].utilities.index(max(record.placements[0].utilities)) for record in (glad, sad)] == [
        record.placements[0].candidates.index(best) for record, best in ((glad, "gold"), (sad, "silver"))
    ]
    registry, manifest = Registry(own_listed_home / "registry"), manifest_of(own_listed_home, listed.knowing)
    found = contributions(registry, manifest, glad, "gold", {})
    [slot] = [one for one in found if one.name == "slot"]
    assert slot.value == 1.0
    assert slot.margin > 0.2
    rate = glad.placements[0].predicted_rates[glad.placements[0].candidates.index("gold")]
    assert 1 / (1 + np.exp(-sum(one.margin for one in found))) == pytest.approx(rate, abs=1e-6)
    assert main(["--home", str(own_listed_home), "report", "--out", str(own_listed_home / "report.html")]) == 0


def test_it_takes_the_place_of_a_champion_that_ignores_slots_and_is_followed_by_one(own_listed_home, listed):
    """Neither the input nor what it tells of the outcome is held against it, nor its absence against the next."""
    for champion, challenger in ((listed.blind, listed.knowing), (listed.knowing, listed.blind)):
        promote_without_evidence(own_listed_home, champion, "for tests")
        held = {check.name: check.holds for check in evaluate(own_listed_home, "click", challenger).checks}
        assert (held["inputs"], held["leak"], held["calibration"], held["segments"]) == (True, True, True, True)


def test_how_much_the_slot_alone_tells_is_no_leak(own_listed_home, listed):
    """Other inputs that tell the outcome are named, it is not: who stands low is known beforehand."""
    (own_listed_home / FILE).write_text("[gate]\nauc_alone = 0.51\n")
    [leak] = [check for check in evaluate(own_listed_home, "click", listed.knowing).checks if check.name == "leak"]
    assert "`action.id` alone" in leak.told
    assert "`slot`" not in leak.told


def test_lists_that_are_shorter_than_they_were_are_no_other_input(tmp_path):
    """Learned from three slots, and served one: the gate does not take that for another column."""
    home, mood = world(tmp_path / "home", 2000), moods()
    records = decide(popular(), [asked(n, float(mood[n % CUSTOMERS]), 1) for n in range(2000, 8000)])
    write_log(home, records, outcomes(records))
    bundle = learned(home)
    assert manifest_of(home, bundle).split.by == "time"
    assert {check.name: check.told for check in evaluate(home, "click", bundle).checks}["inputs"] == "4 inputs look as they did"


def test_to_tell_slots_apart_is_no_skill(own_listed_home):
    """A bundle that knows nothing but slots would serve the same rate for everything: it is refused."""
    lesson = prepare(own_listed_home, "click")
    inputs = lesson.inputs.copy()
    inputs[:, :-1] = np.nan
    bundle = learn(own_listed_home, lesson._replace(inputs=inputs), Manner(QUICK)).bundle
    [skill] = [check for check in evaluate(own_listed_home, "click", bundle).checks if check.name == "skill"]
    assert not skill.holds
    assert skill.told.startswith("constant: ")
    assert skill.told.endswith("for every row of a slot")


def test_rows_are_expected_to_bring_what_their_slot_does(listed):
    """What estimators take for the served action is the model's word on the row as it was learned from."""
    home, bundle, _ = listed
    registry, contract = Registry(home / "registry"), home_contract(home)
    catalog, manifest = current_catalog(registry, contract), manifest_of(home, bundle)
    engine = engine_of(registry, contract, catalog, bundle)
    rows = load_examples(home, Objective("click"), contract).take(np.arange(300))
    [chunk] = chunks(rows, engine)
    first = engine.scorer.score(engine.encoders["primary"].encode([r.customer.values for r in chunk.requests], [{}] * 300))
    own = SlotRates(lambda slot: engine_of(registry, contract, catalog, bundle, slot=slot))
    found = own.rates(chunk, rows.slot[chunk.rows], first)[np.arange(300), chunk.served]
    model = load_bundle(registry.bundle_folder(bundle), contract).model
    expected = model.rates(rows.matrix(manifest.inputs, {}))[chunk.rows]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - first[np.arange(300), chunk.served]).max() > 0.05


def test_values_and_uplifts_know_slots_too(tmp_path):
    """Both parts of a value, which keeps to the gate's calibration; and what an action changes is less where few look at it."""
    home = world(tmp_path / "home", values=True)
    value = manifest_of(home, learned(home, objective="value:click"))
    assert SLOT in value.inputs
    assert [value.metrics["slot.2"], value.metrics["slot.3"]] == pytest.approx(EXAMINED[1:], abs=0.05)
    assert {check.name: check.holds for check in evaluate(home, "value:click", value.bundle_id).checks}["calibration"]
    uplift = manifest_of(home, learned(home, uplift=True))
    assert SLOT in uplift.inputs
    assert not [name for name in uplift.metrics if name.startswith("slot.")]
    first, third = (served_rates(home, uplift.bundle_id, slot)["gold"][0] for slot in (1, 3))
    assert first == pytest.approx(GLAD[0] - GLAD[2], abs=0.05)
    assert third < first / 2


@pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="optuna is not installed: pip install 'nextbest[tuning]'")
def test_a_search_tries_what_will_be_learned(own_listed_home):
    """With the slot among the inputs; what it finds tells slots apart."""
    found = manifest_of(own_listed_home, learned(own_listed_home, trials=1))
    assert found.metrics["slot.3"] == pytest.approx(EXAMINED[2], abs=0.05)


def test_learning_toml_may_say_that_later_slots_never_bring_more(own_listed_home):
    """Nobody is held to it without being asked; where the log has no slots, or they are ignored, it is asked in vain."""
    (own_listed_home / FILE).write_text("[monotone]\nslot = -1\n")
    lesson = prepare(own_listed_home, "click")
    assert lesson.monotone == {"slot": -1}
    bundle = learn(own_listed_home, lesson, Manner(QUICK)).bundle
    assert manifest_of(own_listed_home, bundle).settings["monotone.slot"] == -1.0
    rates = [served_rates(own_listed_home, bundle, slot)["silver"] for slot in (1, 2, 3, 4)]
    assert (np.diff(rates, axis=0) <= 0.0).all()
    (own_listed_home / FILE).write_text('[monotone]\nslot = -1\n[training]\nslot = "ignore"\n')
    assert prepare(own_listed_home, "click").monotone == {}


def test_another_word_for_what_becomes_of_slots_is_refused(tmp_path):
    """With what was expected, and where."""
    (tmp_path / FILE).write_text('[training]\nslot = "inputs"\n')
    with pytest.raises(BadRequest, match=r"Invalid enum value 'inputs' - at `\$.training.slot` - at"):
        read_rules(tmp_path)


def test_a_report_holds_predictions_to_their_word_where_they_were_made_for(own_listed_home, listed):
    """What the first slot brings is compared with first slots alone."""
    bundle = listed.knowing
    promote_without_evidence(own_listed_home, bundle, "for tests")
    mood = moods()
    records = decide(serving_engine(own_listed_home), [asked(n, float(mood[n % CUSTOMERS])) for n in range(40_000, 44_000)])
    write_log(own_listed_home, records, outcomes(records))
    found = figures(own_listed_home).deciles
    assert sum(decile.observed.rows for decile in found) == sum(record.versions.bundle == bundle for record in records) > 3900
    assert np.mean([d.predicted for d in found]) == pytest.approx(np.mean([d.observed.interval.value for d in found]), abs=0.03)


@pytest.mark.parametrize(("knowing", "slots"), [(False, 3), (True, 1)])
def test_a_shadow_is_compared_where_its_predictions_are_for(own_listed_home, listed, knowing, slots):
    """Where either of the two predicts what the first slot brings, later ones say nothing of which is nearer."""
    bundle = listed.knowing if knowing else listed.blind
    promote_without_evidence(own_listed_home, bundle, "for tests")
    records = decide(serving_engine(own_listed_home), [asked(n, 1.0) for n in range(50_000, 51_000)])
    write_log(own_listed_home, records, outcomes(records))
    placements = [record.placements[0].items for record in records]
    told = [
        ShadowRecord(record.decision_id, bundle, record.at, 0.5, True, (ShadowPlacement(
            "list", tuple(i.action_id for i in items), (), tuple(i.predicted_rate for i in items)),))
        for record, items in zip(records, placements, strict=True)
    ]  # fmt: skip
    write_segment(own_listed_home, "shadows", "test", told, told[0].at)
    rows = slots * sum(record.versions.bundle == bundle for record in records)
    assert shadow_report(own_listed_home, bundle, 1e11).rows == rows > 900
