"""`nextbest evaluate`: what policies are worth on rows that no model saw, and whether a new bundle may serve."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.contract import Contract
from features.homes import home_contract
from service.bundles.assembling import Choice, assemble
from service.bundles.loading import load_bundle, read_manifest
from service.bundles.manifest import Manifest
from service.catalog.entities import Catalog
from service.catalog.validate import load_catalog, read_catalog
from service.decision.engine import Engine
from service.errors import NextbestError, NotReady
from service.registry import Registry
from training.examples import Examples, Names, Objective, expect_known, load_examples
from training.gate import Evidence, Standing, gate
from training.judging import Report, report
from training.learning_rules import LearningRules, read_rules
from training.maturity import corrected
from training.overlap import ActionOverlap, OverlapCounts
from training.policies import ALWAYS, BUNDLE, UNIFORM, Chunk, PolicyRows, Values, always, chunks, uniform
from training.segment_losses import Compared
from training.slots import SlotRates, knows_slots
from training.split import seen

Progress = Callable[[int, int], None]
Expecting = Callable[[Chunk, Values], Values]  # (rows, the first bundle's rates in the first slot) -> what actions bring, alike


class Subject(NamedTuple):
    """What is evaluated: a bundle with a catalog, against the champion, if there is one, by the rules of the gate."""

    objective: Objective
    contract: Contract
    catalog: Catalog
    bundle: str
    champion: str | None
    rules: LearningRules = LearningRules()


def evaluate(
    home: Path,
    objective: str | None = None,
    bundle: str | None = None,
    catalog: Path | None = None,
    progress: Progress = lambda _done, _of: None,
) -> Report:
    """Evaluate a bundle (the newest, where None) with a catalog (the one that serves, where None).

    Raises NotReady where bundle, catalog or rows are missing, and BadRequest for an objective that nobody logged.
    """
    registry, contract = Registry(home / "registry"), home_contract(home)
    chosen = bundle or newest_bundle(registry, objective)
    manifest = read_manifest(registry.bundle_folder(chosen))
    rules, wanted = read_rules(home), Objective(objective or manifest.objective)
    subject = Subject(
        Objective(wanted.name, rules.window(wanted.outcome)), contract, current_catalog(registry, contract, catalog), chosen,
        registry.current().champion, rules,
    )  # fmt: skip
    examples = corrected(
        load_examples(home, subject.objective, contract, progress), subject.objective.window, is_value=subject.objective.is_value
    )
    if objective and not examples.label.any():
        expect_known(home, wanted)
    return judge(subject, registry, examples, progress)


def reasons_against(home: Path, bundle: str, progress: Progress = lambda _done, _of: None) -> tuple[str, ...]:
    """For which reasons the gate refuses a bundle; none where it does not. That it cannot be evaluated is one."""
    try:
        report = evaluate(home, bundle=bundle, progress=progress)
    except NextbestError as error:
        return (f"it could not be evaluated: {error}",)
    return () if report.verdict == "promote" else report.reasons


def newest_bundle(registry: Registry, objective: str | None) -> str:
    """The bundle that was trained last, for this objective. Raises NotReady where there is none."""
    manifests = [read_manifest(registry.bundle_folder(name)) for name in registry.bundles()]
    fitting = [m for m in manifests if objective in (None, m.objective)] or manifests
    if not fitting:
        raise NotReady("Expected a trained bundle, found none: run `nextbest train`")
    return max(fitting, key=lambda m: (m.created_at, m.bundle_id)).bundle_id


def current_catalog(registry: Registry, contract: Contract, path: Path | None = None) -> Catalog:
    """The catalog of a file, or the one that serves. Raises NotReady where none was published, and CatalogInvalid."""
    if path is not None:
        return read_catalog(path, contract)[1]
    serving = registry.current().catalog
    if serving is None:
        raise NotReady("Expected a published catalog, found none: run `nextbest catalog publish FILE`")
    return load_catalog(registry.catalog(serving).document, contract)


def engine_of(registry: Registry, contract: Contract, catalog: Catalog, bundle: str, *, slot: int = 1) -> Engine:
    """The engine that would serve this bundle with the catalog. `slot`: whose rates are asked for. Raises BundleRefused."""
    loaded = load_bundle(registry.bundle_folder(bundle), contract).at_slot(slot)
    return assemble(catalog, contract, Choice(0, bundle), {bundle: loaded}.get)


def judge(subject: Subject, registry: Registry, examples: Examples, progress: Progress) -> Report:
    """Values, gains and a verdict from the rows that neither the bundle nor the champion saw."""
    names = dict.fromkeys(name for name in (subject.bundle, subject.champion) if name)
    manifests = [read_manifest(registry.bundle_folder(name)) for name in names]
    unseen = examples.take(~np.any([seen(m.split, examples) for m in manifests], axis=0))
    if not len(unseen):
        raise NotReady(
            f"Expected rows that no model saw, found none among {len(examples)}: serve on, or train with a smaller share"
        )
    over = unseen.age >= (subject.objective.window or 0.0)  # what has still to come is no label
    if not over.any():
        raise NotReady(f"Expected rows whose window of {subject.objective.window:.0f} s is over, found none among {len(unseen)}")
    engines = {f"{BUNDLE}{name}": engine_of(registry, subject.contract, subject.catalog, name) for name in names}
    customers, customer = np.unique(unseen.customer_id, return_inverse=True)
    judged = over & personalised(customers, engines[f"{BUNDLE}{subject.bundle}"])[customer]
    if not judged.any():
        raise NotReady(f"Expected rows of customers for whom a bundle decides, found none among {int(over.sum())}")
    rates = _mean_rewards(examples.take(seen(manifests[0].split, examples)), engines[f"{BUNDLE}{subject.bundle}"])
    known = _expecting(subject, registry, manifests[0], unseen, rates)
    estimated = _estimate(unseen, engines, known, progress)
    standings = [Standing(m, registry.bundle_folder(m.bundle_id), engines[f"{BUNDLE}{m.bundle_id}"]) for m in manifests]
    own, *others = (estimated.rows.rows(name) for name in engines)
    evidence = Evidence(
        standings[0], standings[1] if len(standings) > 1 else None, unseen.take(judged), estimated.exposure[judged],
        subject.rules.gate,
        is_rate=_predicts(manifests[0], subject) and manifests[0].predicts == "rate",
        is_value=_predicts(manifests[0], subject) and manifests[0].predicts == "value",
        compared=Compared(own, others[0], customer).take(judged) if others else None,
    )  # fmt: skip
    return report(
        subject.objective.name, subject.bundle, subject.champion, unseen, estimated.rows,
        checks=gate(evidence), margin=subject.rules.gate.refresh_margin, overlap=estimated.overlap,
    )  # fmt: skip


def personalised(customers: Names, engine: Engine) -> npt.NDArray[np.bool_]:
    """Whether a bundle decides for each of these customers: where it does not, its rates are no promise."""
    return np.array([engine.assignment.is_personalised(name) for name in customers.tolist()], np.bool_)


def _expecting(subject: Subject, registry: Registry, manifest: Manifest, unseen: Examples, means: Values) -> Expecting:
    """The reward model: the bundle's own rates, of each row in the slot in which it stood; else each action's mean."""
    if not _predicts(manifest, subject):
        return lambda _chunk, rates: np.broadcast_to(means, rates.shape)
    if not knows_slots(manifest.inputs):
        return lambda _chunk, rates: rates
    own = SlotRates(lambda slot: engine_of(registry, subject.contract, subject.catalog, manifest.bundle_id, slot=slot))
    return lambda chunk, rates: own.rates(chunk, unseen.slot[chunk.rows], rates)


def _predicts(manifest: Manifest, subject: Subject) -> bool:
    """Whether what it predicts is the reward; an uplift is a difference of it."""
    return manifest.objective == subject.objective.name and manifest.predicts != "uplift"


def _mean_rewards(learned: Examples, engine: Engine) -> Values:
    """The reward model where the bundle predicts something else: each action's mean in the rows it learned from."""
    overall = float(learned.label.mean()) if len(learned) else 0.0
    positions = [engine.positions.get(a, len(engine.actions)) for a in learned.action_id.tolist()]
    counts = np.bincount(positions, minlength=len(engine.actions) + 1)[:-1]
    sums = np.bincount(positions, learned.label, minlength=len(engine.actions) + 1)[:-1]
    means: Values = np.where(counts > 0, sums / np.maximum(counts, 1), overall)
    return means


