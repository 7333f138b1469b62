"""Values that exist only at the moment of a request. Pure: the moment comes in as an argument."""

from features.contract import Contract, ContractError

REQUEST_TIME_NAMES: tuple[str, ...] = ("hour", "weekday")
DAY = 86_400
FIRST_WEEKDAY = 3  # 1970-01-01 was a Thursday


def request_time_values(at: float) -> dict[str, float]:
    """Values at a moment in seconds since 1970 UTC: `hour` 0 to 23 and `weekday` with Monday as 0, both in UTC."""
    days, rest = divmod(at, DAY)
    return {"hour": float(rest // 3600), "weekday": (days + FIRST_WEEKDAY) % 7}


def check_request_time(contract: Contract) -> None:
    """Raises ContractError where the contract declares a request-time feature that nothing produces."""
    for position, feature in enumerate(contract.features):
        if feature.origin == "request_time" and feature.name not in REQUEST_TIME_NAMES:
            known = ", ".join(f"`{name}`" for name in REQUEST_TIME_NAMES)
            raise ContractError(
                f"Expected a request-time feature among {known}, got `{feature.name}` - at `features[{position}]`"
            )
