"""Whether Redis holds all it should: a mark that goes with everything else when somebody empties it.

Without the mark, what Redis does not know may have happened all the same: caps count as reached, consents as denied, and
features that events feed are missing, until `nextbest rebuild` is through. Where nothing was ever written down there is nothing
to miss.
"""

from pathlib import Path

from service.stores.redis_link import RedisLink
from service.stores.resp import encode

COMPLETE = "nb:complete"
WRITTEN = (
    "log/decisions", "log/outcomes", "log/events", "log/identities", "log/consents", "lake/events", "lake/decisions/manifests",
    "lake/outcomes/manifests", "lake/identities/manifests", "lake/consents/manifests",
)  # fmt: skip
ELSEWHERE = "lake.url"  # the lake lies elsewhere: what is in it is not asked for at every start


def nothing_written(home: Path) -> bool:
    """Whether nothing has happened that Redis could have forgotten."""
    return not (home / ELSEWHERE).exists() and not any(path.is_file() for kind in WRITTEN for path in (home / kind).rglob("*"))


async def set_complete(link: RedisLink) -> None:
    """From now on, what Redis does not know has not happened. Raises DependencyFailed."""
    await link.ask(encode("SET", COMPLETE, "1"), 1)
