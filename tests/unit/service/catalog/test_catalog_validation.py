"""From a document to a catalog: what a good one becomes, and every mistake with its line."""

import datetime as dt

import msgspec
import pytest

from service.catalog.validate import fingerprint, load_catalog, parse_catalog
from service.errors import CatalogInvalid


def problems(text: str, contract) -> list[str]:
    with pytest.raises(CatalogInvalid) as caught:
        parse_catalog(text, contract, "cat.yaml")
    return list(caught.value.problems)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_a_good_catalog_becomes_resolved_records(good, contract):
    """Levers multiply down, rules are inherited issue first, dates become seconds, defaults are filled in."""
    _, catalog = parse_catalog(good, contract)
    gold, mens, none = catalog.actions
    assert (gold.id, gold.issue, gold.group, gold.kind, gold.value, gold.priority) == (
        "gold_card",
        "sales",
        "cards",
        "offer",
        120,
        3,
    )
    assert gold.lever == 2.0 * 1.5 * 0.5
    assert [r.name for r in gold.rules] == ["adult", "has_visits", "calm", "affordable"]
    assert [r.name for r in mens.rules] == ["adult", "has_visits"]
    assert none.rules == ()
    assert gold.active_from == dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
    assert gold.active_until == dt.datetime(2026, 12, 31, 10, tzinfo=dt.UTC).timestamp()
    assert gold.attributes == {"price": 99.0, "family": "card"}
    assert [(t.id, t.placements, t.content) for t in mens.treatments] == [("mens", ("mail_top",), {})]
    home = catalog.placements["home_hero"]
    assert (home.slots, home.explore.epsilon, home.fallback.content) == (2, 0.1, {"title": "Welcome"})
    assert catalog.placements["mail_top"].explore.epsilon == 0.0


def test_the_models_action_inputs_begin_with_the_identity_and_keep_the_declared_order(good, contract):
    """A category's vocabulary is what the actions use, sorted."""
    _, catalog = parse_catalog(good, contract)
    assert [(f.key, f.type, f.categories) for f in catalog.attributes] == [
        ("action.id", "category", ("gold_card", "Mens E-Mail", "none")),
        ("action.price", "number", ()),
        ("action.family", "category", ("card", "mail")),
    ]


def test_inherited_rules_that_fold_to_the_same_are_shared_by_key(good, contract):
    """The engine evaluates a distinct key once per request."""
    _, catalog = parse_catalog(good, contract)
    gold, mens, _ = catalog.actions
    assert [r.key for r in gold.rules[:2]] == [r.key for r in mens.rules]


def test_a_rule_is_compiled_anew_only_for_actions_whose_values_it_folds_in(good, contract):
    """A catalog of thousands loads while the service answers; each action still meets its own price."""
    text = good.replace('adult: "customer.age >= 18"', 'adult: "customer.age >= action.price"')
    _, shared = parse_catalog(good, contract)
    assert shared.actions[0].rules[0] is shared.actions[1].rules[0]
    _, folded = parse_catalog(text, contract)
    gold, mens, _ = folded.actions
    assert [a.rules[0].passes({"age": 50.0}, {}) for a in (gold, mens)] == [False, True]


def test_a_stored_document_gives_the_same_catalog(good, contract):
    """What the registry hands back after JSON is what was reviewed."""
    document, catalog = parse_catalog(good, contract)
    stored = load_catalog(msgspec.json.decode(msgspec.json.encode(document)), contract)
    assert stored.fingerprint == catalog.fingerprint
    assert [[r.key for r in a.rules] for a in stored.actions] == [[r.key for r in a.rules] for a in catalog.actions]


def test_the_fingerprint_ignores_the_note_and_the_order_of_keys_but_not_of_actions(good, contract):
    """Ties are broken by the order of actions, so it is content."""
    document, catalog = parse_catalog(good, contract)
    backwards = dict(reversed(list(document.items()))) | {"note": "other"}
    assert fingerprint(backwards) == catalog.fingerprint
    assert fingerprint(document | {"actions": document["actions"][::-1]}) != catalog.fingerprint


