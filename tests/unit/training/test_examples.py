"""Decisions joined with outcomes: what counts, what does not, and that nothing counts twice."""

import datetime as dt
import os
import subprocess
import sys

import msgspec
import pyarrow as pa
import pytest
from msgspec import Raw

from features.contract import parse_contract
from features.homes import write_home_contract
from service.decision.records import DecisionRecord, OutcomeRecord, PlacementRecord, ServedItem, Versions, encode_line
from service.errors import NotReady
from service.registry import Registry
from training.examples import Objective, load_examples, outcome_types
from training.frames import load_decisions
from training.lake import DECISION_COLUMNS, OUTCOME_COLUMNS, write_by_day

CONTRACT = parse_contract("""
features:
  - {name: age, type: number, origin: profile, max_age: 400d}
  - {name: region, type: category, origin: profile, max_age: 400d, categories: [north, south]}
  - {name: device, type: category, origin: context, categories: [mobile, desktop]}
  - {name: hour, type: number, origin: request_time}
""")
ZONED = """
features:
  - {name: time_zone, type: category, origin: profile, max_age: 400d, categories: [Asia/Tokyo]}
  - {name: time_zone, type: category, origin: context, categories: [America/New_York]}
  - {name: hour, type: number, origin: request_time}
  - {name: local_hour, type: number, origin: request_time}
"""
AT = 1_790_000_000.0
MOMENT = dt.datetime.fromtimestamp(AT, dt.UTC)


def item(rank: int, action: str, probability: float = 0.5) -> ServedItem:
    return ServedItem(rank, action, f"{action}_card", "offer", 0.1, 0.1, probability, explored=False)


def decision(name: str, *items: ServedItem, fallback: bool = False, **changes) -> DecisionRecord:
    placement = PlacementRecord(
        "hero", len(items), items or (item(1, "gold"),), fallback, ("gold",), Raw(b"[0.1]"), Raw(b"[0.1]")
    )
    known = {"customer": {"age": 40.0, "region": "north"}, "context": {"device": "mobile"}, **changes}
    return DecisionRecord(name, "c1", AT, known["customer"], known["context"], (placement,), Versions(1, None, "x"), ())


def outcome(name: str, of: str, kind: str = "impression", **changes) -> OutcomeRecord:
    return OutcomeRecord(name, of, kind, AT + 1, AT + 1, **changes)


class Home:
    """A home with a live log and a lake, written line by line."""

    def __init__(self, folder) -> None:
        self.folder = folder
        write_home_contract(folder, CONTRACT)

    def live(self, kind: str, *records, tail: bytes = b"") -> None:
        folder = self.folder / "log" / kind
        folder.mkdir(parents=True, exist_ok=True)
        lines = b"".join(encode_line(msgspec.json.encode(r)) for r in records)
        (folder / f"{len(list(folder.iterdir()))}.log").write_bytes(lines + tail)

    def lake(self, decisions: list[dict], outcomes: list[dict], name: str = "import-1") -> None:
        columns = DECISION_COLUMNS | {"customer.age": pa.float64(), "customer.region": pa.string(), "context.device": pa.string()}
        write_by_day(self.folder, "decisions", name, table(decisions, columns), "decided_at")
        write_by_day(self.folder, "outcomes", name, table(outcomes, OUTCOME_COLUMNS), "at")

    def load(self, objective: str = "click"):
        return load_examples(self.folder, Objective(objective), CONTRACT)


def table(rows: list[dict], columns: dict) -> pa.Table:
    return pa.table({n: pa.array([r.get(n) for r in rows], kind) for n, kind in columns.items()})


def imported(name: str, **changes) -> dict:
    row = {"decision_id": name, "customer_id": "c9", "decided_at": MOMENT, "placement": "hero", "slot": 1, "action_id": "gold",
           "choice_probability": 0.25, "source": "import", "customer.age": 30.0}  # fmt: skip
    return row | changes


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path)


def test_a_served_item_that_was_seen_is_a_row_with_its_inputs_and_its_label(home):
    """What was served is what is learned from: probability, values and the moment's own hour."""
    home.live("decisions", decision("d1", item(1, "gold", 0.7)))
    home.live("outcomes", outcome("o1", "d1"), outcome("o2", "d1", "click"))
    found = home.load()
    assert found.action_id.tolist() == ["gold"]
    assert found.choice_probability.tolist() == [0.7]
    assert found.label.tolist() == [1.0]
    assert found.decided_at.tolist() == [AT]
    assert {key: column[0].as_py() for key, column in found.values.items()} == {
        "customer.age": 40.0, "customer.region": "north", "context.device": "mobile", "context.hour": 14.0
    }  # fmt: skip


