"""Row 4: where the time of a decision goes."""

from loadtests.sampled import STAGES
from loadtests.stages import BEGIN, IDLE, stages
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.speed_place import speed_place

PAGE = "docs/performance.md"
TOLD = 0.85  # of the time by the clock: the rest is waiting for the disk and what others take of the core
SAMPLES = 1000


def measure(context: Context) -> Measured:
    with speed_place(context) as place:
        found = stages(place)
    page = (context.root / PAGE).read_text()
    in_page = BEGIN in page and all(f"| {stage} |" in page for stage in STAGES)
    largest = sorted(found.by_stage, key=lambda stage: -found.by_stage[stage])
    told = "; ".join(f"{stage} {found.by_stage[stage]:.0f}" for stage in largest if stage != IDLE)
    figure = (
        f"{found.total_us:.0f} us a decision by the clock, {found.told:.0%} of it in stages, from {found.samples:,} samples: "
        f"{told}; {'in' if in_page else 'not in'} {PAGE}"
    )
    return Measured(figure, TOLD <= found.told <= 1.05 and found.samples >= SAMPLES and in_page)


ROW = Row(
    4,
    "where the time goes: a server that answers all it can on one core, looked at every 4 ms of processor time",
    f"microseconds by stage, in {PAGE}, that add up to at least {TOLD:.0%} of the time by the clock",
    measure,
)
