"""What a catalog says beyond actions and rules: layers, segments, formulas, contact policy, slates, experiments."""

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml

from features.contract import parse_contract
from features.journey import parse_journey
from service.catalog.bounds import OWN_REASONS
from service.catalog.entities import FACTORS, PRIMARY, Exploration
from service.catalog.policies import Budget, Cap, Constraint, CoolDown, Exclusion, QuietHours, Selector
from service.catalog.validate import load_catalog, parse_catalog
from service.decision.board import EXCLUDED_BY_REQUEST, NOT_REQUESTED, SHOWN_ELSEWHERE
from service.decision.contact_policy import NO_CONTACT_HISTORY
from service.decision.eligibility import ACTIVE_DATES, NOT_SHOWN_HERE
from service.decision.experiments import CANARY, HOLDOUT, NOT_PERSONALISED
from service.errors import CatalogInvalid

EXAMPLES = Path(__file__).parents[4] / "docs" / "examples"
RICH = (Path(__file__).parent / "rich.yaml").read_text()
DAY = 86_400.0


@pytest.fixture(scope="module")
def rich(contract):
    return parse_catalog(RICH, contract, "rich.yaml")[1]


@pytest.fixture
def gold(rich):
    return next(action for action in rich.actions if action.id == "gold")


def problems(text, contract):
    with pytest.raises(CatalogInvalid) as refused:
        parse_catalog(text, contract, "rich.yaml")
    return refused.value.problems


def test_rules_are_inherited_downwards_layer_by_layer(gold):
    """Eligibility of all levels first, then applicability, then suitability; within a layer from the issue down."""
    assert [(rule.layer, rule.name) for rule in gold.rules] == [
        ("eligibility", "calm"),
        ("applicability", "has_visits"),
        ("applicability", "only_the_best"),
        ("suitability", "can_afford"),
    ]


def test_a_segment_stands_for_its_condition_also_within_another_segment(gold):
    """The best are loyal and grown up."""
    rule = next(rule for rule in gold.rules if rule.name == "only_the_best")
    assert rule.passes({"visits_30d": 8.0, "age": 18.0}, {})
    assert not rule.passes({"visits_30d": 8.0, "age": 17.0}, {})
    assert set(rule.needs) == {"customer.visits_30d", "customer.age"}


def test_a_treatment_has_rules_of_its_own(gold):
    """The first is for the loyal, the second for everybody."""
    assert [[rule.name for rule in treatment.rules] for treatment in gold.treatments] == [["is_loyal"], []]


def test_a_value_may_be_a_formula_over_customer_and_action(gold):
    """The margin less the cost of a complaint; a number stands in where something is missing."""
    found = gold.formula.formula(
        {"complaint": np.array([[0.0], [2.0]])}, {}, {"margin": np.array([30.0]), "cost": np.array([5.0])}
    )
    assert found.tolist() == [[30.0], [20.0]]
    assert gold.formula.otherwise == 2.0


def test_a_placement_says_how_it_ranks_and_explores(rich):
    """Factors, objectives and exploration, each with its default."""
    hero, side, mail = (rich.placements[name] for name in ("hero", "side", "mail"))
    assert hero.explore == Exploration(epsilon=0.1, floor_share=0.05, floor_below=200)
    assert side.explore == Exploration(temperature=0.2)
    assert (hero.factors, side.factors) == (FACTORS, ("rate", "value"))
    assert (hero.objectives, mail.objectives) == ({PRIMARY: 1.0}, {PRIMARY: 0.5, "conversion": 2.0})
    assert (hero.repeats, side.repeats) == (False, True)


def test_a_context_weight_holds_for_the_actions_it_selects_and_folds_in_their_attributes(rich):
    """Gold costs more than 50 and is weighted on the web; for silver the condition never holds."""
    at_home = {weight.actions: weight for weight in rich.weights}
    gold, silver = at_home[frozenset({"gold"})], at_home[frozenset({"silver"})]
    assert (gold.name, gold.factor) == ("at_home", 1.5)
    assert gold.rule.passes({}, {"channel": "web"})
    assert not silver.rule.passes({}, {"channel": "web"})


