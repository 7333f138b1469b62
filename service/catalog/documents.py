"""A YAML document as plain values, with the line of everything in it."""

import math
from typing import Any, NamedTuple

import yaml

from service.errors import CatalogInvalid

LARGEST = 10 * 2**20  # bytes
MOST_NODES = 500_000  # after aliases are expanded: bounds what a small document can blow up to
DEEPEST = 50  # levels; also ends an alias that contains itself
LARGEST_WHOLE = 2**63  # what JSON readers everywhere take
TAG = "tag:yaml.org,2002:"
TEXT_TAGS = ("str", "timestamp", "value", "merge")
ON = "on"  # to YAML a truth, like `yes`; as a key it is the word, which alerts are declared with
PLAIN_TAGS = ("int", "float", "bool", "null")  # dates stay the text that was written


class Document(NamedTuple):
    """Plain values (dict, list, str, float, int, bool, None), and the line of each path, counted from 1."""

    values: dict[str, Any]
    lines: dict[str, int]


def read_document(text: str, where: str) -> Document:
    """Raises CatalogInvalid: no YAML, no mapping, a key twice or not a text, too large."""
    if len(text.encode()) > LARGEST:
        raise CatalogInvalid([f"{where}: Expected at most {LARGEST} bytes, got {len(text.encode())}"])
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        root = loader.get_single_node()
        reader = _Reader(loader, where)
        values = reader.read(root, "") if root is not None else None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise CatalogInvalid([f"{where}: {line}Expected YAML, got something else: {error.problem}"]) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise CatalogInvalid([f"{where}: Expected YAML, got something else: {error}"]) from error
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise CatalogInvalid([f"{where}: line 1: Expected a mapping, got {type(values).__name__}"])
    if reader.problems:
        raise CatalogInvalid(reader.problems)
    return Document(values, reader.lines)


class _Reader:
    """Turns nodes into values and remembers their lines."""

    def __init__(self, loader: Any, where: str) -> None:  # noqa: ANN401  # either of PyYAML's loaders
        self._loader = loader
        self._where = where
        self._left = MOST_NODES
        self._level = 0
        self.lines: dict[str, int] = {}
        self.problems: list[str] = []

    def read(self, node: yaml.Node, path: str) -> Any:  # noqa: ANN401  # plain values of any kind
        self._left -= 1
        if self._left < 0:
            raise yaml.YAMLError(f"more than {MOST_NODES} values after aliases are expanded")
        self.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if self._level == DEEPEST:
            raise yaml.YAMLError(f"more than {DEEPEST} levels at line {node.start_mark.line + 1}")
        self._level += 1
        values = self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._list(node, path)
        self._level -= 1
        return values

    def _list(self, node: yaml.Node, path: str) -> list[Any]:
        return [self.read(child, f"{path}[{i}]") for i, child in enumerate(node.value)]

    def _scalar(self, node: yaml.ScalarNode) -> str | float | bool | None:
        """Numbers, truths and null as such, anything else as the text that was written."""
        kind = node.tag.removeprefix(TAG)
        if kind in TEXT_TAGS:
            return str(node.value)
        if kind not in PLAIN_TAGS:
            self._refuse(node, "a plain value", node.tag)
            return None
        try:
            value: float | bool | None = self._loader.construct_object(node)
        except (ValueError, LookupError, OverflowError):  # of `!!int abc`, `!!bool maybe`, `!!float ''`, or too many digits
            value = math.nan
        if isinstance(value, int | float) and not abs(value) < (math.inf if isinstance(value, float) else LARGEST_WHOLE):
            self._refuse(node, "`true` or `false`" if kind == "bool" else "a finite number", node.value[:40])
        return value

    def _refuse(self, node: yaml.Node, expected: str, got: str) -> None:
        line = node.start_mark.line + 1
        self.problems.append(f"{self._where}: line {line}: Expected {expected}, got `{got}`")

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(key, "a text as key", key.id)
            elif key.tag != f"{TAG}str" and key.value != ON:
                self._refuse(key, "a text as key (quote it)", key.value)
            elif key.value in values:
                self._refuse(key, "each key once", key.value)
            else:
                place = f"{path}.{key.value}" if path else key.value
                values[key.value] = self.read(value, place)
                self.lines[place] = key.start_mark.line + 1
        return values
