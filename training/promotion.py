"""`nextbest stage`, `promote` and `rollback`: moving the pointer that the service follows, with the evidence for it."""

import datetime as dt
import getpass
import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from features.homes import home_contract
from service.bundles.loading import load_bundle
from service.bundles.manifest import MANIFEST_FILE
from service.errors import BadRequest, PromotionRefused
from service.registry import Note, Pointer, Registry
from training.judging import Report


def promote(home: Path, evidence: Report, why: str = "") -> Pointer:
    """Let a bundle serve if its evaluation says so.

    Raises PromotionRefused with the reasons, BundleRefused, and RegistryError where it was not proven against what serves now.
    """
    if evidence.verdict != "promote":
        raise PromotionRefused(evidence.bundle, evidence.verdict, evidence.reasons)
    return _move(home, evidence.bundle, "; ".join(filter(None, (why, *evidence.reasons))), expected=evidence.champion)


def promote_without_evidence(home: Path, bundle: str, why: str, *, by: str = "", refused: Sequence[str] = ()) -> Pointer:
    """Let a bundle serve because somebody insists; the history says so, and a note in the registry says who.

    `by`: a name; the login without one. `refused`: the reasons for which the gate had. Raises BadRequest without a reason, and
    BundleRefused: it must load all the same.
    """
    check_why(why)
    registry = Registry(home / "registry")
    folder = registry.bundle_folder(bundle)
    load_bundle(folder, home_contract(home))
    checksum = hashlib.sha256((folder / MANIFEST_FILE).read_bytes()).hexdigest()
    registry.leave_note(Note(bundle, checksum, by or login(), _now(), why, tuple(refused)))
    return _move(home, bundle, f"forced; {why}")


def check_why(why: str) -> None:
    """Raises BadRequest where nobody would know later why a bundle served without evidence."""
    if not why.strip():
        raise BadRequest("Expected a reason for letting a bundle serve without evidence, got none - at `--why`")


def login() -> str:
    """Who runs this, as the system knows them; `unknown` where it does not."""
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):  # a container's user without a name
        return "unknown"


def promote_beside(home: Path, bundle: str, why: str) -> str:
    """Let a bundle predict its objective beside the champion, for placements that weigh several; returns the objective.

    Raises BundleRefused where it does not load.
    """
    registry = Registry(home / "registry")
    loaded = load_bundle(registry.bundle_folder(bundle), home_contract(home))
    objective = loaded.manifest.objective
    registry.promote_beside(bundle, objective, at=_now(), why=f"beside, {objective}: {bundle}: {why}".rstrip(": "))
    return objective


def stage_shadow(home: Path, bundle: str, why: str = "") -> Pointer:
    """Have a bundle scored on live decisions. Raises BundleRefused where it does not load, and RegistryError."""
    registry = Registry(home / "registry")
    load_bundle(registry.bundle_folder(bundle), home_contract(home))
    return registry.shadow(bundle, at=_now(), why=f"shadow {bundle}: {why}".rstrip(": "))


def stage_canary(home: Path, bundle: str, share: float, why: str = "") -> Pointer:
    """Let a bundle decide for a share of the customers, 0 to 1. Raises BundleRefused where it does not load; RegistryError."""
    registry = Registry(home / "registry")
    load_bundle(registry.bundle_folder(bundle), home_contract(home))
    return registry.challenge(bundle, share, at=_now(), why=f"canary {bundle}, {share:g} of the customers: {why}".rstrip(": "))


def step_off(home: Path, bundle: str, why: str = "") -> Pointer:
    """A shadow or a canary is neither any more. Raises RegistryError where it is none."""
    return Registry(home / "registry").step_off(bundle, at=_now(), why=f"off {bundle}: {why}".rstrip(": "))


def rollback(home: Path, why: str = "") -> Pointer:
    """Return to the champion before this one, without shadows and canaries. Raises RegistryError where there is none."""
    return Registry(home / "registry").rollback(at=_now(), why=f"rollback: {why}".rstrip(": "))


def _move(home: Path, bundle: str, why: str, expected: str | msgspec.UnsetType | None = msgspec.UNSET) -> Pointer:
    registry = Registry(home / "registry")
    load_bundle(registry.bundle_folder(bundle), home_contract(home))
    return registry.promote(bundle, at=_now(), why=f"promote {bundle}: {why}".rstrip(": "), expected=expected)


def _now() -> str:
    """This moment in UTC, RFC 3339."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
