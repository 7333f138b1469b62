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
    repeats,
)

ROWS = [
    crashes.ROW,
    power_loss.ROW,
    corruption.ROW,
    disk_faults.ROW,
    redis_faults.ROW,
    model_faults.ROW,
    hot_swaps.ROW,
    overload.ROW,
    repeats.ROW,
    conservation.ROW,
    front_door.ROW,
    described.ROW,
]
