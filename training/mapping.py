"""The mapping file: which column of a foreign table means what."""

import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from features.contract import ACTION_ID, CUSTOMER_VIEWS, NAME, clashing
from features.layout import JOIN_KEY
from features.offline import EVENT_TIMESTAMP
from service.errors import ImportInvalid, nearest
from training.lake import IMPRESSION

LOG_KEYS = ("customer_id", "action_id", "choice_probability", "decided_at", "placement", "slot")
FEATURE_TYPES = ("number", "category")
OUTCOME_TYPES = ("binary", "value")
SECTIONS = ("log", "features", "views", "context", "actions", "outcomes", "home")
HOME_KEYS = ("features", "catalog")
LITERAL = "="  # starts a text that stands for itself instead of naming a column
LITERAL_KEYS = ("action_id", "placement")
RESERVED = {"features": (JOIN_KEY, EVENT_TIMESTAMP), "actions": (ACTION_ID,), "outcomes": (IMPRESSION,)}


class TableMapping(msgspec.Struct, frozen=True):
    """A mapping that was read and fits together. Names are columns of the table; action and placement also `=` and a text."""

    action_id: str
    choice_probability: float | str
    customer_id: str | None = None
    decided_at: str | None = None
    placement: str = "=default"
    slot: str | None = None
    features: dict[str, str] = {}  # column -> number | category
    views: dict[str, str] = {}  # column -> view; profile where it is not named
    context: dict[str, str] = {}
    outcomes: dict[str, str] = {}  # column -> binary | value
    actions_table: str | None = None
    actions_key: str | None = None
    attributes: dict[str, str] = {}
    contract_file: str | None = None  # features.yaml to work with, beside the mapping; else one is derived from the table
    catalog_file: str | None = None  # catalog.yaml to start from; else one is drafted

    @property
    def columns(self) -> dict[str, str]:
        """Every column that the table must have, and what for."""
        log = {"customer_id": self.customer_id, "action_id": self.action_id, "decided_at": self.decided_at, "slot": self.slot}
        wanted = {column: f"log.{key}" for key, column in log.items() if column and not column.startswith(LITERAL)}
        for key, value in (("placement", self.placement), ("choice_probability", self.choice_probability)):
            if isinstance(value, str) and not value.startswith(LITERAL):
                wanted[value] = f"log.{key}"
        for section in ("features", "context", "outcomes"):
            wanted |= {column: f"{section}.{column}" for column in getattr(self, section)}
        return wanted

    @property
    def texts(self) -> list[str]:
        """Columns whose values are names, also where they look like numbers: `007` is not `7`."""
        kinds = [*self.features.items(), *self.context.items()]
        categories = [column for column, kind in kinds if kind == "category"]
        return [column for column in (self.customer_id, self.action_id, self.placement, *categories) if column]


