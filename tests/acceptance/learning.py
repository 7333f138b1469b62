"""Area `learning`: that it learns, and proves that it did."""

from tests.acceptance.rows import (
    closed_loop,
    delayed,
    interval_coverage,
    mail,
    millions,
    open_bandit,
    peeking,
    sabotage,
    watching,
)

ROWS = [
    open_bandit.ROW,
    interval_coverage.ROW,
    mail.ROW,
    closed_loop.ROW,
    sabotage.ROW,
    delayed.ROW,
    watching.ROW,
    peeking.ROW,
    millions.ROW,
]
