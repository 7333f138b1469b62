"""A published bundle is one that the service believes: it loads, says where it comes from, and no byte of it may change."""

import datetime as dt
import hashlib
import platform
from importlib.metadata import version

import lightgbm
import msgspec
import numpy as np
import pytest

from features.contract import Contract, Feature, fingerprint
from service.bundles.loading import load_bundle, read_manifest
from service.bundles.manifest import BOOSTER_FILE, MANIFEST_FILE, MODEL_FILE, PARITY_LIMIT, WARMUP_FILE, Split
from service.errors import BundleRefused, RegistryError
from service.registry import Pointer, Registry
from training.publish import WARMUP_ROWS, Provenance, publish_bundle, shares, summaries

CREATED = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
PROVENANCE = Provenance(
    objective="click", rows=1000, base_rate=0.4, action_rates={"a": 0.6, "b": 0.3}, action_rows={},
    split=Split("customer", 0.5, salt="s"),
    dataset_fingerprint="0123456789abcdef",
)  # fmt: skip


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.fixture(scope="module")
def fitted(learning):
    return learning.model()


@pytest.fixture(scope="module")
def inputs(learning):
    return learning.world().inputs


@pytest.fixture
def folder(registry, fitted, inputs):
    """Where a bundle that was just published lies."""
    return registry.bundle_folder(publish_bundle(registry, fitted, PROVENANCE, inputs, CREATED))


@pytest.fixture(scope="module")
def contract(learning) -> Contract:
    return Contract(tuple(c for c in learning.columns if c.scope != "action"))


def test_the_service_loads_what_was_published_and_predicts_the_same(folder, contract, fitted, inputs):
    """Checksums, contract and parity hold, and so do rates on rows that were not warmed up with."""
    bundle = load_bundle(folder, contract)
    np.testing.assert_allclose(bundle.model.rates(inputs), fitted.rates(inputs), atol=PARITY_LIMIT)


def test_the_id_says_what_is_predicted_when_it_was_made_and_which_model_it_is(folder):
    """Objective, time to the second, and the first six digits of the model's checksum."""
    digest = hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest()
    assert folder.name == f"click-20260102-030405-{digest[:6]}"


def test_a_published_bundle_does_not_serve(registry, folder):
    """It is stored, and the pointer stays where it was."""
    assert registry.bundles() == [folder.name]
    assert registry.current() == Pointer()


@pytest.mark.parametrize("name", [MODEL_FILE, WARMUP_FILE])
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_one_changed_byte_is_refused(folder, contract, name, place):
    """The first one, one in the middle, the last one."""
    data = bytearray((folder / name).read_bytes())
    data[int((len(data) - 1) * place)] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleRefused, match=f"Expected checksum .* at `{folder.name}/{name}`"):
        load_bundle(folder, contract)


def test_the_manifest_says_what_the_model_was_trained_for_and_on(folder, learning, fitted):
    """Provenance as it was given, inputs in order, figures and calibration as they were fitted."""
    manifest = read_manifest(folder)
    assert manifest.bundle_id == folder.name
    assert (manifest.created_at, manifest.objective, manifest.format) == ("2026-01-02T03:04:05+00:00", "click", 1)
    assert manifest.inputs == learning.columns
    assert manifest.contract_fingerprint == fingerprint(learning.columns)
    told = [name for name in Provenance.__struct_fields__ if name not in ("weighing", "left_out")]  # among settings and metrics
    assert {name: getattr(manifest, name) for name in told} == {name: getattr(PROVENANCE, name) for name in told}
    assert (manifest.calibration, manifest.seed) == (fitted.calibration, fitted.settings.seed)
    assert manifest.metrics == {**fitted.metrics, "trees": fitted.rounds}
    assert 0.0 < manifest.parity <= PARITY_LIMIT


def test_the_manifest_has_the_checksum_of_every_other_file(folder):
    """LightGBM's own text too, which the service never loads."""
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.name != MANIFEST_FILE}
    assert read_manifest(folder).files == found
    assert set(found) == {MODEL_FILE, WARMUP_FILE, BOOSTER_FILE}


