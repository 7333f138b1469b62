"""Row 1: one catalog that uses everything, and where its candidates go for one request."""

from collections.abc import Iterator
from typing import Any

import httpx

from service.catalog.entities import LAYERS, Catalog
from service.catalog.policies import UNITS
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.footprint import serving
from tests.acceptance.whole import EXAMPLES, whole_home, with_customers

ABOUT = range(55, 66)
ASKED = {
    "placements": [{"id": "home_hero", "slots": 3}, {"id": "app_card", "slots": 2}],
    "context": {"channel": "web", "device": "mobile"},
    "exclude_actions": ["opening_hours"],
    "explain": "summary",
}
CUSTOMERS = 200  # the first of these whose answer drops candidates at the most stages is told


def measure(context: Context) -> Measured:
    home = whole_home(context)
    missing = [name for name, used in mechanisms(home.world.catalog, (EXAMPLES / "catalog.yaml").read_text()) if not used]
    with with_customers(home), serving(home.folder, context) as (_, url, _ready), httpx.Client(base_url=url, timeout=5.0) as web:
        answers = [
            web.post("/recommend", json={"customer_id": f"c{n}", **ASKED}).raise_for_status().json() for n in range(CUSTOMERS)
        ]
        found = [web.get(f"/decisions/{a['decision_id']}").raise_for_status().json() for a in answers]
    told = max(found, key=_stages)
    context.tell(_table(told))
    counts = {p["id"]: p["dropped_by_stage"] for p in told["placements"]}
    actions = len(home.world.actions)
    whole = all(_adds_up(placement, actions) for one in found for placement in one["placements"])
    used = "all mechanisms used" if not missing else f"unused: {', '.join(missing)}"
    dropped = "; ".join(f"{p}: {', '.join(f'{stage} {n}' for stage, n in stages.items())}" for p, stages in counts.items())
    figure = f"{actions} actions; {used}; {told['decision']['customer_id']}: {dropped}"
    return Measured(figure, not missing and actions in ABOUT and whole and _stages(told) >= len(LAYERS))


def mechanisms(catalog: Catalog, text: str) -> Iterator[tuple[str, bool]]:
    """Everything that a catalog can say, and whether this one does."""
    actions, places, policy = catalog.actions, list(catalog.placements.values()), catalog.contact
    rules = [rule for a in actions for rule in a.rules]
    yield from ((f"{layer} rules", any(r.layer == layer for r in rules)) for layer in LAYERS)
    yield "rules of treatments", any(t.rules for a in actions for t in a.treatments)
    yield from (
        (f"{scope}.* in a rule", f"{scope}." in text) for scope in ("customer", "context", "action", "segment", "journey")
    )
    yield from ((f"kind {kind}", any(a.kind == kind for a in actions)) for kind in ("offer", "content", "service", "nothing"))
    yield from ((f"cap per {unit}", any(cap.per == unit for cap in policy.caps)) for unit in UNITS)
    yield from (
        (f"cap on {count}", any(cap.count == count for cap in policy.caps))
        for count in ("decisions", "impressions", "clicks", "conversion")
    )
    yield from ((name, bool(getattr(policy, name))) for name in ("cool_downs", "quiet_hours", "exclusions", "budgets"))
    yield "budget in total and a day", {b.per_day for b in policy.budgets} == {True, False}
    yield "value as a formula", any(a.formula for a in actions)
    yield "context weights", bool(catalog.weights)
    yield "levers", any(a.lever != 1.0 for a in actions)
    yield "mandatory actions", any(a.mandatory for a in actions)
    yield "active dates", any(a.active_until for a in actions)
    yield "factors by placement", len({p.factors for p in places}) > 1
    yield "several objectives", any(len(p.objectives) > 1 for p in places)
    yield "slots", any(p.slots > 1 for p in places)
    yield "repeats", any(p.repeats for p in places)
    yield "epsilon", any(p.explore.epsilon for p in places)
    yield "softmax", any(p.explore.temperature for p in places)
    yield "floor", any(p.explore.floor_share for p in places)
    yield "constraints by number", any(c.at_most is not None for c in catalog.constraints)
    yield (
        "constraints by share",
        any(c.at_most_share for c in catalog.constraints) and any(c.at_least_share for c in catalog.constraints),
    )
    yield "holdout", catalog.holdout is not None
    arms = [arm for experiment in catalog.experiments for arm in experiment.arms]
    yield "overrides of an arm", any(arm.catalog for arm in arms)
    yield "ablations", {arm.ablation for arm in arms} >= {"random", "eligibility_only", "predicted_rate_only", "no_levers"}


def _stages(explained: dict[str, Any]) -> int:
    return len({stage for p in explained["placements"] for stage in p["dropped_by_stage"]})


def _adds_up(placement: dict[str, Any], actions: int) -> bool:
    """Every action has a rank or was dropped, and dropped ones have a reason."""
    dropped = sum(placement["dropped_by_stage"].values())
    ranked = [a for a in placement["actions"] if "rank" in a]
    reasons = all(a.get("reason") for a in placement["actions"] if "rank" not in a)
    return len(placement["actions"]) == actions == dropped + len(ranked) and reasons


def _table(explained: dict[str, Any]) -> str:
    stages = list(dict.fromkeys(stage for p in explained["placements"] for stage in p["dropped_by_stage"]))
    lines = [f"  {'stage':16}" + "".join(f"{p['id']:>12}" for p in explained["placements"])]
    lines += [f"  {s:16}" + "".join(f"{p['dropped_by_stage'].get(s, 0):>12}" for p in explained["placements"]) for s in stages]
    left = [sum("rank" in a for a in p["actions"]) for p in explained["placements"]]
    return "\n".join([*lines, f"  {'candidates left':16}" + "".join(f"{n:>12}" for n in left)])


ROW = Row(
    1,
    "about 60 actions, every mechanism; for one request, candidates dropped by stage",
    "every mechanism used; every action has a rank, or a stage and a reason",
    measure,
)
