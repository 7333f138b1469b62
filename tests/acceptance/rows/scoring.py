"""Row 3: trees compiled for a catalog beside ONNX Runtime row by row and LightGBM, request by request."""

from loadtests.scoring_cost import scoring
from loadtests.world import TREES
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.speed_place import speed_place

BARS = {100: (4.0, 7.0), 1000: (5.0, 0.0)}  # by actions: at least so many times ONNX Runtime, and LightGBM


def measure(context: Context) -> Measured:
    told, holds = [], True
    with speed_place(context) as place:
        for actions, (onnx, lightgbm) in BARS.items():
            cost = scoring(place.home, actions)
            over_onnx, over_lightgbm = cost.onnx_us / cost.compiled_us, cost.lightgbm_us / cost.compiled_us
            told.append(
                f"{actions:,} actions: {cost.compiled_us:.0f} us, ONNX Runtime {cost.onnx_us:.0f} ({over_onnx:.1f} x), LightGBM "
                f"{cost.lightgbm_us:.0f} ({over_lightgbm:.1f} x), differs by {cost.difference:.0e}"
            )
            holds &= over_onnx >= onnx and over_lightgbm >= lightgbm and cost.difference <= 1e-6  # the reference's
    return Measured("; ".join(told), holds)


ROW = Row(
    3,
    f"scoring one request with {TREES} trees",
    "100 actions: at least 4 x ONNX Runtime row by row, 7 x LightGBM; 1,000 actions: at least 5 x ONNX Runtime; within 1e-6",
    measure,
)
