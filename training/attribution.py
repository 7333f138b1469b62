"""How long the service knows ids, for commands that run beside it: its setting, from the environment that they share."""

import os

WINDOW = "NEXTBEST_ATTRIBUTION_DAYS"
WINDOW_DAYS = 30.0  # where nobody set another
DAY = 86_400.0


def ids_kept_s() -> float:
    """The attribution window and a day, in seconds."""
    return (float(os.environ.get(WINDOW) or WINDOW_DAYS) + 1.0) * DAY
