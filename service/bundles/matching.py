"""What of a request is looked at together with what of a catalog's actions: inputs that depend on both."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from features.contract import SLOT, Feature
from features.vectors import Matrix, match_codes, matches, pair_places, pair_table, place_of
from service.catalog.entities import Action

ORDER = ("request", "action", "slot", "match", "pair")  # of a model's inputs


class Matching:
    """The matches and pairs among a model's inputs. `columns`: of a request's matrix, (matches and pairs,)."""

    def __init__(self, inputs: Sequence[Feature], actions: Sequence[Action]) -> None:
        """Raises ValueError where one names none of the inputs: `unmatched` tells."""
        of_request = [feature for feature in inputs if feature.is_of_request]
        declared = [(feature, place_of(feature.matches, of_request)) for feature in inputs if feature.matches is not None]
        matched = [(feature, place) for feature, place in declared if feature.origin == "match"]
        self.columns: npt.NDArray[np.intp] = np.array([place for _, place in declared], np.intp)
        self.codes: Matrix = np.zeros((len(actions), len(matched)), np.float32)  # what actions are matched by
        for number, (feature, place) in enumerate(matched):
            self.codes[:, number] = match_codes(of_request[place], [a.attributes.get(feature.name) for a in actions])
        self.pairs = [(of_request[place], feature) for feature, place in declared if feature.origin == "pair"]
        self.tables = [pair_table(f, category, [a.attributes.get(f.name) for a in actions]) for category, f in self.pairs]

    @property
    def key(self) -> bytes:
        """All that it knows of the actions."""
        return b"".join(one.tobytes() for one in (self.codes, *self.tables))

    def values(self, requests: Matrix) -> Matrix:
        """Each request with each action: float32 (requests, inputs) -> (requests, actions, matches and pairs)."""
        known, matched = requests.take(self.columns, axis=1), self.codes.shape[1]
        found = np.empty((len(requests), len(self.codes), len(self.columns)), np.float32)
        found[:, :, :matched] = matches(known[:, None, :matched], self.codes)
        for number, (table, (category, _)) in enumerate(zip(self.tables, self.pairs, strict=True), matched):
            found[:, :, number] = table.T[pair_places(category, known[:, number])]
        return found

    def values_of(self, requests: Matrix, actions: npt.NDArray[np.intp]) -> Matrix:
        """Each request with one action, by its position: float32 (requests, matches and pairs)."""
        known, matched = requests.take(self.columns, axis=1), self.codes.shape[1]
        found = np.empty((len(requests), len(self.columns)), np.float32)
        found[:, :matched] = matches(known[:, :matched], self.codes[actions])
        for number, (table, (category, _)) in enumerate(zip(self.tables, self.pairs, strict=True), matched):
            found[:, number] = table[actions, pair_places(category, known[:, number])]
        return found


def unmatched(inputs: Sequence[Feature]) -> str | None:
    """What is wrong with the matches, the pairs and the slot among a model's inputs; None where nothing is."""
    categories = {feature.key for feature in inputs if feature.is_of_request and feature.type == "category"}
    for index, feature in enumerate(inputs):
        if (feature.origin in ("match", "pair")) != (feature.matches is not None):
            return f"Expected `matches` of an input of the origin `match` or `pair`, and of no other - at `inputs[{index}]`"
        if feature.matches is not None and feature.matches not in categories:
            return f"Expected a match with a category among the inputs, found `{feature.matches}` - at `inputs[{index}]`"
        if feature.origin == "slot" and feature != SLOT:
            return f"Expected a slot that is a number, by default the first, found `{feature}` - at `inputs[{index}]`"
    scopes = ["request" if feature.is_of_request else feature.scope for feature in inputs]
    if scopes.count("slot") > 1:
        return f"Expected one slot, found {scopes.count('slot')} - at `inputs`"
    if not {"slot", "match", "pair"}.isdisjoint(scopes) and scopes != sorted(scopes, key=ORDER.index):
        return (
            f"Expected inputs of the request, the action, the slot, matches and pairs, found `{', '.join(scopes)}` - at `inputs`"
        )
    return None
