"""Rules: which actions they leave, and under whose name the others go."""

from hypothesis import given, settings
from hypothesis import strategies as st

from service.catalog.compiling import Values, compile_rule
from service.catalog.entities import Treatment
from service.catalog.expressions import Name, parse_rule
from service.decision.eligibility import ACTIVE_DATES, PAID_AFTER, REMEMBERED, RuleTable, TreatmentTable

AGE = "customer.age >= {}"


def test_the_first_rule_that_fails_names_the_reason(tiny):
    """An action is dropped once, under the earliest of its failed rules."""
    adult = tiny.rule("adult", lambda customer, _: customer.get("age", 0) >= 18)
    calm = tiny.rule("calm", lambda customer, _: not customer.get("complaint"))
    table = RuleTable([tiny.action("a", rules=[adult, calm]), tiny.action("b", rules=[calm]), tiny.action("c")])
    assert table.eligible({"age": 17.0, "complaint": 1.0}, {}, 0.0).dropped == {"adult": ("a",), "calm": ("b",)}
    assert table.eligible({"age": 18.0}, {}, 0.0).dropped == {}


def test_the_first_reason_is_that_of_the_action_whatever_comes_first_for_others(tiny):
    """Also where two actions have the same rules the other way round; reasons stand in the order in which rules come up."""
    said, fits = (tiny.rule(name, lambda _customer, _: False) for name in ("said", "fits"))
    table = RuleTable(
        [tiny.action("a", rules=[fits]), tiny.action("b", rules=[said, fits]), tiny.action("c", rules=[fits, said])]
    )
    dropped = table.eligible({}, {}, 0.0).dropped
    assert dropped == {"fits": ("a", "c"), "said": ("b",)}
    assert list(dropped) == ["fits", "said"]


@given(
    st.lists(st.lists(st.sampled_from("vwxyz"), max_size=5, unique=True), min_size=1, max_size=8),
    st.sets(st.sampled_from("vwxyz")),
)
@settings(max_examples=80)
def test_every_action_goes_under_the_first_of_its_rules_that_fails(tiny, orders, failing):
    """Whatever rules actions share, and in which order."""
    rules = {name: tiny.rule(name, lambda _customer, _, name=name: name not in failing) for name in "vwxyz"}
    actions = [tiny.action(f"a{n}", rules=[rules[name] for name in order]) for n, order in enumerate(orders)]
    found = RuleTable(actions).eligible({}, {}, 0.0)
    told = {action: reason for reason, ids in found.dropped.items() for action in ids}
    firsts = {f"a{n}": next((name for name in order if name in failing), None) for n, order in enumerate(orders)}
    assert told == {action: first for action, first in firsts.items() if first is not None}
    assert found.allowed.tolist() == [first is None for first in firsts.values()]


def test_a_treatment_that_is_not_shown_has_the_first_of_its_own_rules_as_the_reason(tiny):
    """Another action may have the same rules in another order."""
    said, fits = (tiny.rule(name, lambda _customer, _: False) for name in ("said", "fits"))
    treatment = Treatment("t", ("hero",), {}, (said, fits))
    actions = [tiny.action("a", rules=[fits]), tiny.action("b", treatments=(treatment,))]
    table = RuleTable(actions)
    shown = TreatmentTable(tiny.placement(), actions, table).shown(table.eligible({}, {}, 0.0).failed)
    assert {reason: mask.tolist() for reason, mask in shown.dropped.items()} == {"said": [False, True]}


def test_a_rule_shared_by_many_actions_is_evaluated_once_per_request(tiny):
    """One hundred actions of one group cost one evaluation."""
    calls = []
    shared = tiny.rule("shared", lambda customer, _: calls.append(customer) or True)
    table = RuleTable([tiny.action(f"a{i}", rules=[shared]) for i in range(100)])
    assert table.eligible({}, {}, 0.0).allowed.all()
    assert len(calls) == 1


def test_two_rules_of_one_name_and_different_keys_are_both_evaluated(tiny):
    """The same expression over other action attributes is another rule with the same reason code."""
    cheap = tiny.rule("affordable", lambda customer, _: customer["spend"] > 10, key="affordable:10")
    dear = tiny.rule("affordable", lambda customer, _: customer["spend"] > 99, key="affordable:99")
    table = RuleTable([tiny.action("cheap", rules=[cheap]), tiny.action("dear", rules=[dear])])
    assert table.eligible({"spend": 50.0}, {}, 0.0).allowed.tolist() == [True, False]
    assert table.eligible({"spend": 5.0}, {}, 0.0).dropped == {"affordable": ("cheap", "dear")}


def test_the_first_moment_of_the_dates_is_included_and_the_last_is_not(tiny):
    """Active from 100 until 200: 99 no, 100 yes, 199 yes, 200 no."""
    table = RuleTable([tiny.action("a", span=(100.0, 200.0))])
    assert [bool(table.eligible({}, {}, at).allowed[0]) for at in (99.9, 100.0, 199.9, 200.0)] == [False, True, True, False]
    assert table.eligible({}, {}, 300.0).dropped == {ACTIVE_DATES: ("a",)}


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=1, max_size=6), st.lists(st.floats(0, 10), max_size=20))
@settings(max_examples=80)
def test_remembered_outcomes_equal_fresh_ones(tiny, spans, moments):
    """The memory must not outlive a boundary of some action's dates."""
    actions = [
        tiny.action(f"a{i}", span=span, rules=[tiny.rule(f"r{i}", lambda customer, _, i=i: customer["n"] % (i + 2) != 0)])
        for i, span in enumerate(spans)
    ]
    table = RuleTable(actions)
    for n, at in enumerate(moments):
        found, fresh = table.eligible({"n": n}, {}, at), RuleTable(actions).eligible({"n": n}, {}, at)
        assert found.allowed.tolist() == fresh.allowed.tolist()
        assert found.dropped == fresh.dropped


def test_rules_that_are_compiled_together_leave_what_they_left_before(tiny):
    """However often a table is asked, beside rules that are functions, and with a rule that comes later."""
    names = {"customer.age": Name("number")}
    values = Values({"customer.age": "number"}, {}, {})
    adult, old = (
        compile_rule(n, s, parse_rule(s, names), values) for n, s in (("adult", AGE.format(18)), ("old", AGE.format(65)))
    )
    table = RuleTable([tiny.action("a", rules=[adult, tiny.rule("calm", lambda customer, _: "complaint" not in customer)])])
    for asked in range(2 * PAID_AFTER):
        if asked == PAID_AFTER + 1:
            later = table.bits([old])
        assert table.eligible({"age": 17.0}, {}, 0.0).dropped == {"adult": ("a",)}
        assert table.eligible({"age": 70.0, "complaint": 1.0}, {}, 0.0).dropped == {"calm": ("a",)}
        assert table.eligible({}, {}, 0.0).dropped == {"adult (missing customer.age)": ("a",)}
    assert table.eligible({"age": 40.0}, {}, 0.0).failed == later


def test_the_memory_of_outcomes_is_bounded(tiny):
    """More distinct outcomes than are remembered: the answers stay right."""
    bits = REMEMBERED.bit_length()
    table = RuleTable(
        [
            tiny.action(f"a{b}", rules=[tiny.rule(f"r{b}", lambda customer, _, b=b: bool(customer["n"] >> b & 1))])
            for b in range(bits)
        ]
    )
    for n in range(2**bits):
        table.eligible({"n": n}, {}, 0.0)
    assert len(table._remembered) <= REMEMBERED
    assert table.eligible({"n": 5}, {}, 0.0).allowed.tolist()[:3] == [True, False, True]
