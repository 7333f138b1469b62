"""What of a request is compared with what of a catalog's actions: inputs that depend on both."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from features.contract import Feature
from features.vectors import Matrix, match_codes, matches, place_of
from service.catalog.entities import Action


class Matching:
    """The matches among a model's inputs. `columns`: of a request's matrix, (matches,); `codes`: float32, (actions, matches)."""

    def __init__(self, inputs: Sequence[Feature], actions: Sequence[Action]) -> None:
        """Raises ValueError where a match names none of the inputs: `unmatched` tells."""
        of_request = [feature for feature in inputs if feature.is_of_request]
        declared = [(feature.name, feature.matches) for feature in inputs if feature.matches is not None]
        places = [place_of(key, of_request) for _, key in declared]
        self.columns: npt.NDArray[np.intp] = np.array(places, np.intp)
        self.codes: Matrix = np.zeros((len(actions), len(declared)), np.float32)
        for number, (name, _) in enumerate(declared):
            self.codes[:, number] = match_codes(of_request[places[number]], [a.attributes.get(name) for a in actions])

    def values(self, requests: Matrix) -> Matrix:
        """Each request with each action: float32 (requests, inputs) -> (requests, actions, matches)."""
        return matches(requests.take(self.columns, axis=1)[:, None, :], self.codes)

    def values_of(self, requests: Matrix, actions: npt.NDArray[np.intp]) -> Matrix:
        """Each request with one action, by its position: float32 (requests, matches)."""
        return matches(requests.take(self.columns, axis=1), self.codes[actions])


def unmatched(inputs: Sequence[Feature]) -> str | None:
    """What is wrong with the matches among a model's inputs; None where nothing is."""
    of_request = [feature for feature in inputs if feature.is_of_request]
    categories = {feature.key for feature in of_request if feature.type == "category"}
    for index, feature in enumerate(inputs):
        if (feature.origin == "match") != (feature.matches is not None):
            return f"Expected `matches` of an input of the origin `match`, and of no other - at `inputs[{index}]`"
        if feature.matches is not None and feature.matches not in categories:
            return f"Expected a match with a category among the inputs, found `{feature.matches}` - at `inputs[{index}]`"
    scopes = ["request" if feature.is_of_request else feature.scope for feature in inputs]
    if "match" in scopes and scopes != sorted(scopes, key=("request", "action", "match").index):
        return f"Expected inputs of the request, then of the action, then matches, found `{', '.join(scopes)}` - at `inputs`"
    return None