SPOILED = [
    ("catalog: 1", "catalog: 2", "Expected format 1, got `2` - at `catalog`"),
    ("note: spring", "nots: spring", "Expected a known key (did you mean `note`?), got `nots`"),
    ("price: number, family", "price: money, family", "Expected one of `number`, `category`, got `money`"),
    ("price: number, family", "id: number, price: number, family", "Expected an attribute named with a-z"),
    ('adult: "customer', 'Adult!: "customer', "Expected a rule's name"),
    ("id: sales, lever: 2.0", "id: sales, lever: 20", "Expected a number from 0.1 to 10, got `20` - at `issues[0].lever`"),
    ("id: sales, lever: 2.0", "id: sales, lever: .5x", "Expected a finite number, got `.5x`"),
    ("[adult]", "[adlut]", "Expected a rule of `rules` (did you mean `adult`?) or `name: expression`, got `adlut`"),
    ("[adult]", "[[adult]]", "Expected a rule of `rules`"),
    ("issue: sales", "issue: sale", "Expected a known issue (did you mean `sales`?), got `sale` - at `groups[0].issue`"),
    ("issue: sales, ", "", "Expected key `issue`, got none - at `groups[0]`"),
    ("{id: care}", "{id: sales}", "Expected each issue once, got `sales`"),
    ("id: help", "id: cards", "Expected each group once, got `cards`"),
    ("group: cards", "group: card", "Expected a known group (did you mean `cards`?), got `card` - at `actions[0].group`"),
    ("kind: offer", "kind: promo", "Expected one of `offer`, `content`, `service`, `nothing`, got `promo`"),
    ("value: 120.0", "value: dear", "Expected a name, a literal, + - * /, min, max or abs, got `dear` - at line 1"),
    ("value: 120.0", "value: [1]", "Expected a finite number, got `[1]` - at `actions[0].value`"),
    ("value: 120.0", "value: -1", "Expected a number of at least 0, got `-1`"),
    ("value: 120.0", "value: true", "Expected a finite number, got `True`"),
    ("value: 120.0", "worth: 120.0", "Expected key `value`, got none - at `actions[0]`"),
    ("lever: 0.5", "lever: 0", "Expected a number from 0.1 to 10, got `0` - at `actions[0].lever`"),
    ("priority: 3", "priority: high", "Expected a finite number, got `high` - at `actions[0].priority`"),
    ("from: 2026-01-01", "from: January", "Expected a date such as `2026-01-31`"),
    ("from: 2026-01-01", "from: 2027-01-01", "Expected `until` after `from`"),
    ("price: 99", "price: cheap", "Expected a finite number, got `cheap` - at `actions[0].attributes.price`"),
    ("family: card}", "family: 7}", "Expected a text of 1 to 128 characters"),
    ("price: 99", "prise: 99", "Expected a declared attribute (did you mean `price`?), got `prise`"),
    ("family: card}", "family: [card]}", "Expected a text of 1 to 128 characters"),
    ("eligibility: [calm, ", "eligibility: calm # [", "Expected a list, got `calm`"),
    ("action.price <", "action.prize <", "Expected a known name (did you mean `action.price`?), got `action.prize`"),
    ("- {id: gold_mail,", "- {id: gold_hero,", "Expected each treatment once, got `gold_hero`"),
    ("- id: Mens E-Mail", "- id: gold_card", "Expected each action once, got `gold_card`"),
    ("- id: Mens E-Mail", '- id: "a\\tb"', "Expected a text of 1 to 128 characters, none a control character"),
    ("- id: Mens E-Mail", f"- id: {'x' * 129}", "Expected a text of 1 to 128 characters"),
    ("- id: Mens E-Mail", "- ident: Mens E-Mail", "Expected key `id`, got none - at `actions[1]`"),
    ("[{id: mens, placements: [mail_top]}]", "[]", "Expected at least one, got `none` - at `actions[1].treatments`"),
    ("[{id: mens, placements: [mail_top]}]", "[mens]", "Expected a mapping with an `id`, got `mens`"),
    ("{id: mens, placements: [mail_top]}", "{id: mens, placements: []}", "Expected at least one, got `none`"),
    ("{id: mens, placements: [mail_top]}", "{id: mens, placements: [mail_tap]}", "Expected a known placement (did"),
    ("{id: quiet, placements: [home_hero]}", "{id: quiet, placements: [mail_top]}", "Expected a placement that accepts"),
    ("slots: 2", "slots: 0", "Expected a whole number from 1 to 50, got `0` - at `placements[0].slots`"),
    ("slots: 2", "slots: 51", "Expected a whole number from 1 to 50, got `51`"),
    ("slots: 2", "slots: 1.5", "Expected a whole number from 1 to 50, got `1.5`"),
    ("epsilon: 0.1", "epsilon: 1.1", "Expected a number from 0 to 1, got `1.1` - at `placements[0].explore.epsilon`"),
    ("epsilon: 0.1", "epsilon: -0.1", "Expected a number from 0 to 1, got `-0.1`"),
    ("accepts: [offer, content", "accepts: [offers, content", "got `offers`"),
    ("accepts: [offer, content, service, nothing]", "accepts: []", "Expected at least one, got `none`"),
    (", fallback: {action: newsletter, kind: content}", "", "Expected key `fallback`, got none - at `placements[1]`"),
    ("fallback: {action: none, kind: content", "fallback: {action: none, kind: advert", "Expected one of `offer`"),
    ("fallback: {action: none, kind", "fallback: {kind", "Expected key `action`, got none - at `placements[0].fallback`"),
    ("  - {id: mail_top", "  - {id: home_hero", "Expected each placement once, got `home_hero`"),
    ("content: {title: Gold, image: gold.png}", "content: Gold", "Expected a mapping, got `Gold`"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "spoiled", "expected"), SPOILED, ids=[s[1][:40] for s in SPOILED])
