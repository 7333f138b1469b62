"""A value as the product of two models: how often there is one, and how large it is then."""

from collections.abc import Sequence

from features.contract import Feature
from features.vectors import Matrix
from service.bundles.compiled_scorer import CompiledScorer
from service.bundles.onnx_trees import Ensemble, Product
from service.catalog.entities import Action
from service.decision.scoring import Rates, Scorer


class ProductScorer:
    """Multiplies what two scorers of the same inputs and actions predict."""

    def __init__(self, first: Scorer, second: Scorer) -> None:
        self.inputs = first.inputs
        self._first, self._second = first, second

    def score(self, requests: Matrix) -> Rates:
        """Predicted values: float32 (requests, inputs) -> float64 (requests, actions)."""
        return self._first.score(requests) * self._second.score(requests)


def compiled(trees: Ensemble | Product, inputs: Sequence[Feature], actions: Sequence[Action]) -> Scorer:
    """A scorer with trees that were compiled for the actions: of one ensemble, or of two whose product is predicted."""
    if isinstance(trees, Ensemble):
        return CompiledScorer(trees, inputs, actions)
    first, second = (CompiledScorer(factor, inputs, actions) for factor in trees.factors)
    return ProductScorer(first, second)