def test_the_contact_policy_is_read_in_seconds_and_hours(rich):
    """Days, minutes and clock times as they are written."""
    policy = rich.contact
    assert policy.reservation == 600.0
    assert policy.caps == (
        Cap("three_offers", 3, "kind", 7 * DAY, "impressions", Selector(kinds=("offer",))),
        Cap("mail_weekly", 2, "channel", 7 * DAY, "decisions", Selector(channels=("email",))),
    )
    assert policy.cool_downs == (CoolDown("dismissed", "dismiss", 2, 7 * DAY, 60 * DAY, "group"),)
    assert policy.quiet_hours == (QuietHours("night", 21.5, 8.0, Selector(channels=("email",))),)
    assert policy.exclusions == (Exclusion("one_card", ("gold", "silver"), "accept", 30 * DAY),)
    assert policy.budgets == (Budget("gold_budget", "gold", 100, per_day=True, count="impressions"),)
    assert policy.longest_window == 67 * DAY


def test_constraints_and_levers_and_the_mandatory_are_read(rich, gold):
    """The lever of the group times the action's own."""
    assert rich.constraints == (
        Constraint("one_card_a_time", Selector(groups=("cards",)), at_most=1),
        Constraint("some_story", Selector(kinds=("content",)), at_least_share=0.3),
    )
    assert gold.lever == 3.0
    assert [action.id for action in rich.actions if action.mandatory] == ["follow_up"]
    assert rich.time_zone == "Europe/Berlin"


def test_an_arm_lays_its_overrides_over_the_document(rich, gold):
    """Only what it names changes; the others of a list stay."""
    bolder, other_model = rich.experiments
    as_is, bold, chance = bolder.arms
    assert (as_is.share, bold.share, chance.share) == (0.5, 0.25, 0.25)
    changed = {action.id: action for action in bold.catalog.actions}
    assert changed["gold"].lever == 4.5
    assert changed["gold"].attributes == gold.attributes
    assert (changed["silver"].lever, changed["silver"].value) == (1.5, 10.0)
    assert bold.catalog.placements["hero"].explore.epsilon == 0.3
    assert bold.catalog.placements["hero"].explore.floor_share == 0.05
    assert [cap.at_most for cap in bold.catalog.contact.caps] == [5, 2]
    assert (as_is.catalog, chance.catalog, chance.ablation) == (None, None, "random")
    assert [arm.bundle for arm in other_model.arms] == [None, "click-1"]
    assert (other_model.start, rich.holdout.share) == (0.4, 0.05)


def test_a_stored_document_describes_the_same_catalog(rich, contract):
    """What was published and read back decides alike."""
    again = load_catalog(yaml.safe_load(RICH), contract)
    assert again.fingerprint == rich.fingerprint
    assert [a.id for a in again.actions] == [a.id for a in rich.actions]
    assert again.contact == rich.contact


