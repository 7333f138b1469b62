"""`nextbest promote` and `rollback`: moving the pointer that the service follows, with the evidence for it."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from features.homes import home_contract
from service.bundles.loading import load_bundle
from service.errors import PromotionRefused
from service.registry import Pointer, Registry
from training.evaluate import evaluate, newest_bundle
from training.judging import Report

Progress = Callable[[int, int], None]


class Promotion(NamedTuple):
    """What was promoted, and on which evidence; None where somebody forced it."""

    bundle: str
    report: Report | None


def promote(
    home: Path, bundle: str | None = None, *, why: str = "", force: bool = False, progress: Progress = lambda _done, _of: None
) -> Promotion:
    """Let a bundle (the newest, where None) serve if its evaluation says so, or because somebody insists.

    A bundle that the service could not load is refused in any case. Raises PromotionRefused with the reasons, BundleRefused,
    and NotReady where there is nothing to judge by.
    """
    registry = Registry(home / "registry")
    chosen = bundle or newest_bundle(registry, None)
    load_bundle(registry.bundle_folder(chosen), home_contract(home))
    report = None if force else evaluate(home, bundle=chosen, progress=progress)
    if report is not None and report.verdict != "promote":
        raise PromotionRefused(chosen, report.verdict, report.reasons)
    evidence = "; ".join(report.reasons) if report else "forced"
    registry.promote(chosen, at=now(), why=f"promote {chosen}: {why or evidence}" + (f" ({evidence})" if why else ""))
    return Promotion(chosen, report)


def rollback(home: Path, why: str = "") -> Pointer:
    """Return to the champion before this one. Raises RegistryError where there is none."""
    return Registry(home / "registry").rollback(at=now(), why=f"rollback: {why}".rstrip(": "))


def now() -> str:
    """This moment in UTC, RFC 3339."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
