"""`learning.toml`: how long an outcome may take, what a bundle must keep to before it may serve, and which way inputs may work.

    [windows]
    conversion = "7d"
    [gate]
    fairness = ["customer.region"]
    [training]
    weights = "choice"
    [guard]
    less_reward = 0.02
    [monotone]
    "customer.engagement" = 1

What the file does not say holds as it is here.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from features.contract import ContractError, seconds
from service.errors import BadRequest

FILE = "learning.toml"


class GateRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of the gate.

    `segments` and `fairness` are keys of inputs (`customer.region`); without `segments` every category of few values is one.
    `least_exposure`: of the group that is offered most, the share that any other must reach; four fifths by the rule of thumb
    of the Uniform Guidelines on Employee Selection Procedures (1978).
    """

    refresh_margin: float = 0.05  # of the champion's value: what a refresh must be proven not to lose
    level: float = 0.1  # of the observed rate: how far the predicted one may be from it
    slope: float = 0.25  # how far from 1 the slope of a calibration on new rows may be
    segment_level: float = 0.4  # as `level`, in each segment
    segment_loss: float = 0.1  # of the champion's value in a segment: a loss that is more for certain is too much
    auc_jump: float = 0.1  # over the champion's
    auc_alone: float = 0.9  # of one input by itself
    auc_best: float = 0.97  # where there is no champion
    oldest_days: float = 30.0  # from the newest training row to the newest row that is judged
    most_bytes: int = 16_000_000  # of the model: a worker has 200 MB
    most_ms: float = 10.0  # to score one request
    small_bytes: int = 500_000  # a model of less may have any times the champion's: the first one of a home is a few kilobytes
    most_times: float = 4.0  # the champion's size and time
    segments: tuple[str, ...] = ()
    fairness: tuple[str, ...] = ()
    least_exposure: float = 0.8


class GuardRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Guard-rails of a canary; how fast it must be is the gate's to say."""

    few_failures: int = 5  # of its decisions, that are forgiven whatever share they are
    most_failed: float = 0.01  # of its decisions: made by the champion or without a model in its place
    more_fallbacks: float = 0.02  # of the decisions, beyond the champion's share
    less_reward: float = 0.05  # of the champion's outcomes per decision: a loss beyond that is too much


class TrainingRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How rows count in the training: all alike, or `choice`, by 1 / choice probability (`training.choice_weights`).

    `backfill`: whether features that a logged decision could not record are filled as of its moment (`training.backfill`).
    `slot`: whether the slot in which an action stood is an input, where rows have several (`training.slots`).
    """

    weights: Literal["none", "choice"] = "none"
    most: Annotated[float, msgspec.Meta(gt=1.0)] = 10.0  # times the mean: what a single row may weigh
    backfill: Literal["feast", "none"] = "feast"
    slot: Literal["input", "ignore"] = "input"


class LearningRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`windows`: by outcome, how long after a decision it counts (`30min`, `7d`); without one it counts whenever it comes.

    It may be dated up to an hour before the decision, where its sender's clock is slow (`training.examples.CLOCK_BEHIND`).

    `monotone`: by key of an input that is a number, 1 where more of it never lowers the rate, -1 where it never raises it.
    """

    windows: dict[str, str] = {}
    gate: GateRules = GateRules()
    guard: GuardRules = GuardRules()
    training: TrainingRules = TrainingRules()
    monotone: dict[str, Literal[-1, 1]] = {}

    def window(self, outcome: str) -> float | None:
        """In seconds; None without one. Raises ContractError for what is no duration, or none at all."""
        if outcome not in self.windows:
            return None
        if length := seconds(self.windows[outcome]):
            return length
        raise ContractError(f"Expected a window longer than 0 s, got `{self.windows[outcome]}` - at `windows.{outcome}`")


UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*?)`(?: - at `(?P<section>.*)`)?$")  # as msgspec says it


def read_rules(home: Path) -> LearningRules:
    """The rules of a home; the usual ones where it has no file. Raises BadRequest where the file is not understood."""
    path = home / FILE
    if not path.exists():
        return LearningRules()
    try:
        rules = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), LearningRules)
        for outcome in rules.windows:
            rules.window(outcome)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, ContractError) as error:
        raise BadRequest(f"{_told(error)} - at `{path}`") from error
    return rules


def _told(error: Exception) -> str:
    """What was expected and found; of a name that nobody knows, also those that are known there."""
    unknown = UNKNOWN.match(str(error))
    if unknown is None:
        return f"Expected TOML, got something else: {error}" if isinstance(error, tomllib.TOMLDecodeError) else str(error)
    section, usual = (unknown["section"] or "").removeprefix("$."), LearningRules()
    known = ", ".join(f"`{name}`" for name in (getattr(usual, section) if section else usual).__struct_fields__)
    return f"Expected one of {known}, got `{unknown['name']}`" + (f" - in `[{section}]`" if section else "")
