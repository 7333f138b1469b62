"""Days and moments as people write them on a command line."""

import argparse
import datetime as dt


def start_of(text: str) -> float:
    """A day, from its beginning, or a moment: seconds since 1970 UTC."""
    return _moment(text).timestamp()


def end_of(text: str) -> float:
    """A day, until its end, or a moment."""
    moment = _moment(text)
    return (moment + dt.timedelta(days=1) if _is_day(text) else moment).timestamp()


def _is_day(text: str) -> bool:
    """Whether it says no hour: `2026-11-24`, `20261124`, `2026-W48-2`."""
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _moment(text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"Expected a day like 2026-11-24, or RFC 3339, got `{text}`") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
