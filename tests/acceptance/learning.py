"""Area `learning`: that it learns, and proves that it did."""

from tests.acceptance.rows import (
    interval_coverage,
    open_bandit,
    peeking,
    watching,
)

ROWS = [
    open_bandit.ROW,
    interval_coverage.ROW,
    watching.ROW,
    peeking.ROW,
]
