"""Customers of the demonstration: simulated ones, and those of a real log who come later."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.homes import home_contract
from features.offline import read_view
from service.errors import ImportInvalid
from training.demo.sources import ReplayedSource, SimulatedSource, source_from
from training.demo.traffic import Reaction
from training.importing import import_table

MAPPING = """
[log]
customer_id = "who"
action_id = "arm"
choice_probability = 0.5
placement = "=email"
[features]
recency = "number"
[context]
device = "category"
[outcomes]
visit = "binary"
spend = "value"
"""


@pytest.fixture
def log(tmp_path):
    rows = 200
    table = pa.table({
        "who": [f"w{i}" for i in range(rows)], "arm": ["a", "b"] * (rows // 2), "recency": [float(i % 12) for i in range(rows)],
        "device": ["mobile"] * rows, "visit": [int(i % 3 == 0) for i in range(rows)],
        "spend": [9.5 if i % 6 == 0 else 0.0 for i in range(rows)],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "log.parquet")
    (tmp_path / "mapping.toml").write_text(MAPPING)
    return tmp_path / "log.parquet", tmp_path / "mapping.toml"


def test_a_real_log_is_parted_into_history_and_later_customers(log, tmp_path):
    """Nobody is in both, nobody is lost, and the later ones' features are known when they come."""
    source, home = ReplayedSource(*log, None, seed=1), tmp_path / "home"
    table, mapping = source.history(tmp_path / "demo")
    import_table(home, table, mapping)
    before = set(pq.read_table(table)["who"].to_pylist())
    later = {visit.request["customer_id"] for visit in source.visits(1000, seed=2)}
    assert before.isdisjoint(later)
    assert len(before) + len(later) == 200
    source.add_customers(home)
    assert set(read_view(home, "profile")["customer_id"].to_pylist()) == before | later
    assert home_contract(home).find("customer.recency") is not None


def test_a_replayed_customer_responds_only_to_what_they_were_shown_in_reality(log):
    """Where the service shows something else, nobody knows, and nothing is reported."""
    source = ReplayedSource(*log, None, seed=1)
    visits = {visit.request["customer_id"]: visit for visit in source.visits(1000, seed=2)}
    name = next(n for n in visits if int(n[1:]) % 6 == 0)  # was shown arm a, visited and bought
    assert visits[name].react("a") == (Reaction("impression"), Reaction("visit", 1.0), Reaction("spend", 9.5))
    assert visits[name].react("b") == ()
    idle = next(n for n in visits if int(n[1:]) % 3 == 1 and int(n[1:]) % 2 == 0)
    assert visits[idle].react("a") == (Reaction("impression"),)
    assert visits[idle].request == {"customer_id": idle, "placement": "email", "context": {"device": "mobile"}}


def test_an_outcome_may_be_a_truth(log):
    """As an import takes it: true is 1."""
    table = pq.read_table(log[0])
    truths = pa.array([bool(value) for value in table["visit"].to_pylist()])
    pq.write_table(table.set_column(table.schema.get_field_index("visit"), "visit", truths), log[0])
    source = ReplayedSource(*log, None, seed=1)
    [visit] = [one for one in source.visits(1000, seed=2) if one.react("a")[1:] or one.react("b")[1:]][:1]
    assert Reaction("visit", 1.0) in (*visit.react("a"), *visit.react("b"))


def test_the_objective_is_the_first_outcome_unless_it_is_said(log):
    """The mapping's author wrote the most important one first."""
    assert ReplayedSource(*log, None, seed=1).objective == "visit"
    assert ReplayedSource(*log, "spend", seed=1).objective == "spend"


def test_an_unknown_table_needs_a_mapping_and_a_mapping_customers(log, tmp_path):
    """Each refusal says which option or key is missing."""
    with pytest.raises(ImportInvalid, match="Expected `--mapping FILE`"):
        source_from(log[0], None, None, 0)
    nameless = tmp_path / "nameless.toml"
    nameless.write_text(MAPPING.replace('customer_id = "who"\n', ""))
    with pytest.raises(ImportInvalid, match="Expected `customer_id`"):
        source_from(log[0], nameless, None, 0)


def test_simulated_customers_respond_at_their_true_rate():
    """Over many visits, clicks on one action are what the world says."""
    source = SimulatedSource(seed=2)
    visits = source.visits(4000, seed=3)
    clicks = [any(r.type == "click" for r in visit.react("fashion_sale")) for visit in visits]
    position = next(i for i, action in enumerate(source.world.actions) if action.id == "fashion_sale")
    moments = source.world.moments(4000, 0.0, 1.0, 3)
    assert sum(clicks) / 4000 == pytest.approx(source.world.rates(moments)[:, position].mean(), abs=0.02)
    assert all(visit.react("welcome") == (Reaction("impression"),) for visit in visits[:10])
