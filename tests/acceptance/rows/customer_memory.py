"""Row 8: what a customer takes in Redis."""

from loadtests.redis_memory import CONTACTS, FEATURES, kept
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.speed_place import speed_place

CUSTOMERS = 1_000_000
MOST_BYTES = 3000.0


def measure(context: Context) -> Measured:
    with speed_place(context) as place:
        found = kept(place, CUSTOMERS)
    both = found.features_bytes + found.contacts_bytes
    figure = (
        f"{found.customers:,} customers: {both / 1e3:.2f} KB each, {found.features_bytes / 1e3:.2f} of them features and "
        f"{found.contacts_bytes / 1e3:.2f} contacts; {found.resident_bytes / 1e3:.2f} KB resident; {found.right} of "
        f"{found.sampled} read as they should"
    )
    return Measured(figure, both <= MOST_BYTES and found.right == found.sampled)


ROW = Row(
    8,
    f"memory in Redis for a customer with {FEATURES} features and {CONTACTS} contacts",
    f"at most {MOST_BYTES / 1e3:g} KB, {CUSTOMERS:,} loaded and measured",
    measure,
)
