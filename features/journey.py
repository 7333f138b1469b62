"""`journey.yaml`: the stages that a customer can be in, the events that lead from one to another, and time-outs."""

import msgspec
import yaml

from features.contract import NAME, ContractError, Journey, Move, Stage, duration, seconds
from features.walk import condition_of

MOST_STAGES = 64
MOST_CONDITIONS = 32  # different pairs of a type and properties that moves ask for
MOST_FILTERED = 4  # of them, those that ask one type for properties: what is kept grows with two to this power


class _DeclaredMove(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    to: str
    where: dict[str, float | str] = {}


class _DeclaredStage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stage as people write it: types and where they lead, or a list where properties matter; one time-out."""

    on: dict[str, str] | tuple[_DeclaredMove, ...] = {}
    after: dict[str, str] = {}

    def stage(self, name: str, where: str) -> Stage:
        """Raises ContractError where there is more than one time-out, or its duration is none."""
        listed = [_DeclaredMove(*pair) for pair in self.on.items()] if isinstance(self.on, dict) else self.on
        moves = tuple(Move(move.type, move.to, move.where) for move in listed)
        if not self.after:
            return Stage(name, moves)
        if len(self.after) > 1:
            raise ContractError(f"Expected at most one time-out, got {', '.join(self.after)} - at `{where}.after`")
        [(text, then)] = self.after.items()
        try:
            after = seconds(text)
        except ContractError as error:
            raise ContractError(f"{error} - at `{where}.after`") from error
        if after < 1:
            raise ContractError(f"Expected a time-out of at least 1 s, got `{text}` - at `{where}.after`")
        return Stage(name, moves, after, then)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    start: str
    stages: dict[str, _DeclaredStage]


def parse_journey(text: str, where: str = "journey.yaml") -> Journey:
    """The journey that a document declares. Raises ContractError."""
    try:
        document = msgspec.convert(_with_on(yaml.safe_load(text)), _Document)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ContractError(f"{where}: {error}") from error
    stages = tuple(declared.stage(name, f"{where}: stages.{name}") for name, declared in document.stages.items())
    journey = Journey(document.start, stages)
    _check_stages(journey, where)
    _check_conditions(journey, where)
    _check_time_outs(journey, where)
    _check_reach(journey, where)
    return journey


def _with_on(document: object) -> object:
    """YAML takes a bare `on` for a truth; here it is a word."""
    if not isinstance(document, dict) or not isinstance(document.get("stages"), dict):
        return document
    stages = {
        name: {"on" if key is True else key: value for key, value in stage.items()} if isinstance(stage, dict) else stage
        for name, stage in document["stages"].items()
    }
    return {**document, "stages": stages}


def _check_stages(journey: Journey, where: str) -> None:
    known = ", ".join(journey.names)
    if not 1 <= len(journey.stages) <= MOST_STAGES:
        raise ContractError(f"Expected 1 to {MOST_STAGES} stages, got {len(journey.stages)} - at `{where}: stages`")
    for name in journey.names:
        if NAME.match(name) is None:
            raise ContractError(f"Expected a stage of letters, digits and `_`, got `{name}` - at `{where}: stages`")
    if journey.start not in journey.names:
        raise ContractError(f"Expected one of the stages ({known}), got `{journey.start}` - at `{where}: start`")
    for stage in journey.stages:
        for target, place in [
            *((move.to, f"on.{move.type}") for move in stage.moves),
            *([(stage.then, "after")] * bool(stage.then)),
        ]:
            if target not in journey.names:
                raise ContractError(
                    f"Expected one of the stages ({known}), got `{target}` - at `{where}: stages.{stage.name}.{place}`"
                )


def _check_conditions(journey: Journey, where: str) -> None:
    """Raises ContractError where there are too many, or one hides another."""
    conditions = {condition_of(move) for stage in journey.stages for move in stage.moves}
    if len(conditions) > MOST_CONDITIONS:
        raise ContractError(f"Expected at most {MOST_CONDITIONS} different moves, got {len(conditions)} - at `{where}: stages`")
    filtered = [kind for kind, wanted in conditions if wanted]
    for kind in filtered:
        if filtered.count(kind) > MOST_FILTERED:
            found = filtered.count(kind)
            raise ContractError(
                f"Expected at most {MOST_FILTERED} different `where` of `{kind}`, got {found} - at `{where}: stages`"
            )
    for stage in journey.stages:
        for later, move in enumerate(stage.moves):
            if any(one.type == move.type and one.where.items() <= move.where.items() for one in stage.moves[:later]):
                place = f"{where}: stages.{stage.name}.on.{move.type}"
                raise ContractError(
                    f"Expected a move that can happen, got one after another that takes its events - at `{place}`"
                )


def _check_time_outs(journey: Journey, where: str) -> None:
    """Raises ContractError where one leads to the next in a circle: nobody would be anywhere."""
    then = {stage.name: stage.then for stage in journey.stages if stage.then}
    for name in then:
        passed = [name]
        while (following := then.get(passed[-1])) is not None:
            if following in passed:
                circle = " -> ".join([*passed[passed.index(following) :], following])
                raise ContractError(
                    f"Expected time-outs that end somewhere, got {circle} - at `{where}: stages.{following}.after`"
                )
            passed.append(following)


def _check_reach(journey: Journey, where: str) -> None:
    leads = {stage.name: {*(move.to for move in stage.moves), *([stage.then] if stage.then else [])} for stage in journey.stages}
    reached, ahead = set[str](), [journey.start]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead.extend(leads[name])
    for name in journey.names:
        if name not in reached:
            raise ContractError(f"Expected stages that something leads to, got `{name}` - at `{where}: stages.{name}`")


def journey_document(journey: Journey) -> str:
    """The YAML document that declares this journey: the inverse of `parse_journey`."""
    rows = {stage.name: _row(stage) for stage in journey.stages}
    return yaml.safe_dump({"start": journey.start, "stages": rows}, sort_keys=False, width=120)


def _row(stage: Stage) -> dict[str, object]:
    moves: list[dict[str, object]] = [msgspec.to_builtins(move) for move in stage.moves]
    row: dict[str, object] = {"on": moves} if moves else {}
    return row if stage.after is None else {**row, "after": {duration(stage.after): stage.then}}
