"""Row 4: from a cold start through a change of the world's ways, deciding and learning all the time.

PICTURE=FILE writes what happened as an SVG.
"""

import os
from pathlib import Path

from tests.acceptance.row import Context, Measured, Row
from training.closed_loop import run
from training.closed_loop_picture import picture
from training.simulate import World

DECISIONS, CUSTOMERS, TURNED = 100_000, 4_000, 2
AT_LEAST = 0.90
LAST = 8  # steps
DUE = 1.0 - 1e-9  # of an eligible action's share of the exploration


def measure(context: Context) -> Measured:
    half = DECISIONS // 2

    def tell(done: int, of: int) -> None:
        if done % (of // 10) == 0:
            context.tell(f"{done:,} of {of:,} decisions")

    result = run(World(CUSTOMERS, context.seed), DECISIONS, change_at=half, turned=TURNED, seed=context.seed, progress=tell)
    if path := os.environ.get("PICTURE"):
        Path(path).write_bytes(picture(result))
    told, holds = [], result.least_share >= DUE
    for name, start, end in (("the first half", 0, half), ("the second", half, None), ("both", 0, None)):
        best = result.cumulative(result.oracle, start, end)
        loop, static, plain = (
            result.cumulative(of, start, end) / best for of in (result.loop, result.static, result.uniform)
        )  # fmt: skip
        told.append(f"{name}: {loop:.1%} of the oracle's reward, best static {static:.1%}, uniform {plain:.1%}")
        holds &= loop >= AT_LEAST and loop > static and loop > plain
    middle, ratio = len(result.loop) // 2, result.loop / result.oracle
    last = [float(ratio[end - LAST : end].mean()) for end in (middle, len(ratio))]
    noticed = ", ".join(f"{at:,}" for at in result.noticed)
    figure = (
        f"{'; '.join(told)}; at the end of the halves {last[0]:.1%} and {last[1]:.1%}; {len(result.trained)} trainings, a change "
        f"noticed after {noticed or 'no'} decisions (it came after {half:,}); each eligible action had at least "
        f"{result.least_share:.3f} of its share of the exploration"
    )
    return Measured(figure, holds)


ROW = Row(
    4,
    f"the closed loop: {DECISIONS:,} decisions from a cold start, tastes change half-way",
    f"cumulative reward at least {AT_LEAST:.0%} of the oracle's at the end of each half, above best static and uniform; every "
    "eligible action keeps its floor share",
    measure,
)
