"""Values that exist only at the moment of a request. The moment comes in as an argument."""

import datetime as dt
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from features.contract import Contract, ContractError

REQUEST_TIME_NAMES: tuple[str, ...] = ("hour", "weekday", "local_hour")
TIME_ZONE = "time_zone"  # where the zone is told: a feature of the customer, or in the context
DAY = 86_400
QUARTER = 900
LONGEST_ZONE = 64  # characters; those that there are have 32 at most
FIRST_WEEKDAY = 3  # 1970-01-01 was a Thursday


def request_time_values(at: float, *time_zones: object) -> dict[str, float]:
    """Values at a moment in seconds since 1970 UTC.

    `hour` 0 to 23 and `weekday` with Monday as 0, both in UTC; `local_hour` with its fraction in the first of `time_zones` that
    is one, such as `Europe/Berlin`, or in UTC where none is.
    """
    days, rest = divmod(at, DAY)
    local = rest
    for zone in time_zones:
        if is_zone(zone):
            local = (rest + _offset(zone, at // QUARTER)) % DAY
            break
    return {"hour": float(rest // 3600), "weekday": (days + FIRST_WEEKDAY) % 7, "local_hour": local / 3600}


def is_zone(name: object) -> bool:
    """Whether there is such a time zone. A long text is none, and is not remembered."""
    return isinstance(name, str) and 0 < len(name) <= LONGEST_ZONE and _is_there(name)


@lru_cache(maxsize=4096)  # to look for one that is none among files takes 0.1 ms
def _is_there(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


@lru_cache(maxsize=4096)  # zones in use times quarters of an hour: an offset changes on a quarter, if it changes
def _offset(time_zone: object, quarter: float) -> float:
    """Seconds that a zone is ahead of UTC."""
    offset = dt.datetime.fromtimestamp(quarter * QUARTER, ZoneInfo(str(time_zone))).utcoffset()
    return offset.total_seconds() if offset else 0.0


def check_request_time(contract: Contract) -> None:
    """Raises ContractError where the contract declares a request-time feature that nothing produces."""
    for position, feature in enumerate(contract.features):
        if feature.origin == "request_time" and feature.name not in REQUEST_TIME_NAMES:
            known = ", ".join(f"`{name}`" for name in REQUEST_TIME_NAMES)
            raise ContractError(
                f"Expected a request-time feature among {known}, got `{feature.name}` - at `features[{position}]`"
            )
