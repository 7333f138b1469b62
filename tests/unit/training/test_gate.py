"""What must hold of a bundle before it may serve."""

import re
import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from features.homes import home_contract
from service.catalog.entities import Holdout
from service.errors import BadRequest, NotReady
from service.registry import Registry
from tests.acceptance.rows.sabotage import QUICK, SABOTAGES, Sabotage, column_of, leak_found, learned, prepared, refused_because
from training.checks import Check
from training.evaluate import current_catalog, engine_of, evaluate, personalised
from training.examples import Objective, load_examples
from training.fit import FitSettings
from training.learn import Lesson
from training.learning_rules import FILE, LearningRules, read_rules
from training.promotion import promote_without_evidence
from training.simulate import World


@pytest.fixture
def guarded_home(own_home: Path) -> Path:
    """The shop, where its one bundle serves."""
    promote_without_evidence(own_home, Registry(own_home / "registry").bundles()[0], "for tests")
    return own_home


def checks(home: Path) -> dict[str, Check]:
    return {check.name: check for check in evaluate(home, "click").checks}


def test_an_honest_bundle_keeps_to_everything(own_home):
    """Eleven checks, each with what was found."""
    found = checks(own_home)
    assert list(found) == [
        "parity", "inputs", "age", "size", "latency", "fairness", "losses", "leak", "skill", "calibration", "segments"
    ]  # fmt: skip
    assert all(check.holds and check.told for check in found.values())


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda one: one.name.replace(" ", "_"))
def test_a_sabotaged_bundle_is_refused_with_its_reason(guarded_home, sabotage: Sabotage):
    """Whatever else is wrong with it, what was done to it is named."""
    reasons = refused_because(guarded_home, sabotage)
    assert [r for r in reasons if r.startswith(f"{sabotage.check}:") and sabotage.word in r], reasons


def test_an_input_that_was_filled_in_after_the_outcome_is_named(tmp_path):
    """It tells the outcome by itself."""
    assert "customer.nps" in leak_found(tmp_path / "leaking", 0)


def test_a_segment_that_no_row_has_is_named(own_home):
    """Misspelt, it would never be looked at."""
    (own_home / FILE).write_text('[gate]\nsegments = ["customer.regionn"]\n')
    assert checks(own_home)["segments"].told == "`customer.regionn` is declared in learning.toml, the rows do not have it"


def test_rows_of_those_whom_no_bundle_decides_for_judge_none(guarded_home):
    """Who is answered as if nobody knew them is not in the evidence, whatever their rows say of the others' rates."""
    registry, contract = Registry(guarded_home / "registry"), home_contract(guarded_home)
    half = msgspec.structs.replace(current_catalog(registry, contract), not_personalised=Holdout(0.5, "salt"))
    engine = engine_of(registry, contract, half, registry.bundles()[0])
    customers = np.unique(load_examples(guarded_home, Objective("click"), contract).customer_id)
    kept = personalised(customers, engine)
    assert kept.tolist() == [engine.assignment.is_personalised(name) for name in customers.tolist()]
    assert 0.3 < kept.mean() < 0.7


def test_where_no_bundle_decides_for_anybody_none_is_judged(guarded_home):
    """A catalog that personalises for nobody leaves no evidence."""
    draft = guarded_home / "draft.yaml"
    draft.write_text((guarded_home / "catalog.yaml").read_text() + "\nnot_personalised: {share: 1.0}\n")
    with pytest.raises(NotReady, match="Expected rows of customers for whom a bundle decides, found none among"):
        evaluate(guarded_home, "click", catalog=draft)


def test_a_group_that_is_offered_too_little_is_named(own_home):
    """Declared attributes are compared, numbers by thirds; a bound beyond what there is refuses."""
    (own_home / FILE).write_text('[gate]\nfairness = ["customer.region", "customer.age"]\nleast_exposure = 0.01\n')
    fair = checks(own_home)["fairness"]
    assert fair.holds
    assert "`customer.region`" in fair.told
    assert "-inf to" in fair.told
    (own_home / FILE).write_text('[gate]\nfairness = ["customer.region"]\nleast_exposure = 1.0\n')
    report = evaluate(own_home, "click")
    assert report.verdict == "refuse"
    assert any(reason.startswith("fairness: unfair by `customer.region`") for reason in report.reasons)
    (own_home / FILE).write_text('[gate]\nfairness = ["customer.shoe_size"]\n')
    assert "`customer.shoe_size` is declared" in checks(own_home)["fairness"].told