def test_the_manifest_names_the_libraries_that_made_the_bundle(folder):
    """A difference between two machines starts with these."""
    libraries = read_manifest(folder).libraries
    assert libraries.pop("python") == platform.python_version()
    assert libraries == {name: version(name) for name in ("lightgbm", "onnx", "onnxruntime", "numpy")}


def test_the_text_model_is_the_reference_again(folder, fitted, inputs):
    """For an audit: LightGBM reads it, and with the manifest's calibration it gives the very same rates."""
    booster = lightgbm.Booster(model_str=(folder / BOOSTER_FILE).read_text())
    calibration = read_manifest(folder).calibration
    margins = booster.predict(inputs, raw_score=True)
    rates = 1 / (1 + np.exp(-(calibration.slope * margins + calibration.intercept)))
    np.testing.assert_allclose(rates, fitted.rates(inputs), rtol=1e-12)


@pytest.mark.parametrize("rows", [1, 10, 1000])
def test_warm_up_rows_are_real_ones_from_the_first_to_the_last_with_their_rates(registry, fitted, inputs, rows):
    """64 of them, spread evenly; fewer rows than that are repeated."""
    given = inputs[:rows]
    bundle = publish_bundle(registry, fitted, PROVENANCE, given, CREATED)
    with np.load(registry.bundle_folder(bundle) / WARMUP_FILE) as warmup:
        assert warmup["inputs"].shape == (WARMUP_ROWS, 4)
        np.testing.assert_array_equal(warmup["inputs"][[0, -1]], given[[0, -1]])
        np.testing.assert_array_equal(warmup["rates"], fitted.rates(warmup["inputs"]))


def test_the_same_model_at_the_same_second_is_not_stored_twice(registry, fitted, inputs, folder):
    """A bundle is never written again; a second later it is another bundle."""
    with pytest.raises(RegistryError, match=f"`{folder.name}` exists"):
        publish_bundle(registry, fitted, PROVENANCE, inputs, CREATED)
    later = publish_bundle(registry, fitted, PROVENANCE, inputs, CREATED + dt.timedelta(seconds=1))
    assert registry.bundles() == [folder.name, later]


def test_a_model_that_cannot_be_exported_leaves_nothing_behind(registry, learning):
    """Refused before anything is written."""
    codes = np.tile(np.arange(10, dtype=np.float32), 40)[:, None]
    with pytest.raises(BundleRefused):
        publish_bundle(registry, learning.trees(codes, codes[:, 0] % 2, zero_as_missing=True), PROVENANCE, codes, CREATED)
    assert registry.bundles() == []


@pytest.mark.parametrize("objective", ["../../etc", "a/b", "value:spend", "gefällt mir"])
def test_an_objective_of_any_name_makes_a_bundle_that_can_be_found_again(registry, fitted, inputs, objective):
    """Its id is a plain file name, whatever the outcome is called."""
    provenance = msgspec.structs.replace(PROVENANCE, objective=objective)
    bundle = publish_bundle(registry, fitted, provenance, inputs, CREATED)
    assert registry.bundles() == [bundle]
    assert read_manifest(registry.bundle_folder(bundle)).objective == objective


def test_an_input_that_is_nearly_always_the_same_has_a_bin_for_what_it_is():
    """A flag that nineteen of twenty have: where they all lose it, or have another number, the shares are others."""
    flag = Feature("vip", "number", "profile")
    then = np.where(np.arange(2000) % 20 == 0, 0.0, 1.0).astype(np.float32)[:, None]
    found = summaries((flag,), then)["customer.vip"]
    assert found.shares == pytest.approx((0.05, 0.95, 0.0))
    for now in (0.0, 0.5, 2.0):
        assert shares(np.full(100, now, np.float32), np.array(found.edges, np.float32)).max() == 1.0
        assert shares(np.full(100, now, np.float32), np.array(found.edges, np.float32))[1] == 0.0
