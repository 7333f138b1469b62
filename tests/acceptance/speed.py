"""Area `speed`: what a decision costs, beside what people use today and beside what the machine allows."""

from tests.acceptance.rows import latency, scoring, throughput

ROWS = [throughput.ROW, latency.ROW, scoring.ROW]
