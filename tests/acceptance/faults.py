"""Area `faults`: what holds when processes, disks, stores, models and clients fail."""

from tests.acceptance.rows import (
    conservation,
    corruption,
    crashes,
    described,
    disk_faults,
    front_door,
    hot_swaps,
    model_faults,
    overload,
    power_loss,
    redis_faults,
)
from tests.acceptance.rows.unwritten import unwritten

ROWS = [
    crashes.ROW,
    power_loss.ROW,
    corruption.ROW,
    disk_faults.ROW,
    redis_faults.ROW,
    model_faults.ROW,
    hot_swaps.ROW,
    overload.ROW,
    unwritten(9, "200 ids x 50 concurrent duplicates across a restart", "exactly one effect each; a different body: 422"),
    conservation.ROW,
    front_door.ROW,
    described.ROW,
]
