"""Learning a rate: the same rows give the same model, too few give none, and ids may be hidden."""

import msgspec
import numpy as np
import pytest

from service.bundles.manifest import Calibration
from service.errors import NotReady
from training.fit import VALIDATION_SHARE, _hide_identities, fit, margins
from training.scores import scores
from training.threads import FEW_ROWS

IDENTITY, PRICE = 2, 3  # columns of the tiny world
MANY_ROWS = round(FEW_ROWS / (1 - VALIDATION_SHARE)) + 100  # so that enough of them grow trees


@pytest.fixture
def learn(learning):
    """Fit the tiny world's columns with some settings changed."""

    def run(inputs, labels, progress=None, **changes):
        return fit(inputs, labels, learning.columns, msgspec.structs.replace(learning.settings, **changes), progress)

    return run


def test_the_same_rows_and_settings_give_the_same_model(learning, learn):
    """To the letter of LightGBM's own text, with hidden ids, and with so many rows that two threads learn from them."""
    for rows, rounds in ((2000, 20), (MANY_ROWS, 3)):
        inputs, labels, _ = learning.world(rows)
        settings = {"threads": 2, "identity_dropout": 0.3, "rounds": rounds}
        texts = {learn(inputs, labels, **settings).booster.model_to_string() for _ in range(3)}
        assert len(texts) == 1


def test_the_number_of_threads_changes_no_prediction(learning, learn):
    """A model may be trained again on another machine."""
    inputs, labels, _ = learning.world(MANY_ROWS)
    one, two = (learn(inputs, labels, threads=threads, rounds=3) for threads in (1, 2))
    assert [one.booster.params["num_threads"], two.booster.params["num_threads"]] == [1, 2]
    np.testing.assert_array_equal(one.rates(inputs), two.rates(inputs))


def test_few_rows_are_learned_by_one_thread(learning, learn):
    """Two would wait for each other, and for whoever else is at work on the machine."""
    inputs, labels, _ = learning.world()
    assert learn(inputs, labels, threads=2).booster.params["num_threads"] == 1


def test_predicted_rates_come_near_the_true_ones(learning, learn):
    """8,000 rows of a world with known rates: closer than the base rate by far."""
    inputs, labels, truth = learning.world(8000)
    fitted = learn(inputs, labels, rounds=100)
    fresh = learning.world(2000, seed=4)
    assert np.abs(fitted.rates(fresh.inputs) - fresh.rates).mean() < 0.05
    assert np.abs(truth.mean() - fresh.rates).mean() > 0.2


