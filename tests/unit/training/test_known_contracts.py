"""Which features a record's contract knew: as the registry kept it, as a bundle was learned under it, or by its fingerprint."""

from pathlib import Path

import msgspec
import pytest

from features.contract import Contract, Feature, parse_contract, read_contract
from features.homes import PACKAGED, home_contract
from service.app import create_from_settings
from service.registry import Registry
from service.settings import Settings
from training.known_contracts import MOST_ABSENT, KnownContracts, without

OLD = Contract(tuple(Feature(name, "number", "profile", max_age=60.0) for name in ("a", "b")))
NEW = Contract(tuple(Feature(name, "number", "profile", max_age=60.0) for name in ("x", "a", "y", "b", "z")))
A, B, X = "customer.a", "customer.b", "customer.x"


def test_the_fingerprint_proves_which_features_were_added_since():
    """Wherever in the order they stand, and also where one of those that were known was never recorded."""
    assert without(NEW, OLD.fingerprint, {A, B}) == {A, B}
    assert without(NEW, OLD.fingerprint, {A}) == {A, B}
    assert without(NEW, NEW.fingerprint, set()) == {f.key for f in NEW.features}


def test_a_feature_that_was_recorded_cannot_have_been_added_since():
    """Then the contract is another one, and nothing is said of it."""
    assert without(NEW, OLD.fingerprint, {A, B, X}) is None


def test_nobody_looks_through_more_fingerprints_than_can_be_looked_through():
    """Twelve features may have been added, not thirteen."""
    added = [Feature(f"n{number}", "number", "profile", max_age=60.0) for number in range(MOST_ABSENT + 1)]
    assert without(Contract((*OLD.features, *added[:-1])), OLD.fingerprint, {A, B}) == {A, B}
    assert without(Contract((*OLD.features, *added)), OLD.fingerprint, {A, B}) is None


def test_a_contract_whose_features_are_gone_is_known_where_it_was_kept(tmp_path: Path):
    """And not known where what was kept is not what its name says, or no contract at all."""
    gone = Contract((*OLD.features, Feature("gone", "number", "profile", max_age=60.0)))
    registry = Registry(tmp_path / "registry")
    assert KnownContracts(tmp_path, NEW).keys(gone.fingerprint, {A}) is None
    registry.keep_contract(gone.fingerprint, OLD.canonical)
    registry.keep_contract("0123456789abcdef", b"{")
    assert KnownContracts(tmp_path, NEW).keys(gone.fingerprint, {A}) is None
    (tmp_path / "registry" / "contracts" / f"{gone.fingerprint}.json").unlink()
    registry.keep_contract(gone.fingerprint, gone.canonical)
    assert KnownContracts(tmp_path, NEW).keys(gone.fingerprint, {A}) == {A, B, "customer.gone"}


def test_what_was_kept_is_never_changed(tmp_path: Path):
    """A fingerprint stands for one contract."""
    registry = Registry(tmp_path / "registry")
    registry.keep_contract("f", b"first")
    registry.keep_contract("f", b"second")
    assert registry.contracts() == {"f": b"first"}


def test_a_bundle_tells_the_contract_that_it_was_learned_under(own_home: Path):
    """A home whose registry has kept nothing, and whose features have other names now."""
    contract = home_contract(own_home)
    for path in (own_home / "registry" / "contracts").iterdir():
        path.unlink()
    known = KnownContracts(own_home, NEW).keys(contract.fingerprint, {A})
    assert known == {f.key for f in contract.features}


def test_the_contract_of_the_package_is_known(tmp_path: Path):
    """A home without a document of its own begins with it."""
    packaged = read_contract(PACKAGED)
    assert KnownContracts(tmp_path, NEW).keys(packaged.fingerprint, {A}) == {f.key for f in packaged.features}


EVERY_KIND = parse_contract("""
transactions: {type: purchased, amount: amount}
features:
  - {name: age, type: number, origin: profile, max_age: 400d, default: 0}
  - {name: region, type: category, origin: profile, max_age: 1.5h, categories: [north, 南], default: north}
  - {name: seen, type: number, origin: activity, events: {aggregate: sum, type: seen, property: cost, window: 24h, where: {n: 1}}}
  - {name: ltv, type: number, origin: value, max_age: 7d, transactions: lifetime_value}
  - {name: churn, type: number, origin: value, max_age: 7d, prediction: churn_risk}
  - {name: hour, type: number, origin: request_time}
""")


@pytest.mark.parametrize("contract", [OLD, EVERY_KIND])
def test_a_contract_that_was_kept_has_the_same_fingerprint(contract: Contract):
    """Whatever features are made of."""
    assert Contract(msgspec.json.decode(contract.canonical, type=tuple[Feature, ...])).fingerprint == contract.fingerprint


def test_a_service_keeps_the_contract_that_its_decisions_name(tmp_path: Path):
    """When it is put together, before the first decision; where nothing may be written there, it serves all the same."""
    create_from_settings(Settings(home=str(tmp_path), redis_url="unix:///nowhere"))
    kept = Registry(tmp_path / "registry").contracts()
    assert kept == {home_contract(tmp_path).fingerprint: home_contract(tmp_path).canonical}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "registry").write_text("no folder")
    create_from_settings(Settings(home=str(tmp_path / "other"), redis_url="unix:///nowhere"))
