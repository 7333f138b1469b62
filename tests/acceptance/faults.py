"""Area `faults`: what holds when processes, disks, stores, models and clients fail."""

from tests.acceptance.rows import conservation, corruption, crashes, disk_faults, power_loss
from tests.acceptance.rows.unwritten import unwritten

ROWS = [
    crashes.ROW,
    power_loss.ROW,
    corruption.ROW,
    disk_faults.ROW,
    unwritten(5, "Redis: slow, gone, emptied, full", "every /recommend answered within its deadline"),
    unwritten(6, "models: damaged, wrong contract, slow", "the one before goes on serving"),
    unwritten(7, "a hot swap under load", "no failed request"),
    unwritten(8, "overload", "answers within the deadline, the rest refused at once"),
    unwritten(9, "idempotency over workers and restarts", "the same id, the same answer, once"),
    conservation.ROW,
    unwritten(11, "keys", "nothing without one; none in any log"),
    unwritten(12, "schemathesis against the running service", "no answer outside of the document"),
]
