"""Area `speed`: what a decision costs, beside what people use today and beside what the machine allows."""

from tests.acceptance.rows import (
    batch_width,
    customer_memory,
    growth,
    latency,
    scoring,
    stage_times,
    throughput,
    two_workers,
    worker,
)

ROWS = [
    throughput.ROW,
    latency.ROW,
    scoring.ROW,
    stage_times.ROW,
    batch_width.ROW,
    worker.ROW,
    growth.ROW,
    customer_memory.ROW,
    two_workers.ROW,
]
