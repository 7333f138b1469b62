"""Row 5: `nextbest decide`, on one core for its rate, and over a million customers for its memory."""

import os
import statistics

from loadtests.batch_rate import decided
from loadtests.redis_memory import CONTACTS, load
from loadtests.world import ACTIONS
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.speed_place import speed_place

CUSTOMERS, SOME = 1_000_000, 100_000
ROUNDS = 3  # over some customers on one core: the median of them
A_SECOND, MOST_MB = 8000.0, 2000.0


def measure(context: Context) -> Measured:
    cores = tuple(range(os.cpu_count() or 1))
    with speed_place(context) as place:
        context.tell(f"loading {CUSTOMERS:,} customers into Redis ...")
        load(place, CUSTOMERS)
        rates = [decided(place, context.scratch, f"some-{n}", SOME, cores[:1]).per_second for n in range(ROUNDS)]
        context.tell(f"one core: {', '.join(f'{rate:,.0f}' for rate in rates)} a second")
        whole = decided(place, context.scratch, "all", CUSTOMERS, cores)
    rate = statistics.median(rates)
    figure = (
        f"{rate:,.0f}/s on one core ({', '.join(f'{one:,.0f}' for one in rates)}), Redis on another; {CUSTOMERS:,} on "
        f"{len(cores)} cores, Redis among them: {whole.per_second:,.0f}/s, {whole.megabytes:,.0f} MB in all processes but Redis"
    )
    return Measured(figure, rate >= A_SECOND and whole.megabytes <= MOST_MB)


ROW = Row(
    5,
    f"a batch: {ACTIONS} actions, customers with {CONTACTS} contacts; claimed, logged, written to Parquet",
    f"at least {A_SECOND:,.0f} decisions/s a core; {CUSTOMERS:,} customers within {MOST_MB / 1000:g} GB",
    measure,
)