def test_a_moment_that_was_served_is_learned_as_it_was_served(home):
    """The hour in the record counts, not one that is worked out again: the customer's own zone made it."""
    home.live("decisions", decision("d1", context={"device": "mobile", "hour": 3.0}))
    home.live("outcomes", outcome("o1", "d1"))
    assert home.load().values["context.hour"].to_pylist() == [3.0]


@pytest.mark.parametrize(("published", "elsewhere"), [(True, 16), (False, 14)])
def test_a_moment_that_was_not_served_is_filled_in_the_zone_that_serving_would_have_taken(home, published, elsewhere):
    """The customer's, the request's, the catalog's, or UTC, whichever is one: 14:13 there. Data frames say the same."""
    contract = parse_contract(ZONED)
    write_home_contract(home.folder, contract)
    if published:
        document = {"time_zone": "Europe/Berlin"}
        Registry(home.folder / "registry").publish_catalog(document, fingerprint="f", author="me", note="", at="now")
    both = {"customer": {"time_zone": "Asia/Tokyo"}, "context": {"time_zone": "America/New_York"}}
    home.live(
        "decisions", decision("d1", **both), decision("d2", **{**both, "customer": {}}), decision("d3", customer={}, context={}),
        decision("d4", **{**both, "context": {"local_hour": 3.0}}), decision("d5", **{**both, "customer": {"time_zone": "?"}}),
    )  # fmt: skip
    home.live("outcomes", *(outcome(f"o{n}", f"d{n}") for n in range(1, 6)))
    there = [hour + 13 / 60 + 20 / 3600 for hour in (23, 10, elsewhere)]
    expected = [*there, 3.0, there[1]]
    found = load_examples(home.folder, Objective("click"), contract).values
    assert found["context.local_hour"].to_pylist() == pytest.approx(expected)
    assert found["context.hour"].to_pylist() == [14.0] * 5
    frame = load_decisions(home.folder).read_all()
    assert frame["context.local_hour"].to_pylist() == pytest.approx(expected)


def test_what_nobody_saw_is_no_row(home):
    """Without any outcome, not even an impression, a decision is no failure: it is unknown."""
    home.live("decisions", decision("seen"), decision("unseen"))
    home.live("outcomes", outcome("o1", "seen"))
    assert home.load().decision_id.to_pylist() == ["seen"]


def test_a_fallback_is_no_choice_and_no_row(home):
    """Nothing was chosen, so nothing can be learned about choosing."""
    home.live("decisions", decision("d1", fallback=True), decision("d2"))
    home.live("outcomes", outcome("o1", "d1"), outcome("o2", "d2"))
    assert home.load().decision_id.to_pylist() == ["d2"]


def test_records_that_are_there_twice_count_once(home):
    """A decision or outcome in two segments, or in log and lake, is the same one."""
    home.live("decisions", decision("d1"))
    home.live("decisions", decision("d1"))
    home.live("outcomes", outcome("o1", "d1", "click", value=2.0), outcome("o1", "d1", "click", value=2.0))
    assert len(home.load()) == 1
    assert home.load("value:click").label.tolist() == [2.0]


