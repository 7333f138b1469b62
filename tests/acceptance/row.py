"""What a row of an acceptance table is made of."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class NotRun(Exception):
    """A row could not be measured; the message says what is missing and how to get it. Counts as failed."""


class Measured(NamedTuple):
    """What was found, in words with units, and whether the bar holds."""

    figure: str
    holds: bool


class Context(NamedTuple):
    """What every row may use: the project's root, a folder that goes away afterwards, a seed, and a way to tell progress."""

    root: Path
    scratch: Path
    seed: int
    tell: Callable[[str], None]


class Row(NamedTuple):
    """One promise. `measure` raises NotRun where it cannot be measured."""

    number: int
    name: str
    bar: str
    measure: Callable[[Context], Measured]