SPOILED = [
    ("per: kind, window: 7d", "per: kind", "Expected key `window`, got none"),
    ("per: kind,", "per: person,", "Expected one of `action`, `group`, `issue`, `kind`, `channel`, `placement`, `everything`"),
    ("window: 7d, where: {kinds", "window: week, where: {kinds", "Expected a duration such as `30 min`, `24h` or `7d`"),
    ("window: 7d, where: {kinds", "window: 0d, where: {kinds", "Expected a duration such as"),
    ("at_most: 3, per", "at_most: -1, per", "Expected a whole number from 0 to 1000000, got `-1`"),
    ("where: {kinds: offer}", "where: {kinds: offers}", "Expected a known kind (did you mean `offer`?), got `offers`"),
    ("where: {channels: [email]}", "where: {channel: [email]}", "Expected a known key (did you mean `channels`?), got `channel`"),
    ("name: mail_weekly", "name: three_offers", "Expected each name once, got `three_offers`"),
    ("name: mail_weekly", "name: Mail weekly", "Expected a name of a-z, 0-9 and `_`: it is the reason code"),
    (", within: 7d, silent", ", silent", "Expected `within`, since it takes several times, got `none`"),
    ('from: "21:30"', "from: 25", "Expected an hour such as `21:30`, in quotes, got `25`"),
    ('from: "21:30"', 'from: "08:00"', "Expected two different hours"),
    ("actions: [gold, silver], after", "actions: [gold], after", "Expected at least two different actions"),
    ("action: gold, at_most", "action: golden, at_most", "Expected a known action (did you mean `gold`?), got `golden`"),
    ("action: gold, at_most", "action: [gold, silver], at_most", "Expected one action, got `['gold', 'silver']`"),
    ("action: gold, at_most", "action: [], at_most", "Expected at least one, got `none`"),
    ("where: {kinds: offer}", "where: {kinds: []}", "Expected at least one, got `none`"),
    ("name: mail_weekly", "name: calm", "Expected a name that no rule has, got `calm`"),
    ("name: mail_weekly", "name: no_contact_history", "Expected a name that the service itself has not"),
    ("name: night", "name: three_offers", "Expected a name that nothing in `caps` has, got `three_offers`"),
    ("{id: as_is, weight: 2}", '{id: "", weight: 2}', "Expected a text of 1 to 128 characters"),
    ("{id: as_is, weight: 2}", "{id: [as_is], weight: 2}", "Expected a text of 1 to 128 characters"),
    ("period: day", "period: week", "Expected one of `total`, `day`, got `week`"),
    (
        "at_most: 1, where",
        "at_most: 1, at_most_share: 0.5, where",
        "Expected one of `at_most`, `at_most_share`",
    ),
    ("at_least_share: 0.3", "at_least_share: 3", "Expected a number from 0 to 1, got `3`"),
    ("lever: 2\n", "lever: 4\n", "Expected a number from 0.5 to 3, got `4`"),
    ("lever_range: [0.5, 3]", "lever_range: [2, 3]", "Expected two numbers around 1, such as `[0.5, 2]`"),
    ("time_zone: Europe/Berlin", "time_zone: Mars/Base", "Expected a time zone such as `Europe/Berlin`, got `Mars/Base`"),
    ('loyal: "customer.visits_30d >= 8"', 'loyal: "segment.best"', "Expected segments that do not go round in circles"),
    ('best: "segment.loyal and', 'best: "segment.loyalty and', "Expected a known name (did you mean `segment.loyal`?)"),
    (
        '"segment.best"',
        '"segment.best > 1"',
        "Expected a value: a segment or a consent is a condition of its own, got `segment.best`",
    ),
    ("action.margin - action.cost * customer.complaint", "action.margin + 'x'", "Expected a number, got `text`"),
    ("action.margin - action.cost * customer.complaint", "customer.region", "Expected a number, got `text`"),
    (
        '{formula: "action.margin - action.cost * customer.complaint", otherwise: 2}',
        "action.margin - customer.age",
        "Expected `{formula: ..., otherwise: NUMBER}`, since `customer.age` can be missing",
    ),
    ("epsilon: 0.1, floor", "epsilon: 0.99, floor", "Expected `epsilon` and `floor.share` of at most 1 together, got `1.04`"),
    ("temperature: 0.2", "temperature: 0", "Expected a temperature above 0, got `0`"),
    ("factors: [rate, value]", "factors: [rate, worth]", "Expected one of `rate`, `context`, `value`, `lever`, got `worth`"),
    ("{primary: 0.5, conversion: 2}", "{primary: 0}", "Expected at least one objective with a weight above 0"),
    ("mandatory: true", "mandatory: maybe", "Expected `true` or `false`, got `maybe`"),
    ("factor: 1.5", "factor: 0", "Expected a number from 0.01 to 100, got `0`"),
    ("where: {groups: cards}}\ncontact", "where: {channels: web}}\ncontact", "Expected a known key"),
    ("share: 0.2, arms", "share: 0.7, arms", "Expected shares of at most 1 together, got `1.1`"),
    ("{id: as_is, weight: 2}", "{id: bold, weight: 2}", "Expected each arm once, got `bold`"),
    ("arms: [{id: champion}, {id: challenger, bundle: click-1}]", "arms: []", "Expected at least one, got `none`"),
    ("ablation: random", "ablation: nothing", "Expected one of `random`, `eligibility_only`, `predicted_rate_only`, `no_levers`"),
    ("{gold: {lever: 3}}", "{golden: {lever: 3}}", "Expected a known id (did you mean `gold`?), got `golden`"),
    ("{gold: {lever: 3}}", "{gold: {lever: 30}}", "with these overrides: Expected a number from 0.5 to 3, got `30`"),
    ("overrides: {actions", "overrides: {catalog: 2, actions", "Expected a known key"),
    (
        "placements: {hero: {explore: {epsilon: 0.3}}}",
        "placements: [{id: hero, channel: web, slots: 3, fallback: {action: none, kind: content}}]",
        "Expected every placement of the document, since requests may ask for each, got none with id `mail`",
    ),
    ("holdout: {share: 0.05}", "holdout: {share: 2}", "Expected a number from 0 to 1, got `2`"),
    ("holdout: {share: 0.05}", "holdout: {}", "Expected key `share`, got none"),
    ("fallback: {action: none, kind: content}", "fallback: {action: none, kind: story}", "Expected one of `offer`, `content`"),
    ("repeats: true, ", "repeats: 1, ", "Expected `true` or `false`, got `1`"),
]