class _Estimated(NamedTuple):
    """What the estimators need, how likely the first engine gives an offer to each row, (rows,), NaN unknown, and its overlap."""

    rows: PolicyRows
    exposure: Values
    overlap: tuple[ActionOverlap, ...]


def _estimate(unseen: Examples, engines: Mapping[str, Engine], expecting: Expecting, progress: Progress) -> _Estimated:
    found, done, exposure = PolicyRows(unseen), 0, np.full(len(unseen), np.nan)
    first = next(iter(engines.values()))
    offers = np.array([action.kind == "offer" for action in first.actions], np.float64)
    counts = OverlapCounts(first.names.tolist())
    statics = {f"{ALWAYS}{a}": first.positions[a] for a in sorted(set(unseen.action_id.tolist())) if a in first.positions}
    for chunk in chunks(unseen, first):
        tables = {name: chunk.choices(engine) for name, engine in engines.items()}
        own = next(iter(tables.values()))
        rates = expecting(chunk, own.predicted_rates)
        found.add(UNIFORM, chunk, uniform(own.allowed), rates)
        for name, position in statics.items():
            found.add(name, chunk, always(own.allowed, position), rates)
        for name, table in tables.items():
            found.add(name, chunk, table.probabilities, rates)
        exposure[chunk.rows] = own.probabilities @ offers
        counts.add(chunk, own.probabilities, unseen.choice_probability[chunk.rows])
        done += len(chunk.rows)
        progress(done, len(unseen))
    if not done:
        raise NotReady(f"Expected rows of a placement of the catalog ({', '.join(first.plans)}), found none")
    return _Estimated(found, exposure, counts.told())