@pytest.fixture(scope="module")
def liking_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in which everybody likes one category, and says so by whether they take the newsletter; its champion serves."""

    def liked(log: pa.Table) -> pa.Table:
        categories = {action.id: action.attributes["category"] for action in World(1, 0).actions}
        likes = np.where(log["newsletter"].fill_null(0.0).to_numpy() > 0.5, "tech", "food")
        shown = np.array([categories[action] for action in log["action_id"].to_pylist()])
        often = np.where(log["visits_30d"].fill_null(0.0).to_numpy() > 3, 1.3, 0.6)
        clicks = np.random.default_rng(0).random(len(log)) < np.where(shown == likes, 0.6, 0.1) * often
        return log.set_column(log.column_names.index("click"), "click", pa.array(clicks.astype(float)))

    return prepared(tmp_path_factory.mktemp("liking") / "home", 0, spoil=liked)


def test_a_policy_that_neglects_one_segment_is_refused_though_its_rates_are_calibrated(liking_home):
    """Its actions were mixed up among the customers of the north: what is right of all of them is all that it knows of each."""

    def mixed_up(lesson: Lesson) -> Lesson:
        north = np.flatnonzero([region == "north" for region in lesson.learned.values["customer.region"].to_pylist()])
        actions = [place for place, column in enumerate(lesson.columns) if not column.is_of_request]
        inputs = lesson.inputs.copy()
        inputs[np.ix_(north, actions)] = inputs[np.ix_(np.random.default_rng(0).permutation(north), actions)]
        return lesson._replace(inputs=inputs)

    found = evaluate(liking_home, "click", learned(liking_home, mixed_up, QUICK))
    assert [check.name for check in found.checks if not check.holds] == ["losses"]
    [told] = [check.told for check in found.checks if check.name == "losses"]
    assert told.startswith("`customer.region` = north: loses 0.")
    assert told.endswith("; 10% may be")
    assert found.verdict == "refuse"


def test_an_honest_retrain_neglects_nobody(liking_home):
    """The same rows as they are, from another seed."""
    found = evaluate(liking_home, "click", learned(liking_home, lambda lesson: lesson, FitSettings(threads=2, seed=1)))
    [told] = [check.told for check in found.checks if check.name == "losses"]
    assert told.endswith("segments keep what they have")


def test_bounds_are_the_homes(own_home):
    """A model may be too large for a home that says so."""
    (own_home / FILE).write_text("[gate]\nmost_bytes = 100\nmost_ms = 0.0\n")
    found = checks(own_home)
    assert not found["size"].holds
    assert "100 may be" in found["size"].told
    assert not found["latency"].holds


def test_a_small_model_may_have_any_times_the_champions_size(guarded_home):
    """The first bundle of a home is a few kilobytes: that the next one learns more is no reason to worry."""
    bundle = learned(guarded_home, lambda lesson: lesson, QUICK)
    for bounds, holds in (("most_times = 0.5", True), ("most_times = 0.5\nsmall_bytes = 1000", False)):
        (guarded_home / FILE).write_text(f"[gate]\n{bounds}\n")
        [size] = [check for check in evaluate(guarded_home, "click", bundle).checks if check.name == "size"]
        assert size.holds is holds, size.told


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[gate]\nlevle = 1\n", r"Expected one of .*`level`.*, got `levle` - in `\[gate\]` - at"),
        (
            "[training]\nweigths = 1\n",
            r"Expected one of `weights`, `most`, `backfill`, `slot`, got `weigths` - in `\[training\]` - at",
        ),
        ("[windos]\n", r"Expected one of `windows`, .*, got `windos` - at"),
        ('[windows]\nclick = "soon"\n', "soon"),
        ('[windows]\nclick = "0d"\n', r"Expected a window longer than 0 s, got `0d` - at `windows.click` - at"),
        ("[gate", f"Expected TOML, .*{FILE}"),
    ],
)
def test_a_file_that_is_not_understood_is_refused(tmp_path, text, named):
    """With what was found, and where."""
    (tmp_path / FILE).write_text(text)
    with pytest.raises(BadRequest, match=named):
        read_rules(tmp_path)


def test_the_page_tells_the_bounds_as_they_are():
    """What people copy from it is what holds without a file, but for the two sections that are empty then."""
    page = (Path(__file__).parents[3] / "docs" / "learning.md").read_text()
    [block] = re.findall(r"```toml\n(\[windows\].*?)```", page, re.DOTALL)
    told = msgspec.convert(tomllib.loads(block), LearningRules)
    assert told == LearningRules(windows={"conversion": "7d"}, monotone={"customer.engagement": 1})


@pytest.mark.parametrize(
    ("bound", "check", "word"),
    [
        ("oldest_days = -100.0", "age", "stale: its newest row is"),
        ("segment_loss = -1.0", "losses", "a decision of"),
        ("auc_jump = -0.5", "leak", "AUC jumps from the champion's"),
        ("auc_alone = 0.5", "leak", "alone tells the outcome"),
        ("small_bytes = 0\nmost_times = 0.5", "size", "times the champion's"),
        ("most_times = 0.01", "latency", "times the champion's"),
    ],
)
def test_each_bound_refuses_what_is_beyond_it(guarded_home, bound, check, word):
    """A retrain that keeps to the usual ones."""
    bundle = learned(guarded_home, lambda lesson: lesson, QUICK)
    (guarded_home / FILE).write_text(f"[gate]\n{bound}\n")
    report = evaluate(guarded_home, "click", bundle)
    assert [r for r in report.reasons if r.startswith(f"{check}:") and word in r], report.reasons
    assert report.verdict == "refuse"


def test_without_a_champion_no_auc_is_believed_that_is_too_good(own_home):
    """There is nothing else to compare it with."""
    (own_home / FILE).write_text("[gate]\nauc_best = 0.5\n")
    assert checks(own_home)["leak"].told.startswith("leak? AUC")


def test_an_input_of_the_champion_that_is_gone_is_named(guarded_home):
    """Somebody forgot it."""

    def forgotten(lesson: Lesson) -> Lesson:
        place = [column.key for column in lesson.columns].index("customer.spend_12m")
        columns = (*lesson.columns[:place], *lesson.columns[place + 1 :])
        return lesson._replace(columns=columns, inputs=np.delete(lesson.inputs, place, axis=1))

    report = evaluate(guarded_home, "click", learned(guarded_home, forgotten, QUICK))
    assert any("`customer.spend_12m` is not among the inputs" in reason for reason in report.reasons)


def test_an_input_that_has_moved_far_is_named(guarded_home):
    """As wide as before, and somewhere else."""
    shifted = column_of("customer.age", lambda column: column + np.float32(40.0))
    report = evaluate(guarded_home, "click", learned(guarded_home, shifted, QUICK))
    assert any("`customer.age` has moved since" in reason for reason in report.reasons)


def test_a_window_is_the_outcomes_own(tmp_path):
    """Seconds, or none: then an outcome counts whenever it comes."""
    (tmp_path / FILE).write_text('[windows]\nconversion = "7d"\n')
    assert (read_rules(tmp_path).window("conversion"), read_rules(tmp_path).window("click")) == (7 * 86_400.0, None)


def test_a_bundle_of_before_is_judged_by_what_it_says(own_home):
    """Without a word on its rows, age and inputs hold, and say so."""
    [name] = Registry(own_home / "registry").bundles()
    path = own_home / "registry" / "bundles" / name / "manifest.json"
    manifest = msgspec.json.decode(path.read_bytes())
    del manifest["learned_until"], manifest["learned_inputs"]
    path.write_bytes(msgspec.json.encode(manifest))
    found = checks(own_home)
    assert (found["age"].holds, found["inputs"].holds) == (True, True)
    assert "does not say" in found["age"].told
    assert np.all([check.holds for check in found.values()])