# Mistakes of several lines together: told at the section, at the second of two, at the last of a circle.
TOLD_ELSEWHERE = (
    "Expected shares of at most 1 together, got `1.1`",
    "Expected each arm once, got `bold`",
    "Expected segments that do not go round in circles",
    "Expected `epsilon` and `floor.share` of at most 1 together, got `1.04`",
)


@pytest.mark.parametrize(("part", "spoiled", "expected"), SPOILED, ids=lambda text: str(text)[:40])
def test_each_kind_of_mistake_says_what_was_expected_and_on_which_line(contract, part, spoiled, expected):
    """Expected, found and where; the line is the one that was spoiled."""
    text = RICH.replace(part, spoiled, 1)
    assert text != RICH
    matching = [p for p in problems(text, contract) if expected in p]
    assert matching, problems(text, contract)
    line = next(n for n, (old, new) in enumerate(zip(RICH.splitlines(), text.splitlines(), strict=False), 1) if old != new)
    assert any(f"line {line}:" in p for p in matching) or expected in TOLD_ELSEWHERE, matching


@pytest.mark.parametrize("name", [HOLDOUT, NOT_PERSONALISED, CANARY])
def test_an_experiment_is_not_called_as_one_of_the_service_itself(contract, name):
    """Records of the two could not be told apart, and customers of `holdout` would all get fallbacks."""
    found = problems(RICH.replace("id: other_model", f"id: {name}"), contract)
    assert len(found) == 1
    assert f"which are the service's own, got `{name}` - at `experiments[1].id`" in found[0]


def test_a_formula_without_an_attribute_of_its_action_takes_what_stands_in(contract):
    """`otherwise` is for whatever is missing; without it, the attribute must be there."""
    text = RICH.replace("margin: 30, cost: 5", "margin: 30")
    assert parse_catalog(text, contract)[1].actions[0].formula.otherwise == 2.0
    plain = text.replace(
        '{formula: "action.margin - action.cost * customer.complaint", otherwise: 2}', "action.margin - action.cost"
    )
    assert any("since `action.cost` can be missing" in p for p in problems(plain, contract))


def test_a_placement_without_a_fallback_is_a_mistake(contract):
    """Every placement must be able to show something."""
    text = RICH.replace("objectives: {primary: 0.5, conversion: 2}, fallback: {action: none, kind: content}", "slots: 1")
    assert any("Expected key `fallback`, got none - at `placements[2]`" in p for p in problems(text, contract))


def test_segments_that_grow_too_large_together_are_refused(contract):
    """Ten segments that double each other stand for a thousand comparisons: a rule's cost is bounded."""
    grown = "\n".join(f'  s{n}: "segment.s{n - 1} and segment.s{n - 1}"' for n in range(1, 12))
    text = RICH.replace("segments:\n", f'segments:\n  s0: "customer.age > 1"\n{grown}\n')
    assert any("Expected at most 1000 parts with segments in place" in p for p in problems(text, contract))


def with_chain(numbers, condition: str) -> str:
    chain = "\n".join(f'  s{n}: "{condition} segment.s{n - 1}"' for n in numbers)
    return RICH.replace("segments:\n", f'segments:\n  s0: "customer.age > 1"\n{chain}\n')


@pytest.mark.parametrize("numbers", [range(1, 1200), range(1199, 0, -1)], ids=["base first", "base last"])
def test_a_long_chain_of_segments_is_refused_whichever_comes_first(contract, numbers):
    """Each is small; all mistakes are told, and fifty are no mistake."""
    found = problems(with_chain(numbers, ""), contract)
    assert all("Expected at most 50 segments of which each names the next, got `s" in p for p in found)
    assert all(re.search(r": line \d+: ", p) for p in found)
    assert parse_catalog(with_chain([n for n in numbers if n < 50], ""), contract)


def test_segments_that_grow_too_deep_together_are_refused(contract):
    """Each has ten levels of its own and stands on the one before."""
    found = problems(with_chain(range(1, 40), "not " * 10), contract)
    assert all("Expected at most 100 levels with segments in place, got more" in p for p in found)


