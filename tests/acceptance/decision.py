"""Area `decision`: the whole decision, its probabilities, its caps, and what can be said of it afterwards."""

from tests.acceptance.rows import concurrent_caps, configurations, mechanisms

ROWS = [mechanisms.ROW, configurations.ROW, concurrent_caps.ROW]
