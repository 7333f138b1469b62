"""The life of a catalog: what differs between two revisions, and going back to one."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec


class Difference(msgspec.Struct, frozen=True):
    """One place where two documents differ; None stands for nothing there."""

    path: str
    before: Any
    after: Any

    @property
    def text(self) -> str:
        """`~ actions.gold.lever: 2 -> 3`, with + and - for what came and what went."""
        if self.before is None:
            return f"+ {self.path}: {_short(self.after)}"
        if self.after is None:
            return f"- {self.path}: {_short(self.before)}"
        return f"~ {self.path}: {_short(self.before)} -> {_short(self.after)}"


def differences(before: Any, after: Any, path: str = "") -> Iterator[Difference]:  # noqa: ANN401  # documents nest freely
    """Where two documents differ. Things of a list are told apart by their ids or names, and their order is told by itself.

    It counts: the first treatment whose rules pass is shown, and experiments share out the customers one after the other.
    """
    if before == after:
        return
    old, new = _by_name(before), _by_name(after)
    if old is None or new is None:
        yield Difference(path or "$", before, after)
        return
    if isinstance(before, list):
        kept = [key for key in old if key in new], [key for key in new if key in old]
        if kept[0] != kept[1]:
            yield Difference(f"{path} (order)", *kept)
    for key in dict.fromkeys([*old, *new]):
        yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)


def _by_name(value: Any) -> Mapping[str, Any] | None:  # noqa: ANN401  # documents nest freely
    """A mapping as it is; a list of named things as a mapping by name; None for anything else."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list) and value:
        names = [str(item.get("id", item.get("name"))) if isinstance(item, Mapping) else "None" for item in value]
        if "None" not in names and len(set(names)) == len(names):
            return dict(zip(names, value, strict=True))
    return None


def _short(value: Any) -> str:  # noqa: ANN401  # documents nest freely
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 100 else f"{text[:97]}..."  # noqa: PLR2004  # what fits on a line