def test_a_journey_stage_is_a_customer_feature_by_another_name(contract):
    """`journey.stage` is `customer.journey_stage`."""
    stage = msgspec.structs.replace(contract.features[0], name="journey_stage", type="category", categories=("cart", "bought"))
    known = type(contract)((*contract.features, stage))
    text = RICH.replace('calm: "not (customer.complaint > 0)"', "calm: \"journey.stage == 'cart'\"")
    rule = parse_catalog(text, known)[1].actions[0].rules[0]
    assert rule.passes({"journey_stage": "cart"}, {})
    assert rule.needs == ("customer.journey_stage",)
    assert any("did you mean" in p or "known name" in p for p in problems(text, contract))


def test_the_example_catalog_reads_the_example_journey():
    """Its stage comes from a table in the simulated world, and from events in a home with that journey; others are refused."""
    journey = parse_journey((EXAMPLES / "journey.yaml").read_text())
    from_table, from_events = (f"{of}, categories: [browsing, cart" for of in ("max_age: 40d", "journey: stage"))
    told = (EXAMPLES / "features.yaml").read_text().replace(from_table, from_events)
    known = parse_contract(told, journey=journey)
    assert [f.name for f in known.live] == ["journey_stage"]
    text = (EXAMPLES / "catalog.yaml").read_text()
    rules = [rule for action in parse_catalog(text, known)[1].actions for rule in action.rules]
    assert "customer.journey_stage" in {name for rule in rules for name in rule.needs}
    assert problems(text.replace("journey.stage == 'bought'", "journey.stage == 'brought'"), known)


@pytest.mark.parametrize(
    ("salts", "expected"),
    [
        ("holdout: {share: 0.05, salt: bolder}", "a salt for `bolder` that `holdout` does not have"),
        ("holdout: {share: 0.05, salt: not_personalised}", "a salt for `holdout` that `not_personalised` does not have"),
        (
            "holdout: {share: 0.05}\nnot_personalised: {share: 0.05, salt: holdout}",
            "a salt for `holdout` that `not_personalised` does not have",
        ),
    ],
)
def test_parts_of_the_customers_that_would_hang_together_are_refused(contract, salts, expected):
    """With one salt for two, who is in the one decides who is in the other."""
    [found] = problems(RICH.replace("holdout: {share: 0.05}", salts), contract)
    assert expected in found


def test_two_experiments_do_not_share_a_salt(contract):
    """Their arms would be the same customers'."""
    [found] = problems(RICH.replace("id: other_model", "id: other_model, salt: bolder"), contract)
    assert "a salt for `other_model` that `bolder` does not have: they have to be independent, got `bolder`" in found


@pytest.mark.parametrize("moment", ["2026-01-31T09:00:00", "20260131", "2026-W05", "2026-W05-1T09:00:00Z", '"2026-01-31 09:00"'])
def test_a_moment_without_a_zone_or_in_another_form_is_refused(contract, moment):
    """Nine o'clock where? And a number is no date."""
    text = RICH.replace("lever: 2\n", f"lever: 2\n    active: {{from: {moment}}}\n")
    found = problems(text, contract)[0]
    assert "Expected a date such as `2026-01-31` or a time such as `2026-01-31T09:00:00Z`" in found


def test_what_was_published_before_it_was_refused_goes_on(contract):
    """A service that was updated has to load what it served with."""
    text = RICH.replace("action: gold, at_most", "action: [gold], at_most").replace("where: {kinds: offer}", "where: {kinds: []}")
    text = text.replace("lever: 2\n", "lever: 2\n    active: {from: 2026-01-31T09:00:00}\n").replace("name: night", "name: calm")
    text = text.replace("id: other_model", "id: other_model, salt: bolder")
    catalog = load_catalog(yaml.safe_load(text.replace("2026-01-31T09:00:00", '"2026-01-31T09:00:00"')), contract)
    assert [budget.action for budget in catalog.contact.budgets] == ["gold"]
    assert catalog.actions[0].active_from == 1769850000.0  # as UTC
    assert len([told for told in problems(text, contract) if "overrides" not in told]) == 5


def test_reasons_of_the_service_are_those_that_it_gives():
    """A name that is added to one place must be in the other."""
    given = {ACTIVE_DATES, NOT_SHOWN_HERE, EXCLUDED_BY_REQUEST, NOT_REQUESTED, SHOWN_ELSEWHERE, NO_CONTACT_HISTORY, HOLDOUT}
    assert set(OWN_REASONS) == given
