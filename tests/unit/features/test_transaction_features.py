"""Features from transactions: declared, point in time, and equal to a count by hand."""

from typing import get_args

import numpy as np
import pyarrow as pa
import pytest

from features.contract import ContractError, Measure, contract_document, parse_contract
from features.event_types import check_fed, parse_event_types
from features.layout import CustomerLayout
from features.ledger import DAY, Ledger
from features.transactions import buyers, transaction_values

SECTION = "transactions: {type: purchased, amount: amount, horizon: 90d}\n"
ALL = SECTION + "features:\n" + "".join(
    f"  - {{name: {m}, type: {'category' if m == 'rfm_segment' else 'number'}, origin: value, max_age: 7d, transactions: {m}}}\n"
    for m in get_args(Measure)
)  # fmt: skip
CONTRACT = parse_contract(ALL)
NOW = 1_790_000_000.0


@pytest.fixture(scope="module")
def bought():
    """Of 300 customers in two years, some several times on one day."""
    chance = np.random.default_rng(8)
    rate = chance.gamma(1.0, 1.0, 300)
    customers = chance.choice(300, 4000, p=rate / rate.sum())
    at = np.repeat(NOW - chance.uniform(0, 730, 2000) * DAY, 2)
    at[1::2] += chance.choice([0.0, 600.0, 30 * DAY], 2000)
    customers[1::2] = customers[::2]
    return [(f"c{c}", float(t), float(a)) for c, t, a in zip(customers, at, chance.gamma(3, 10, 4000), strict=True)]


def ledger_of(rows) -> Ledger:
    return Ledger.of(pa.array([c for c, *_ in rows]), np.array([t for _, t, _ in rows]), np.array([a for *_, a in rows]))


def asked(*rows) -> pa.Table:
    return pa.table({"customer_id": [c for c, _ in rows], "at": pa.array([t for _, t in rows], pa.float64())})