def labelled(rows: int, successes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows without information, successes spread evenly over them."""
    labels = np.zeros(rows)
    labels[np.linspace(0, rows - 1, successes).astype(int)] = 1.0
    return np.zeros((rows, 4), np.float32), labels


@pytest.mark.parametrize(("rows", "successes"), [(199, 100), (200, 19), (200, 181), (200, 0), (0, 0)])
def test_too_little_to_learn_from_is_refused_with_its_figures(learn, rows, successes):
    """One row, one success or one failure too few; the message says what there is."""
    with pytest.raises(NotReady, match=f"at least 200 rows with 20 .* found {rows} rows with {successes} successes"):
        learn(*labelled(rows, successes))


@pytest.mark.parametrize("successes", [20, 180])
def test_just_enough_to_learn_from_gives_a_model(learn, successes):
    """200 rows that say nothing: the model says the base rate, of the rows that it learned from, to everybody."""
    inputs, labels = labelled(200, successes)
    np.testing.assert_allclose(learn(inputs, labels).rates(inputs), labels[:160].mean(), atol=1e-9)


def test_few_successes_to_calibrate_on_leave_the_margin_as_it_is(learn):
    """Two numbers cannot be fitted to a handful of successes; there are 40 among 200 rows, but 8 in the last fifth."""
    inputs, labels = labelled(200, 40)
    assert labels[160:].sum() == 8
    assert learn(inputs, labels).calibration == Calibration(slope=1.0, intercept=0.0)


def test_figures_and_calibration_come_from_rows_that_no_tree_was_grown_on(learning, learn):
    """The last fifth: its mean rate is its base rate, also where the level has moved since."""
    inputs, labels, _ = learning.world()
    labels[800:] = np.maximum(labels[800:], np.arange(200) % 2)
    fitted = learn(inputs, labels)
    assert fitted.metrics == scores(labels[800:], fitted.rates(inputs[800:]))
    assert fitted.rates(inputs[800:]).mean() == pytest.approx(labels[800:].mean(), abs=1e-2)
    assert fitted.rates(inputs[800:]).mean() > labels[:800].mean() + 0.1


def test_rates_are_the_sigmoid_of_the_calibrated_margin(learning):
    """By hand, from the trees' own sum."""
    fitted, (inputs, *_) = learning.model(), learning.world()
    by_hand = 1 / (1 + np.exp(-(fitted.calibration.slope * margins(fitted.booster, inputs) + fitted.calibration.intercept)))
    np.testing.assert_allclose(fitted.rates(inputs), by_hand, rtol=1e-12)
    assert fitted.calibration != Calibration(slope=1.0, intercept=0.0)


def test_training_stops_when_unseen_rows_gain_nothing_any_more(learning, learn):
    """Labels by the toss of a coin: five rounds after the best one the patience is out, long before the last round."""
    inputs, told = learning.world().inputs, []
    labels = np.random.default_rng(1).integers(0, 2, len(inputs)).astype(float)
    fitted = learn(inputs, labels, lambda *step: told.append(step), rounds=300, patience=5)
    assert told[-1] == (fitted.rounds + 5, 300)
    assert fitted.rounds < 50


def test_progress_is_told_after_every_round(learning, learn):
    """Done so far, of so many at most."""
    inputs, labels, _ = learning.world()
    told = []
    learn(inputs, labels, lambda *step: told.append(step), rounds=7)
    assert told == [(done, 7) for done in range(1, 8)]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_identity_dropout_hides_ids_and_nothing_else_in_its_share_of_rows(learning, share):
    """20,000 rows: the share to within a percent, every other value untouched, and so are the rows that were given."""
    inputs = learning.world(20_000).inputs
    before = inputs.copy()
    hidden = _hide_identities(inputs, learning.columns, msgspec.structs.replace(learning.settings, identity_dropout=share))
    assert np.isnan(hidden[:, IDENTITY]).mean() == pytest.approx(share, abs=0.01 if 0.0 < share < 1.0 else 0.0)
    shown = ~np.isnan(hidden)
    assert np.delete(shown, IDENTITY, axis=1).all()
    np.testing.assert_array_equal(hidden[shown], before[shown])
    np.testing.assert_array_equal(inputs, before)


def test_an_id_that_is_all_that_is_known_of_an_action_is_never_hidden(learning):
    """Nothing could take its place; and without an id there is nothing to hide."""
    inputs = learning.world().inputs
    always = msgspec.structs.replace(learning.settings, identity_dropout=1.0)
    for columns in (learning.columns[:3], (*learning.columns[:2], learning.columns[3])):
        shown = inputs[:, : len(columns)]
        np.testing.assert_array_equal(_hide_identities(shown, columns, always), shown)


def test_where_ids_are_hidden_attributes_must_explain_them(learning, learn):
    """Price and id say the same here: with every id hidden the trees ask for the price, and find as much."""
    inputs, labels, _ = learning.world(4000)
    fitted = learn(inputs, labels, identity_dropout=1.0)
    splits = fitted.booster.feature_importance()
    assert splits[IDENTITY] == 0
    assert splits[PRICE] > 0
    assert fitted.metrics["auc"] == pytest.approx(learn(inputs, labels).metrics["auc"], abs=0.02)
