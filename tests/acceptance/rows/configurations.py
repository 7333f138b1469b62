"""Row 2: for every way of choosing, what is logged is what happens, at every slot, given the earlier ones."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2

from features.contract import Contract, Feature
from service.catalog.validate import load_catalog
from service.decision.contacts import Contact, encode_contacts, type_code
from service.decision.decide import decide
from service.decision.engine import Engine, build_engine, by_priority
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.decision.records import PlacementRecord, Versions
from service.decision.scoring import FlatScorer
from tests.acceptance.row import Context, Measured, Row

DECISIONS = 100_000
AT_ONCE = 4096
SIGNIFICANCE = 0.001
SUM_ERROR = 1e-9
ENOUGH = 2000  # decisions with the same earlier slots: every action that may be chosen has been by then
OVERRIDDEN = 0.02  # share of the choices that somebody replaces after they were logged
NOW = 1_790_000_000.0
CONTRACT = Contract((Feature("age", "number", "profile"), Feature("complaint", "number", "attitude", default=0.0)))
RATES = {"a": 0.30, "b": 0.28, "c": 0.22, "d": 0.2, "e": 0.18, "f": 0.15, "story": 0.1, "urgent": 0.05}

EXPLORATIONS: Mapping[str, dict[str, object]] = {
    "epsilon": {"epsilon": 0.5},
    "softmax": {"softmax": {"temperature": 0.1}},
    "floor": {"floor": {"share": 0.6, "below": 100}},
    "all three": {"epsilon": 0.2, "softmax": {"temperature": 0.1}, "floor": {"share": 0.2, "below": 100}},
}
EVIDENCE = {
    "a": 5000,
    "b": 5000,
    "c": 400,
    "d": 50,
    "e": 20,
    "f": 0,
    "story": 10,
    "urgent": 5000,
}  # rows that a model learned from
SHAPES = ("single slot", "slate", "policies")
CUSTOMERS = (  # two who differ in what they may get, and in what they got before
    CustomerState({"age": 40.0}, contacts=b""),
    CustomerState(
        {"age": 16.0, "complaint": 1.0},
        contacts=encode_contacts([Contact(NOW - 60.0 * n, "b", f"d{n}", "hero", type_code("impression")) for n in (1, 2)]),
    ),
)


class Checked(NamedTuple):
    """One configuration: Pearson's chi-square over all slots, the worst sum of probabilities, and the same after overriding."""

    name: str
    p: float
    freedom: int
    decisions: int
    error: float
    overridden: float


def measure(context: Context) -> Measured:
    found = []
    for number, (exploration, shape) in enumerate(product(EXPLORATIONS, SHAPES)):
        found.append(
            checked(f"{exploration}, {shape}", engine_for(EXPLORATIONS[exploration], shape), shape, context.seed + number)
        )
        one = found[-1]
        context.tell(
            f"  {one.name:26} p = {one.p:.3f} ({one.freedom} degrees of freedom), sums within {one.error:.0e}, "
            f"overridden p = {one.overridden:.0e}"
        )
    holds = all(
        one.decisions == DECISIONS and one.p > SIGNIFICANCE >= one.overridden and one.error <= SUM_ERROR and one.freedom
        for one in found
    )
    figure = (
        f"{len(found)} configurations x {DECISIONS:,}: p from {min(o.p for o in found):.3f} to {max(o.p for o in found):.3f}; "
        f"sums within {max(o.error for o in found):.0e}; {OVERRIDDEN:.0%} overridden: p <= {max(o.overridden for o in found):.0e}"
    )
    return Measured(figure, holds)