def test_each_kind_of_mistake_says_what_was_expected_and_on_which_line(good, contract, part, spoiled, expected):
    """Expected, found and where; the line is the one that was spoiled, or that of what it stands in."""
    text = good.replace(part, spoiled, 1)
    assert text != good
    matching = [p for p in problems(text, contract) if expected in p]
    assert len(matching) == 1
    line = int(matching[0].split("line ")[1].split(":")[0])
    assert line_of(good, part) - 8 <= line <= line_of(good, part) + 1


@pytest.mark.parametrize("key", ["catalog", "issues", "groups", "actions", "placements"])
def test_a_missing_section_is_named(good, contract, key):
    """Only the note, the attributes and the rules may be left out."""
    document, _ = parse_catalog(good, contract)
    del document[key]
    with pytest.raises(CatalogInvalid, match=f"Expected key `{key}`, got none"):
        load_catalog(document, contract)


@pytest.mark.parametrize("key", ["actions", "placements"])
def test_a_catalog_without_actions_or_placements_is_refused(good, contract, key):
    """There is nothing to decide in it."""
    document, _ = parse_catalog(good, contract)
    with pytest.raises(CatalogInvalid, match=f"Expected at least one, got `none` - at `{key}`"):
        load_catalog(document | {key: []}, contract)


def test_ten_mistakes_in_one_document_are_all_reported_with_their_lines(good, contract):
    """One reading shows every mistake; none hides another."""
    spoils = [
        ("lever: 2.0", "lever: 99"), ("issue: care}", "issue: caring}"),
        ("value: 120.0", "value: x"), ("priority: 3", "priority: y"),
        ("from: 2026-01-01", "from: soon"), ("price: 99", "price: z"), ("action.price <", "action.cost <"),
        ("placements: [mail_top]}\n  - id: Mens", "placements: [mail]}\n  - id: Mens"), ("slots: 2", "slots: 0"),
        ("epsilon: 0.1", "epsilon: 7"),
    ]  # fmt: skip
    text = good
    for part, spoiled in spoils:
        text = text.replace(part, spoiled, 1)
    found = problems(text, contract)
    assert len(found) == 10
    lines = sorted(int(p.split("line ")[1].split(":")[0]) for p in found)
    assert lines == sorted(line_of(good, part) for part, _ in spoils)


def test_a_broken_rule_is_named_once_where_it_is_written_also_if_nobody_uses_it(good, contract):
    """Ten thousand actions may inherit it, or none."""
    used = good.replace("customer.age >= 18", "customer.agee >= 18")
    assert len(problems(used, contract)) == 1
    assert "line 5: Expected a known name (did you mean `customer.age`?)" in problems(used, contract)[0]
    unused = good.replace("rules:\n", 'rules:\n  spare: "customer.age >"\n')
    assert "line 5: Expected an expression" in problems(unused, contract)[0]


def test_nonsense_of_any_shape_is_invalid_and_never_a_crash(good, contract):
    """Each value of a good document, replaced by each kind of value, gives a catalog or a list of mistakes."""
    document, _ = parse_catalog(good, contract)
    for nonsense in (None, True, 3, 10**400, 1.5, "", "x", [], [1], [[]], {}, {"x": 1}, {"id": []}):
        for spoiled in variants(document, nonsense):
            assert all(" - at `" in p for p in mistakes(spoiled, contract))


def mistakes(document, contract) -> tuple[str, ...]:
    try:
        load_catalog(document, contract)
    except CatalogInvalid as error:
        return error.problems
    return ()


def variants(value, nonsense):
    """The value with each of its parts replaced in turn."""
    yield from (
        ({**value, k: v} for k in value for v in (nonsense, *variants(value[k], nonsense))) if isinstance(value, dict) else ()
    )
    if isinstance(value, list):
        yield from (
            [*value[:i], v, *value[i + 1 :]] for i in range(len(value)) for v in (nonsense, *variants(value[i], nonsense))
        )
