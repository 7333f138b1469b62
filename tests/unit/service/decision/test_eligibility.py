"""Rules: which actions they leave, and under whose name the others go."""

from hypothesis import given, settings
from hypothesis import strategies as st

from service.catalog.compiling import Values, compile_rule
from service.catalog.expressions import Name, parse_rule
from service.decision.eligibility import ACTIVE_DATES, PAID_AFTER, REMEMBERED, RuleTable

AGE = "customer.age >= {}"


def test_the_first_rule_that_fails_names_the_reason(tiny):
    """An action is dropped once, under the earliest of its failed rules."""
    adult = tiny.rule("adult", lambda customer, _: customer.get("age", 0) >= 18)
    calm = tiny.rule("calm", lambda customer, _: not customer.get("complaint"))
    table = RuleTable([tiny.action("a", rules=[adult, calm]), tiny.action("b", rules=[calm]), tiny.action("c")])
    assert table.eligible({"age": 17.0, "complaint": 1.0}, {}, 0.0).dropped == {"adult": ("a",), "calm": ("b",)}
    assert table.eligible({"age": 18.0}, {}, 0.0).dropped == {}


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
