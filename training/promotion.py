"""`nextbest promote` and `rollback`: moving the pointer that the service follows, with the evidence for it."""

import datetime as dt
from pathlib import Path

from features.homes import home_contract
from service.bundles.loading import load_bundle
from service.errors import PromotionRefused
from service.registry import Pointer, Registry
from training.judging import Report


def promote(home: Path, evidence: Report, why: str = "") -> Pointer:
    """Let a bundle serve if its evaluation says so. Raises PromotionRefused with the reasons, and BundleRefused."""
    if evidence.verdict != "promote":
        raise PromotionRefused(evidence.bundle, evidence.verdict, evidence.reasons)
    return _move(home, evidence.bundle, "; ".join(filter(None, (why, *evidence.reasons))))


def promote_without_evidence(home: Path, bundle: str, why: str) -> Pointer:
    """Let a bundle serve because somebody insists; the history says so. Raises BundleRefused: it must load all the same."""
    return _move(home, bundle, f"forced; {why}".rstrip("; "))


def promote_beside(home: Path, bundle: str, why: str) -> str:
    """Let a bundle predict its objective beside the champion, for placements that weigh several; returns the objective.

    Raises BundleRefused where it does not load.
    """
    registry = Registry(home / "registry")
    loaded = load_bundle(registry.bundle_folder(bundle), home_contract(home))
    objective = loaded.manifest.objective
    registry.promote_beside(bundle, objective, at=_now(), why=f"beside, {objective}: {bundle}: {why}".rstrip(": "))
    return objective


def rollback(home: Path, why: str = "") -> Pointer:
    """Return to the champion before this one. Raises RegistryError where there is none."""
    return Registry(home / "registry").rollback(at=_now(), why=f"rollback: {why}".rstrip(": "))


def _move(home: Path, bundle: str, why: str) -> Pointer:
    registry = Registry(home / "registry")
    load_bundle(registry.bundle_folder(bundle), home_contract(home))
    return registry.promote(bundle, at=_now(), why=f"promote {bundle}: {why}".rstrip(": "))


def _now() -> str:
    """This moment in UTC, RFC 3339."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