def by_hand(rows, customer, now):
    """The measures that need no crowd, by their definitions; None where nothing was bought."""
    past = [(t, a) for c, t, a in rows if c == customer and t <= now]
    if not past:
        return None
    days, year = {t // DAY for t, _ in past}, [(t, a) for t, a in past if t >= now - 365 * DAY]
    return {
        "recency_days": (now - max(past)[0]) / DAY, "tenure_days": (now - min(past)[0]) / DAY, "frequency": len(days) - 1,
        "monetary_value": sum(a for _, a in past) / len(days), "purchases_12m": len({t // DAY for t, _ in year}),
        "spend_12m": sum(a for _, a in year),
    }  # fmt: skip


def test_values_at_any_moment_are_what_counting_by_hand_gives(bought):
    """Customers at moments of their own, known and unknown ones, before and after their first purchase."""
    chance = np.random.default_rng(9)
    rows = [(f"c{chance.integers(310)}", NOW - float(chance.choice([0, 90, 400, 900])) * DAY) for _ in range(200)]
    found = transaction_values(CONTRACT, ledger_of(bought), asked(*rows)).table.to_pylist()
    for (customer, now), row in zip(rows, found, strict=True):
        expected = by_hand(bought, customer, now)
        if expected is None:
            assert [row[m] for m in get_args(Measure)] == [None] * len(get_args(Measure))
        else:
            assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_what_comes_later_changes_nothing(bought):
    """Point in time: parameters, fifths and values as of a moment, whatever happened since."""
    cut = NOW - 200 * DAY
    rows = asked(*((f"c{n}", cut) for n in range(300)))
    earlier = [one for one in bought if one[1] <= cut]
    later = [*earlier, *((f"c{n % 310}", cut + 1.0 + n, 1e6) for n in range(2000))]
    assert transaction_values(CONTRACT, ledger_of(later), rows) == transaction_values(CONTRACT, ledger_of(earlier), rows)


def test_what_is_expected_fits_together(bought):
    """Lifetime value is spend times purchases; a margin and a discount make it less; segments follow the scores."""
    rows = asked(*((f"c{n}", NOW) for n in range(300)))
    found = transaction_values(CONTRACT, ledger_of(bought), rows)
    values = {name: found.table[name].to_numpy(zero_copy_only=False) for name in get_args(Measure)}
    assert found.problems == ()
    known = ~np.isnan(values["frequency"].astype(float))
    assert np.allclose((values["expected_spend"] * values["expected_purchases"])[known], values["lifetime_value"][known])
    half = parse_contract(ALL.replace("horizon: 90d", "horizon: 90d, margin: 0.5, discount: 0.1"))
    less = transaction_values(half, ledger_of(bought), rows).table["lifetime_value"].to_numpy()
    share = less[known] / values["lifetime_value"][known].astype(float)
    assert ((share > 0.5 * 1.1**-0.25) & (share < 0.5)).all()
    assert {"champions", "hibernating"} <= set(values["rfm_segment"][known])


def test_too_few_customers_leave_out_what_is_expected_and_say_so(bought):
    """Recency needs no crowd; a model does."""
    few = [one for one in bought if one[0] in ("c1", "c2", "c3")]
    found = transaction_values(CONTRACT, ledger_of(few), asked(("c1", NOW)))
    [row] = found.table.to_pylist()
    assert row["p_alive"] is row["lifetime_value"] is None
    assert row["frequency"] == by_hand(few, "c1", NOW)["frequency"]
    assert [problem.split(":")[0] for problem in found.problems] == [
        "no p_alive, expected_purchases, lifetime_value", "no expected_spend, lifetime_value",
    ]  # fmt: skip


def test_who_has_bought_by_a_moment(bought):
    """Snapshots hold them and nobody else."""
    cut = NOW - 500 * DAY
    assert buyers(ledger_of(bought), cut).to_pylist() == sorted({c for c, t, _ in bought if t <= cut})
    assert buyers(ledger_of([]), NOW).to_pylist() == []


def test_a_contract_with_transactions_reads_back_the_same_and_has_a_view_of_its_own():
    """Import writes documents; and the moment of a snapshot must not be taken for that of an imported table."""
    assert parse_contract(contract_document(CONTRACT)) == CONTRACT
    layout = CustomerLayout(CONTRACT.batch)
    assert layout.fields[-1] == b"_ts:transactions"
    assert parse_contract(ALL.replace("90d", "91d")).fingerprint != CONTRACT.fingerprint


LTV = "features: [{name: ltv, type: number, origin: value, max_age: 7d, transactions: lifetime_value%s}]"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LTV % "", "Expected a section `transactions`.* - at `features.yaml: features"),
        (SECTION + LTV.replace("number", "category, categories: [x]") % "", "Expected `number`, got `category`"),
        (SECTION + LTV % ", prediction: churn", "Expected one source of values, got `transactions`, `prediction`"),
        (SECTION + LTV.replace("lifetime_value", "luck") % "", "Invalid enum value 'luck'"),
        (SECTION + LTV.replace("value,", "context,", 1) % "", "Expected an origin among"),
        (SECTION + LTV.replace("max_age: 7d, ", "") % "", "Expected `max_age`"),
        (SECTION.replace("90d", "1h") + LTV % "", "a horizon of a day or more, got .*`1h` - at `transactions`"),
        (SECTION.replace("horizon: 90d", "margin: 2") + LTV % "", "`float` <= 1"),
        (SECTION + LTV.replace("number", "category, categories: [x]").replace("lifetime_value", "rfm_segment") % "", "segments"),
    ],
)  # fmt: skip
def test_a_declaration_that_does_not_fit_is_refused(text, problem):
    """Expected, found, where."""
    with pytest.raises(ContractError, match=problem):
        parse_contract(text)


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ("events: {viewed: {}}", "Expected a declared event type .*got `purchased` - at features.yaml: `transactions`"),
        ("events: {purchased: {properties: {amount: text}}}", "Expected a number of `purchased`, got `amount`, a text"),
        ("events: {purchased: {}}", "got `amount`, a property that is not declared"),
    ],
)  # fmt: skip
def test_transactions_must_be_declared_events_with_a_number(events, problem):
    """Otherwise every amount would be zero, silently."""
    with pytest.raises(ContractError, match=problem):
        check_fed(parse_event_types(events), CONTRACT)
