"""Trainings in MLflow: one run per bundle, with settings, figures, pictures, the bundle itself and the verdict on it.

A bundle that is promoted becomes a version of a registered model; the alias `champion` is on the one that serves.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from service.bundles.loading import read_manifest
from service.bundles.manifest import Manifest
from service.errors import NotReady
from service.registry import Registry
from training.fit import VALIDATION_SHARE
from training.judging import Report
from training.learn import Trained
from training.publish import UNSAFE
from training.trackers import Told
from training.training_pictures import calibration_picture, importance_picture

EXPERIMENT = "nextbest"
BUNDLE, VERDICT, REASONS, CHECK = "nextbest.bundle", "nextbest.verdict", "nextbest.reasons", "nextbest.check."
LONGEST = 5000  # characters of a tag, the least that a store of MLflow takes
CHAMPION = "champion"


class MlflowTracker:
    """MLflow at an address; without one, a SQLite file and a folder of artifacts under `mlflow` in the home."""

    def __init__(self, home: Path, uri: str | None) -> None:
        folder = (home / "mlflow").absolute()
        self.uri = uri or f"sqlite:///{folder / 'mlflow.db'}"
        self._registry = Registry(home / "registry")
        with self._told():
            if uri is None:
                folder.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(self.uri, self.uri)
            known = self._client.get_experiment_by_name(EXPERIMENT)
            where = (folder / "artifacts").as_uri() if uri is None else None
            self._experiment = known.experiment_id if known else self._client.create_experiment(EXPERIMENT, where)

    def track(self, told: Told) -> None:
        """Add to the run of a bundle; one is begun where there is none. Raises NotReady where MLflow does not take it."""
        with self._told():
            manifest = read_manifest(self._registry.bundle_folder(told.bundle))
            run = self._found(told.bundle) or self._begun(manifest, told.trained)
            if told.report is not None:
                self._judged(run, told.report)
            if told.promoted:
                self._promoted(run, manifest)

    def _found(self, bundle: str) -> Run | None:
        """The run of a bundle that has all of it: one that was cut off may lack its files, and is no run to add to."""
        runs = self._runs(bundle, "FINISHED")
        return runs[0] if runs else None

    def _runs(self, bundle: str, status: str) -> Sequence[Run]:
        wanted = f"tags.`{BUNDLE}` = '{bundle}' AND attributes.status = '{status}'"
        runs: Sequence[Run] = self._client.search_runs([self._experiment], wanted)
        return runs

    def _begun(self, manifest: Manifest, trained: Trained | None) -> Run:
        for left in self._runs(manifest.bundle_id, "RUNNING"):
            self._client.set_terminated(left.info.run_id, "FAILED")
        run = self._client.create_run(self._experiment, run_name=manifest.bundle_id, tags={BUNDLE: manifest.bundle_id})
        self._client.log_batch(
            run.info.run_id, _metrics({**manifest.metrics, "parity": manifest.parity, "learned_base_rate": manifest.base_rate}),
            [Param(name, str(value)) for name, value in _parameters(manifest).items()],
        )  # fmt: skip
        self._client.log_artifacts(run.info.run_id, str(self._registry.bundle_folder(manifest.bundle_id)), "bundle")
        if trained is not None:
            lesson, fitted = trained.lesson, trained.fitted
            checked = slice(int(len(lesson.learned) * (1 - VALIDATION_SHARE)), None)
            if manifest.predicts != "uplift":  # nobody sees what an action changes for one customer
                calibration = calibration_picture(lesson.learned.label[checked], fitted.rates(lesson.inputs[checked]))
                self._client.log_figure(run.info.run_id, calibration, "plots/calibration.png")
            self._client.log_figure(run.info.run_id, importance_picture(fitted), "plots/importance.png")
        self._client.set_terminated(run.info.run_id, "FINISHED")
        return run

    def _judged(self, run: Run, report: Report) -> None:
        own, gain = report.policies[f"bundle:{report.bundle}"], report.gain_over_logged
        figures = {
            "value": own.value, "value_low": own.ci[0], "value_high": own.ci[1],
            "gain_over_logged": gain.value, "gain_over_logged_low": gain.ci[0], "gain_over_logged_high": gain.ci[1],
            "judged_rows": float(report.rows),
        }  # fmt: skip
        checks = {f"{CHECK}{one.name}": f"{'holds' if one.holds else 'does not hold'}: {one.told}" for one in report.checks}
        told = {VERDICT: report.verdict, REASONS: "; ".join(report.reasons), **checks}
        tags = [RunTag(name, text[:LONGEST]) for name, text in told.items()]
        self._client.log_batch(run.info.run_id, _metrics(figures), tags=tags)

    def _promoted(self, run: Run, manifest: Manifest) -> None:
        name = f"nextbest-{UNSAFE.sub('-', manifest.objective)}"
        with contextlib.suppress(MlflowException):  # it is there; whatever else is wrong shows in the next line
            self._client.create_registered_model(name, description=f"bundles that predict `{manifest.objective}`")
        before = {v.run_id: v.version for v in self._client.search_model_versions(f"name = '{name}'")}
        version = before.get(run.info.run_id)
        if version is None:
            source, tags = f"{run.info.artifact_uri}/bundle", {BUNDLE: manifest.bundle_id}
            version = self._client.create_model_version(name, source, run.info.run_id, tags=tags).version
        self._client.set_registered_model_alias(name, CHAMPION, version)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise NotReady(f"Expected MLflow to take a run, found: {error} - at `{self.uri}`") from error


def _parameters(manifest: Manifest) -> Mapping[str, object]:
    split = manifest.split
    return {
        **manifest.settings, "objective": manifest.objective, "rows": manifest.rows, "inputs": len(manifest.inputs),
        "split": split.by, "share": split.share, "dataset_fingerprint": manifest.dataset_fingerprint,
        "contract_fingerprint": manifest.contract_fingerprint, **{f"version.{k}": v for k, v in manifest.libraries.items()},
    }  # fmt: skip


def _metrics(figures: Mapping[str, float]) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, value, now, 0) for name, value in figures.items()]