def read_mapping(path: Path) -> TableMapping:
    """Raises ImportInvalid with every mistake and its line."""
    try:
        text = path.read_text()
        return _Mapping(path.name, text, tomllib.loads(text)).check()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ImportInvalid([f"Expected a mapping file, found none - at `{path}`"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ImportInvalid([f"{path.name}: Expected TOML, got something else: {error}"]) from error


class _Mapping:
    """Checks a document section by section and collects what is wrong."""

    def __init__(self, where: str, text: str, document: Mapping[str, Any]) -> None:
        self._where = where
        self._lines = text.splitlines()
        self._document = document
        self._problems: list[str] = []

    def check(self) -> TableMapping:
        for name in self._document:
            if name not in SECTIONS:
                self._add(name, "", f"Expected a known section{nearest(name, SECTIONS)}, got `{name}`")
        log = self._log()
        features = self._typed("features", FEATURE_TYPES)
        actions = self._section("actions")
        attributes = {k: v for k, v in actions.items() if k not in ("table", "key")}
        self._check_types("actions", attributes, FEATURE_TYPES)
        for key in ("table", "key"):
            if actions and not isinstance(actions.get(key), str):
                self._add("actions", key, f"Expected a text, got `{actions.get(key)}`")
        views = self._views(features)
        context, outcomes = self._typed("context", FEATURE_TYPES), self._typed("outcomes", OUTCOME_TYPES)
        if not outcomes:
            self._add("outcomes", "", "Expected at least one outcome, got none")
        home = self._section("home")
        for key, value in home.items():
            if key not in HOME_KEYS:
                self._add("home", key, f"Expected a known key{nearest(key, HOME_KEYS)}, got `{key}`")
            elif not isinstance(value, str):
                self._add("home", key, f"Expected the name of a file, got `{value}`")
        if self._problems:
            raise ImportInvalid(self._problems)
        return TableMapping(
            **log, features=features, views=views, context=context, outcomes=outcomes, attributes=attributes,
            actions_table=actions.get("table"), actions_key=actions.get("key"),
            contract_file=home.get("features"), catalog_file=home.get("catalog"),
        )  # fmt: skip

    def _log(self) -> dict[str, Any]:
        log = self._section("log")
        for key, value in log.items():
            if key not in LOG_KEYS:
                self._add("log", key, f"Expected a known key{nearest(key, LOG_KEYS)}, got `{key}`")
            elif key == "choice_probability" and isinstance(value, float | int) and not isinstance(value, bool):
                if not 0 < value <= 1:
                    self._add("log", key, f"Expected a probability above 0 and at most 1, got `{value}`")
            elif not _says_where(key, value):
                number = "a number or " if key == "choice_probability" else ""
                self._add("log", key, f"Expected {number}the name of a column, got `{value}`")
        for key in ("action_id", "choice_probability"):
            if key not in log:
                self._add("log", "", f"Expected key `{key}`, got none")
        return {key: value for key, value in log.items() if key in LOG_KEYS}

    def _typed(self, section: str, types: Collection[str]) -> dict[str, str]:
        entries = self._section(section)
        self._check_types(section, entries, types)
        return {key: str(value) for key, value in entries.items()}

    def _check_types(self, section: str, entries: Mapping[str, Any], types: Collection[str]) -> None:
        for key, value in entries.items():
            if value not in types:
                self._add(section, key, f"Expected one of {', '.join(f'`{t}`' for t in types)}, got `{value}`")
            if (key.lower() if section == "features" else key) in RESERVED.get(section, ()):
                self._add(section, key, f"Expected a column of another name, got `{key}`, which is taken")
            elif section == "actions" and not (NAME.match(key) and key == key.lower()):
                self._add(section, key, f"Expected a column named with a-z, 0-9 and `_`, as catalogs do, got `{key}`")
            elif section != "outcomes" and NAME.match(key) is None:
                self._add(section, key, f"Expected a column named with letters, digits and `_`, got `{key}`")
        for one, other in clashing(entries) if section in ("features", "context") else ():
            self._add(section, other, f"Expected names that differ in more than their case, got `{one}` and `{other}`")

    def _views(self, features: Mapping[str, str]) -> dict[str, str]:
        views: dict[str, str] = {}
        for view, columns in self._section("views").items():
            if view not in CUSTOMER_VIEWS:
                self._add("views", view, f"Expected a view{nearest(view, CUSTOMER_VIEWS)}, got `{view}`")
            for column in columns if isinstance(columns, list) else [columns]:
                if str(column) not in features:
                    self._add(
                        "views", view, f"Expected a column of [features]{nearest(str(column), list(features))}, got `{column}`"
                    )
                elif str(column) in views:
                    self._add("views", view, f"Expected each column in one view, got `{column}` again")
                views[str(column)] = view
        return views

    def _section(self, name: str) -> dict[str, Any]:
        section = self._document.get(name, {})
        if not isinstance(section, dict):
            self._add(name, "", f"Expected a section, got `{section}`")
            return {}
        return section

    def _add(self, section: str, key: str, message: str) -> None:
        place = f"{section}.{key}" if key else section
        self._problems.append(f"{self._where}: line {self._line(section, key)}: {message} - at `{place}`")

    def _line(self, section: str, key: str) -> int:
        """Where a key stands; its section where it does not. tomllib keeps no lines."""
        opening = (rf"\s*\[+\s*{re.escape(section)}\b", rf"\s*{re.escape(section)}\b")  # `log.slot = ...` needs no header
        start = next((n for sign in opening for n, line in enumerate(self._lines, 1) if re.match(sign, line)), 1)
        wanted = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
        return next((n for n, line in enumerate(self._lines, 1) if key and n > start and wanted.match(line)), start)


def _says_where(key: str, value: object) -> bool:
    """Whether a value of [log] can name a column, or stand for itself where that makes sense."""
    if not isinstance(value, str) or value in ("", LITERAL):
        return False
    return key in LITERAL_KEYS or not value.startswith(LITERAL)
