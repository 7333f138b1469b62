"""A catalog to start from: every action of a foreign log, for a person to review."""

from collections.abc import Mapping, Sequence

import yaml

NOTHING = ("no ", "nothing", "none", "control")  # how people call the action of leaving someone alone
EPSILON = 0.1

HEADER = """\
# Drafted from an imported table. Give actions their kind, value and rules, then:
#   nextbest catalog check FILE
#   nextbest catalog publish FILE
"""


def draft_catalog(
    actions: Sequence[str],
    placements: Sequence[str],
    types: Mapping[str, str],
    attributes: Mapping[str, Mapping[str, float | str]],
) -> str:
    """The YAML text. `types`: number or category by attribute; `attributes`: values by action."""
    document = {
        "catalog": 1,
        "attributes": dict(types),
        "issues": [{"id": "imported"}],
        "groups": [{"id": "imported", "issue": "imported"}],
        "actions": [_action(action, placements, attributes.get(action, {})) for action in actions],
        "placements": [_placement(placement) for placement in placements],
    }
    return HEADER + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def _action(action: str, placements: Sequence[str], attributes: Mapping[str, float | str]) -> dict[str, object]:
    kind = "nothing" if action.lower().startswith(NOTHING) else "offer"
    treatment = {"id": action, "placements": list(placements), "content": {"title": action}}
    drafted = {"id": action, "group": "imported", "kind": kind, "value": 1.0}
    return drafted | ({"attributes": dict(attributes)} if attributes else {}) | {"treatments": [treatment]}


def _placement(placement: str) -> dict[str, object]:
    return {
        "id": placement, "channel": placement, "slots": 1, "explore": {"epsilon": EPSILON},
        "fallback": {"action": "none", "kind": "nothing", "content": {}},
    }  # fmt: skip
