"""Which features a logged decision could have recorded: those of the contract whose fingerprint its record has.

A service keeps its contract in the registry when it starts, and a bundle's manifest has the one that it was learned under.
Otherwise the fingerprint itself is the proof: where it is that of the contract of today without the features of which no record
made under it has a value, or without some of them, those are what it did not know.
"""

from collections.abc import Collection, Iterator
from itertools import chain, combinations
from pathlib import Path

import msgspec

from features.contract import Contract, Feature, fingerprint, read_contract
from features.homes import PACKAGED
from service.bundles.loading import read_manifest
from service.errors import BundleRefused
from service.registry import Registry

MOST_ABSENT = 12  # features that may have been added since: 4,096 fingerprints of 40 inputs take 0.2 s
_features = msgspec.json.Decoder(tuple[Feature, ...])

Keys = frozenset[str]


class KnownContracts:
    """What each fingerprint stands for, as far as a home can tell."""

    def __init__(self, home: Path, contract: Contract) -> None:
        self._contract = contract
        self._registry = Registry(home / "registry")
        self._known = {contract.fingerprint: _keys(contract.features)}
        self._has_looked = False

    def keys(self, found: str, recorded: Collection[str]) -> Keys | None:
        """The features of the contract with a fingerprint; None where nobody knows. `recorded`: those that its records hold."""
        if found not in self._known and not self._has_looked:
            self._has_looked = True
            self._known = {fingerprint(one): _keys(one) for one in self._every()} | self._known
        if found not in self._known:
            recognised = without(self._contract, found, recorded)
            if recognised is None:
                return None
            self._known[found] = recognised
        return self._known[found]

    def _every(self) -> Iterator[tuple[Feature, ...]]:
        yield read_contract(PACKAGED).features
        for data in self._registry.contracts().values():
            yield _decoded(data)
        for bundle in self._registry.bundles():
            yield _learned_under(self._registry, bundle)


def without(contract: Contract, found: str, recorded: Collection[str]) -> Keys | None:
    """The features of a contract less some that are not `recorded`, where its fingerprint is then the one found; else None."""
    absent = [f for f in contract.features if f.key not in recorded]
    if len(absent) > MOST_ABSENT:
        return None
    for taken in chain.from_iterable(combinations(absent, count) for count in range(len(absent) + 1)):
        left = [f for f in contract.features if f not in taken]
        if fingerprint(left) == found:
            return _keys(left)
    return None


def _decoded(data: bytes) -> tuple[Feature, ...]:
    """None where somebody wrote something else: its fingerprint is then that of no contract."""
    try:
        return _features.decode(data)
    except msgspec.DecodeError:
        return ()


def _learned_under(registry: Registry, bundle: str) -> tuple[Feature, ...]:
    """The contract that a bundle was learned under: its inputs but what depends on the action. None of one that says nothing."""
    try:
        return tuple(f for f in read_manifest(registry.bundle_folder(bundle)).inputs if f.is_of_request)
    except BundleRefused:
        return ()


def _keys(features: Collection[Feature]) -> Keys:
    return frozenset(f.key for f in features)
