"""From a catalog and bundles to the engine that serves, its experiments' arms included."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec

from features.contract import Contract
from service.bundles.loading import Bundle
from service.bundles.manifest import Manifest
from service.catalog.entities import PRIMARY, Catalog
from service.decision.engine import Engine, arm_catalogs, build_engine, by_priority, with_arms, with_canaries
from service.decision.experiments import PLAIN_ARM, Canary
from service.decision.records import Versions
from service.decision.scoring import FlatScorer, Scorer
from service.errors import nearest

PRIOR_ROWS = 100  # as many rows as an action needs before its own rate counts half

BundleOf = Callable[[str], Bundle | None]  # by id; None where it cannot be used
Guarding = Callable[[Scorer, int, str], Scorer]  # (a scorer, how many actions it scores, whose bundle's)


def unguarded(scorer: Scorer, actions: int, bundle: str) -> Scorer:
    """The scorer as it is, for whoever has time."""
    del actions, bundle
    return scorer


class Choice(NamedTuple):
    """Which versions an engine is made of. `others`: bundles that predict further objectives, by objective.

    `canaries` decide for a share of the customers each.
    """

    revision: int
    champion: str | None
    others: Mapping[str, str] = {}
    canaries: Sequence[Canary] = ()


def assemble(catalog: Catalog, contract: Contract, chosen: Choice, bundle_of: BundleOf, guard: Guarding = unguarded) -> Engine:
    """The engine of a catalog revision. An arm whose own bundle cannot be used is served by the champion, and says so.

    A canary that cannot be used has failed.

    `guard` may put something between a bundle's scorer and the engine.
    """
    guarded: dict[int, Scorer] = {}  # arms that score alike share a scorer, and so a board

    def scorer_of(part: Catalog, bundle: Bundle | None) -> Scorer:
        actions = by_priority(part)
        bare = bundle.scorer(actions) if bundle else FlatScorer([0.0] * len(actions))
        return guarded.setdefault(id(bare), guard(bare, len(actions), bundle.manifest.bundle_id)) if bundle else bare

    def build(part: Catalog, primary: str | None) -> Engine:
        bundle = bundle_of(primary) if primary else None
        scorers: dict[str, Scorer] = {PRIMARY: scorer_of(part, bundle)}
        worth = {PRIMARY: bundle.manifest.is_worth if bundle else False}
        for objective, name in chosen.others.items():
            extra = bundle_of(name)
            if extra is not None:
                scorers[objective], worth[objective] = scorer_of(part, extra), extra.manifest.is_worth
        if bundle is not None:
            scorers.setdefault(bundle.manifest.objective, scorers[PRIMARY])
            worth.setdefault(bundle.manifest.objective, worth[PRIMARY])
        versions = Versions(
            chosen.revision, primary if bundle else None, contract.fingerprint,
            champion=chosen.champion if primary != chosen.champion else None, others=dict(chosen.others),
            predicts=bundle.manifest.predicts if bundle else "rate",
        )  # fmt: skip
        seen = bundle.manifest if bundle else None
        rates = last_known_rates(seen) if seen else None
        if rates is not None and seen is not None and seen.predicts == "uplift":
            rates |= {action.id: 0.0 for action in part.actions if action.kind == "nothing"}
        values = frozenset(objective for objective, is_worth in worth.items() if is_worth)
        evidence = seen.action_rows if seen else None
        return build_engine(part, contract, scorers, versions, evidence, last_rates=rates, values=values)

    def build_arm(part: Catalog, own: str | None) -> Engine:
        if own is None or bundle_of(own) is not None:
            return build(part, own or chosen.champion)
        return replace(build(part, chosen.champion), stands_in_for=own)

    arms = {arm: build_arm(part, own) for arm, (part, own) in arm_catalogs(catalog).items()}
    canaries = [msgspec.structs.replace(c, failed=c.failed or bundle_of(c.bundle) is None) for c in chosen.canaries]
    arms |= {canary.arm: build(catalog, canary.bundle) for canary in canaries if not canary.failed}
    return with_canaries(with_arms(build(catalog, chosen.champion), arms), canaries)


def last_known_rates(manifest: Manifest) -> dict[str, float]:
    """The rate of each action in a bundle's training rows, drawn to the overall rate where they are few; "" for any other action.

    Where the bundle predicts values or uplifts, their means.

    (n r + k R) / (n + k) with n rows at rate r, overall rate R and k prior rows: the m-estimate (Cestnik 1990).
    """
    rates = {"": manifest.base_rate}
    for action, rate in manifest.action_rates.items():
        rows = manifest.action_rows.get(action, 0)
        rates[action] = (rows * rate + PRIOR_ROWS * manifest.base_rate) / (rows + PRIOR_ROWS)
    return rates


def unpredicted(engine: Engine) -> str | None:
    """What is wrong with the objectives of the placements: those that no bundle predicts add nothing. None where nothing is.

    Where no bundle serves, none is missed.
    """
    engines = [engine, *(own for arm, own in engine.arms.items() if arm != PLAIN_ARM)]
    for one in (some for some in engines if some.versions.bundle is not None):
        for name, plan in one.plans.items():
            lacking = [key for key, weight in plan.placement.objectives.items() if weight > 0.0 and key not in one.scorers]
            if lacking:
                hint = nearest(lacking[0], list(one.scorers))
                return f"Expected an objective that a bundle predicts{hint}, got `{lacking[0]}` - at placement `{name}`"
    return None


def wanted_bundles(catalog: Catalog, champion: str | None, others: Mapping[str, str]) -> list[str]:
    """Every bundle that the engine is made of but canaries, the champion first."""
    arms = [own for _, own in arm_catalogs(catalog).values() if own]
    return list(dict.fromkeys([*([champion] if champion else []), *others.values(), *arms]))