def engine_for(explore: Mapping[str, object], shape: str) -> Engine:
    """Eight actions at one placement; with policies, also rules, a cap, an exclusion, quotas and a mandatory action."""
    actions: list[dict[str, object]] = [
        {"id": name, "group": "stories" if name == "story" else "sale" if name in "abc" else "other", "value": 1,
         "kind": "content" if name == "story" else "offer", "treatments": [{"id": name, "placements": ["hero"]}]}
        for name in RATES if name != "urgent" or shape == "policies"
    ]  # fmt: skip
    document: dict[str, object] = {
        "catalog": 1, "issues": [{"id": "all"}],
        "groups": [{"id": name, "issue": "all"} for name in ("sale", "other", "stories")],
        "actions": actions,
        "placements": [{"id": "hero", "channel": "web", "slots": 1 if shape == "single slot" else 3, "explore": explore,
                        "fallback": {"action": "none", "kind": "content"}}],
    }  # fmt: skip
    if shape == "policies":
        actions[-1] |= {"mandatory": True, "eligibility": {"complained": "customer.complaint > 0"}}
        actions[3] |= {"eligibility": {"adult": "customer.age >= 18"}}
        document["contact"] = {
            "caps": [{"name": "twice", "at_most": 2, "per": "action", "window": "1d"}],
            "exclusions": [{"name": "either", "actions": ["e", "f"], "window": "1d"}],
        }
        document["constraints"] = [
            {"name": "one_sale", "where": {"groups": "sale"}, "at_most": 1},
            {"name": "a_story", "where": {"kinds": "content"}, "at_least_share": 0.3},
        ]
    catalog = load_catalog(document, CONTRACT)
    rates = [RATES[action.id] for action in by_priority(catalog)]
    return build_engine(catalog, CONTRACT, FlatScorer(rates), Versions(1, "flat", CONTRACT.fingerprint), EVIDENCE)


def checked(name: str, engine: Engine, shape: str, seed: int) -> Checked:
    """Decide, and count what was chosen against what was claimed."""
    slots = 1 if shape == "single slot" else 3
    groups: dict[object, Group] = defaultdict(Group)
    decisions = 0
    for start in range(0, DECISIONS, AT_ONCE):
        records = decide(engine, list(_requests(slots, seed, start, min(AT_ONCE, DECISIONS - start))))
        decisions += len(records)
        for number, record in enumerate(records, start):
            _count(groups, number % len(CUSTOMERS), record.placements[0])
    judged = [group for group in groups.values() if group.size >= ENOUGH]
    statistic, freedom = chi_square(judged)
    against, of = chi_square(group.overridden(np.random.default_rng(seed)) for group in judged)
    error = max(abs(sum(group.claimed.values()) - 1.0) for group in judged)
    return Checked(name, float(chi2.sf(statistic, freedom)), freedom, decisions, error, float(chi2.sf(against, of)))


def _requests(slots: int, seed: int, start: int, count: int) -> Iterator[DecisionRequest]:
    for number in range(start, start + count):
        customer = CUSTOMERS[number % len(CUSTOMERS)]
        yield DecisionRequest(
            f"r{seed}-{number}", f"c{number}", NOW, customer, {"local_hour": 12.0}, (PlacementRequest("hero", slots),)
        )


class Group:
    """Choices for one slot by the same customer after the same earlier slots: counts, and the claimed probability of each."""

    def __init__(self) -> None:
        self.observed: Counter[str] = Counter()
        self.claimed: dict[str, float] = {}

    @property
    def size(self) -> int:
        return self.observed.total()

    def overridden(self, chance: np.random.Generator) -> "Group":
        """The same, after somebody replaced some of the choices by the least likely action, and the log does not know."""
        other, forced = Group(), min(self.claimed, key=self.claimed.__getitem__)
        moved = {action: int(chance.binomial(count, OVERRIDDEN)) for action, count in self.observed.items()}
        other.claimed = self.claimed
        other.observed = self.observed - Counter(moved) + Counter({forced: sum(moved.values())})
        return other


def _count(groups: dict[object, Group], customer: int, placement: PlacementRecord) -> None:
    earlier: tuple[str, ...] = ()
    for item in placement.items:
        group = groups[customer, earlier]
        group.observed[item.action_id] += 1
        claimed = group.claimed.setdefault(item.action_id, item.choice_probability)
        assert abs(claimed - item.choice_probability) <= SUM_ERROR, f"{item.action_id} after {earlier} carries two probabilities"
        earlier = (*earlier, item.action_id)


def chi_square(groups: Iterable[Group]) -> tuple[float, int]:
    """Pearson: sum of (observed - expected)^2 / expected, and the degrees of freedom."""
    statistic, freedom = 0.0, 0
    for group in groups:
        expected = {action: group.size * claim for action, claim in group.claimed.items()}
        statistic += sum((group.observed[a] - e) ** 2 / e for a, e in expected.items())
        freedom += max(0, len(expected) - 1)
    return statistic, freedom


ROW = Row(
    2,
    "probabilities: 12 ways to choose x 100,000 decisions, slot by slot",
    f"chi-square p > {SIGNIFICANCE}; sums over the allowed within {SUM_ERROR:.0e}; overriding after logging fails",
    measure,
)
