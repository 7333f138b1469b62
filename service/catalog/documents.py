"""A YAML document as plain values, with the line of everything in it."""

from typing import Any, NamedTuple

import yaml

from service.errors import CatalogInvalid

LARGEST = 10 * 2**20  # bytes
MOST_NODES = 500_000  # after aliases are expanded: bounds what a small document can blow up to
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
    except yaml.YAMLError as error:
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
        self.lines: dict[str, int] = {}
        self.problems: list[str] = []

    def read(self, node: yaml.Node, path: str) -> Any:  # noqa: ANN401  # plain values of any kind
        self._left -= 1
        if self._left < 0:
            raise yaml.YAMLError(f"more than {MOST_NODES} values after aliases are expanded")
        self.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(child, f"{path}[{i}]") for i, child in enumerate(node.value)]
        plain = node.tag.rpartition(":")[2] in PLAIN_TAGS
        return self._loader.construct_object(node) if plain else node.value

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(f"{self._where}: line {line}: Expected a text as key, got a {key.id}")
            elif key.value in values:
                self.problems.append(f"{self._where}: line {line}: Expected each key once, got `{key.value}` again")
            else:
                values[key.value] = self.read(value, f"{path}.{key.value}" if path else key.value)
        return values
