"""Area `decision`: the whole decision, its probabilities, its caps, and what can be said of it afterwards."""

from tests.acceptance.rows import (
    concurrent_caps,
    configurations,
    identical_arms,
    large_catalogs,
    mechanisms,
    million,
    replays,
    why_not,
)

MODULES = (mechanisms, configurations, concurrent_caps, replays, why_not, million, large_catalogs, identical_arms)
ROWS = [module.ROW for module in MODULES]