def test_an_outcome_that_names_an_action_labels_that_slot_only(home):
    """Two slots, one click."""
    home.live("decisions", decision("d1", item(1, "gold"), item(2, "silver")))
    home.live("outcomes", outcome("o1", "d1"), outcome("o2", "d1", "click", placement="hero", action_id="silver"))
    found = home.load()
    assert dict(zip(found.action_id.tolist(), found.label.tolist(), strict=True)) == {"gold": 0.0, "silver": 1.0}


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_a_window_is_as_long_wherever_the_machine_stands(home, zone, request):
    """Seven days over a change of clocks, of which one has 23 hours in Berlin; half an hour before the end still counts."""
    at = dt.datetime(2026, 3, 25, 12, tzinfo=dt.UTC).timestamp()
    early, late = at + 7 * 86_400 - 1800, at + 7 * 86_400 + 1800
    for name, then in (("d1", early), ("d2", late)):
        home.live("decisions", msgspec.structs.replace(decision(name), at=at))
        home.live("outcomes", msgspec.structs.replace(outcome(f"o-{name}", name, "click"), at=then))
    code = (
        "import pathlib, sys; from features.homes import home_contract; from training.examples import Objective, load_examples; "
        "home = pathlib.Path(sys.argv[1]); "
        "print(load_examples(home, Objective('click', 7 * 86_400.0), home_contract(home)).label.tolist())"
    )
    command = [sys.executable, "-c", code, str(home.folder)]
    done = subprocess.run(
        command, cwd=request.config.rootpath, env={**os.environ, "TZ": zone}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[1.0, 0.0]"


@pytest.mark.parametrize(
    ("dated", "window", "expected"),
    [
        (-30 * 86_400, 86_400.0, 0.0), (-3601, 86_400.0, 0.0), (-3599, 86_400.0, 1.0), (86_399, 86_400.0, 1.0),
        (86_401, 86_400.0, 0.0), (-AT, None, 1.0), (30 * 365 * 86_400, None, 1.0),
    ],
)  # fmt: skip
def test_what_is_dated_long_before_its_decision_did_not_come_of_it(home, dated, window, expected):
    """An hour is a slow clock; where no window is set, moments do not matter."""
    home.live("decisions", decision("d1"))
    home.live("outcomes", outcome("o1", "d1"), msgspec.structs.replace(outcome("o2", "d1", "click"), at=AT + dated))
    assert load_examples(home.folder, Objective("click", window), CONTRACT).label.tolist() == [expected]


def test_a_value_objective_sums_what_the_outcomes_brought(home):
    """Two purchases of one decision add up; a click adds nothing to conversions."""
    home.live("decisions", decision("d1"))
    home.live(
        "outcomes", outcome("o1", "d1", "conversion", value=5.0), outcome("o2", "d1", "conversion", value=7.5),
        outcome("o3", "d1", "click", value=99.0),
    )  # fmt: skip
    assert home.load("value:conversion").label.tolist() == [12.5]
    assert home.load("conversion").label.tolist() == [1.0]


def test_an_outcome_of_an_unknown_decision_is_kept_aside(home):
    """An orphan labels nothing, and its decision may still come."""
    home.live("decisions", decision("d1"))
    home.live("outcomes", outcome("o1", "d1"), outcome("o2", "later", "click"))
    assert home.load().label.tolist() == [0.0]
    home.live("decisions", decision("later"))
    assert sorted(home.load().label.tolist()) == [0.0, 1.0]


def test_lake_and_live_log_are_one_history_in_order_of_time(home):
    """Imported rows come first where they are older; a value that the file lacks is missing."""
    home.lake(
        [imported("i1", decided_at=MOMENT - dt.timedelta(days=1))],
        [{"outcome_id": "x", "decision_id": "i1", "type": "click", "value": 1.0, "at": MOMENT}],
    )
    home.live("decisions", decision("d1"))
    home.live("outcomes", outcome("o1", "d1"))
    found = home.load()
    assert found.decision_id.to_pylist() == ["i1", "d1"]
    assert found.label.tolist() == [1.0, 0.0]
    assert found.values["customer.region"].to_pylist() == [None, "north"]


def test_damaged_lines_are_counted_and_the_others_read(home):
    """A flipped bit or a torn tail costs its own record."""
    home.live("decisions", decision("d1"), tail=b'00000000 3 {"x\n' + b"torn")
    home.live("outcomes", outcome("o1", "d1"))
    found = home.load()
    assert len(found) == 1
    assert found.damaged == 2


def test_a_value_of_the_wrong_type_in_the_log_is_missing(home):
    """As it is for the model that served it."""
    home.live("decisions", decision("d1", customer={"age": "old", "region": 7.0}))
    home.live("outcomes", outcome("o1", "d1"))
    assert home.load().values["customer.age"].to_pylist() == [None]
    assert home.load().values["customer.region"].to_pylist() == [None]


def test_an_empty_home_says_how_to_get_rows(home):
    """Nothing to learn from is an error that names the way out."""
    with pytest.raises(NotReady, match="import a table, or serve and send outcomes"):
        home.load()


def test_the_fingerprint_names_the_rows_whatever_their_order(home):
    """Same decisions and labels, same fingerprint; one more click, another."""
    home.live("decisions", decision("d1"), decision("d2"))
    home.live("outcomes", outcome("o1", "d1"), outcome("o2", "d2"))
    before = home.load()
    assert before.take(before.label.argsort()[::-1]).fingerprint == before.fingerprint
    home.live("outcomes", outcome("o3", "d2", "click"))
    assert home.load().fingerprint != before.fingerprint


def test_outcome_types_are_listed_by_how_often_they_came(home):
    """What one may learn from, in lake and log."""
    home.live("decisions", decision("d1"))
    home.live("outcomes", outcome("o1", "d1"), outcome("o2", "d1"), outcome("o3", "d1", "click"))
    assert outcome_types(home.folder) == ["impression", "click"]
