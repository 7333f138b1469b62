"""A value that is mostly zero, learned in two parts: how often there is one, and how large it is then.

Duan, Manning, Morris and Newhouse 1983. The amounts are learned as gamma with a logarithmic link: their mean is modelled itself,
so that nothing has to be transformed back, and it needs only the mean to be right (Manning and Mullahy 2001).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from features.contract import Feature
from features.vectors import Matrix
from service.bundles.manifest import Calibration
from service.errors import NotReady
from training.calibrate import fit_level
from training.fit import VALIDATION_SHARE, FitSettings, Fitted, Grow, Progress, fit, grow_here, growth_of, margins

Values = npt.NDArray[np.float64]


def fit_two_parts(
    inputs: Matrix, values: Values, columns: Sequence[Feature], settings: FitSettings, progress: Progress | None = None,
    *, grow: Grow | None = None, weights: Values | None = None,
) -> Fitted:  # fmt: skip
    """A rate of values above zero, and an amount of those. Metrics are those of the rate, and both means of the value.

    `weights` as in `fit`. Shapes: float32 (rows, columns), numbers of 0 and above (rows,), (rows,).
    Raises NotReady where there is too little, or less than 0.
    """
    if not (values >= 0.0).all():
        raise NotReady(
            f"Expected values of 0 and above, found {int((~(values >= 0.0)).sum())} others, the least {values.min():g}"
        )
    above = values > 0.0
    rate = fit(inputs, above.astype(np.float64), columns, settings, progress, grow=grow, weights=weights)
    of_amounts = None if weights is None else weights[above]
    amount = fit_amount(inputs[above], values[above], columns, settings, grow=grow, weights=of_amounts)
    cut = int(len(values) * (1 - VALIDATION_SHARE))
    fitted = replace(rate, amount=amount)
    told = {
        "mean_value": float(values[cut:].mean()), "mean_predicted_value": float(fitted.rates(inputs[cut:]).mean()),
        "amounts": float(above.sum()), "amount_trees": float(amount.rounds),
    }  # fmt: skip
    return replace(fitted, metrics={**rate.metrics, **{name: round(value, 6) for name, value in told.items()}})


def fit_amount(
    inputs: Matrix, amounts: Values, columns: Sequence[Feature], settings: FitSettings, *,
    grow: Grow | None = None, weights: Values | None = None,
) -> Fitted:  # fmt: skip
    """Amounts above zero: float32 (rows, columns), (rows,).

    They are learned in units of their mean: margins stay near zero, where float32 has digits to spare. The level comes from all
    rows: of 276 buyers as in Hillstrom's log, on their last fifth it would be 13 % off by chance, on all of them 6 %.
    """
    growth, _ = growth_of(inputs, amounts / amounts.mean(), columns, settings, learned="amount", progress=None, weights=weights)
    booster = (grow or grow_here)(growth)
    level = fit_level(margins(booster, inputs), amounts)
    exact = Calibration(level.slope, float(np.float32(level.intercept)))  # as ONNX keeps it
    return Fitted(booster, exact, tuple(columns), settings, {}, "amount")
