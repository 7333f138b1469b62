"""Trainings in MLflow: one run per bundle, the verdict on it, and a version of a model for what serves."""

import importlib.util
from pathlib import Path

import pytest

from service.bundles.loading import read_manifest
from service.cli import main
from service.errors import NotReady
from service.registry import Registry
from training.trackers import NoTracker, Told, open_tracker

mlflow_there = importlib.util.find_spec("mlflow") is not None
needs_mlflow = pytest.mark.skipif(not mlflow_there, reason="MLflow is not installed: pip install 'nextbest[mlflow]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),  # MLflow's own use of SQLAlchemy
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),  # it keeps its connections until the end
]
PNG = b"\x89PNG"


def client_of(home):
    """MLflow's own client of the store in a home."""
    module = importlib.import_module("mlflow.tracking")
    uri = f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
    return module.MlflowClient(uri, uri)


def runs(home):
    client = client_of(home)
    return client.search_runs([client.get_experiment_by_name("nextbest").experiment_id])


def champion(home):
    return Registry(home / "registry").current().champion


@needs_mlflow
def test_a_training_is_a_run_with_settings_figures_pictures_and_the_bundle(own_home, capsys):
    """What MLflow has is what the manifest says, and the artifact is the bundle, file by file."""
    assert main(["--home", str(own_home), "train", "--objective", "click", "--seed", "5", "--mlflow"]) == 0
    bundle = capsys.readouterr().out.split()[-1]
    [run] = runs(own_home)
    folder = Registry(own_home / "registry").bundle_folder(bundle)
    manifest = read_manifest(folder)
    assert run.info.run_name == bundle
    assert run.info.status == "FINISHED"
    assert {name: run.data.metrics[name] for name in manifest.metrics} == manifest.metrics
    assert run.data.params["seed"] == "5.0"
    assert run.data.params["dataset_fingerprint"] == manifest.dataset_fingerprint
    kept = Path(run.info.artifact_uri.removeprefix("file://"))
    assert kept.is_relative_to(own_home)
    assert {p.name: p.read_bytes() for p in (kept / "bundle").iterdir()} == {p.name: p.read_bytes() for p in folder.iterdir()}
    assert all((kept / "plots" / name).read_bytes().startswith(PNG) for name in ("calibration.png", "importance.png"))


@needs_mlflow
def test_a_round_that_promotes_has_its_verdict_and_a_version_of_the_model(own_home, capsys):
    """The bundle was trained before anybody tracked: its run begins now. A second round without news adds nothing."""
    for _ in range(2):
        assert main(["--home", str(own_home), "retrain", "--objective", "click", "--mlflow"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    [run] = runs(own_home)
    assert run.data.tags["nextbest.bundle"] == champion(own_home)
    assert run.data.tags["nextbest.verdict"] == "promote"
    assert "gain over logged" in run.data.tags["nextbest.reasons"]
    assert run.data.tags["nextbest.check.parity"].startswith("holds: within")
    assert run.data.metrics["gain_over_logged_low"] > 0.0
    version = client_of(own_home).get_model_version_by_alias("nextbest-click", "champion")
    assert (version.run_id, version.tags) == (run.info.run_id, {"nextbest.bundle": champion(own_home)})


@needs_mlflow
def test_what_the_gate_keeps_back_is_no_version_of_the_model(own_home):
    """The run says why."""
    (own_home / "learning.toml").write_text("[gate]\nmost_bytes = 10\n")
    assert main(["--home", str(own_home), "retrain", "--objective", "click", "--mlflow"]) == 0
    [run] = runs(own_home)
    assert run.data.tags["nextbest.verdict"] == "refuse"
    assert run.data.tags["nextbest.check.size"].startswith("does not hold")
    assert list(client_of(own_home).search_registered_models()) == []


@needs_mlflow
def test_the_alias_follows_what_is_promoted_by_hand(own_home, capsys):
    """Two bundles, each promoted, the first one again: two versions, and the alias is on what serves."""
    old = Registry(own_home / "registry").bundles()[0]
    assert main(["--home", str(own_home), "train", "--objective", "click", "--seed", "1", "--mlflow"]) == 0
    new = capsys.readouterr().out.split()[-1]
    for bundle in (old, new, old):
        assert main(["--home", str(own_home), "promote", bundle, "--force", "--why", "for tests", "--mlflow"]) == 0
        version = client_of(own_home).get_model_version_by_alias("nextbest-click", "champion")
        assert version.tags["nextbest.bundle"] == champion(own_home) == bundle
    assert len(list(client_of(own_home).search_model_versions("name = 'nextbest-click'"))) == 2


@needs_mlflow
def test_a_run_that_was_cut_off_is_begun_anew(own_home):
    """It has no artifact for a version to point to: it is marked as failed, and what is told later goes to a whole one."""
    bundle, tracker = Registry(own_home / "registry").bundles()[0], open_tracker(own_home, "local")
    artifacts = own_home / "mlflow" / "artifacts"
    artifacts.touch()  # no folder: the run begins, and its files have no place
    with pytest.raises(NotReady):
        tracker.track(Told(bundle))
    [cut] = runs(own_home)
    artifacts.unlink()
    for _ in range(2):
        tracker.track(Told(bundle, promoted=True))
    whole, left = sorted(runs(own_home), key=lambda run: run.info.run_id == cut.info.run_id)
    assert (whole.info.status, left.info.status, left.info.run_id) == ("FINISHED", "FAILED", cut.info.run_id)
    version = client_of(own_home).get_model_version_by_alias("nextbest-click", "champion")
    assert version.run_id == whole.info.run_id
    assert (Path(version.source.removeprefix("file://")) / "manifest.json").exists()


@needs_mlflow
def test_a_store_that_takes_nothing_is_told_after_the_work_is_done(own_home, tmp_path, capsys):
    """The address is in the message; a store that cannot be opened is told before anything is trained."""
    (tmp_path / "file").touch()
    before = Registry(own_home / "registry").bundles()
    command = ["--home", str(own_home), "train", "--objective", "click", "--mlflow", f"sqlite:///{tmp_path / 'file' / 'm.db'}"]
    assert main(command) == 1
    assert "Expected MLflow to take a run, found" in capsys.readouterr().err
    assert Registry(own_home / "registry").bundles() == before
    with pytest.raises(NotReady, match="at `sqlite"):
        open_tracker(own_home, command[-1])


def test_without_an_address_nothing_is_tracked(own_home):
    """No folder, no packages."""
    tracker = open_tracker(own_home, None)
    assert isinstance(tracker, NoTracker)
    tracker.track(Told(Registry(own_home / "registry").bundles()[0], promoted=True))
    assert not (own_home / "mlflow").exists()


@pytest.mark.skipif(mlflow_there, reason="MLflow is installed: the error is for those who lack it")
def test_without_mlflow_the_error_says_what_to_install(own_home, capsys):
    """Before anything is trained."""
    before = Registry(own_home / "registry").bundles()
    assert main(["--home", str(own_home), "train", "--objective", "click", "--mlflow"]) == 1
    assert "pip install 'nextbest[mlflow]'" in capsys.readouterr().err
    assert Registry(own_home / "registry").bundles() == before
