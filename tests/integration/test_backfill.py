"""A feature is added to a home that has decided without it: filled by Feast and DuckDB, as Redis would have told it."""

import datetime as dt
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from features.contract import Contract, parse_contract
from features.homes import write_home_contract
from features.layout import CustomerLayout
from features.live import LiveFeatures
from features.materialize import materialize
from features.offline import write_view
from features.redis_client import redis_client
from service.bundles.loading import read_manifest
from service.bundles.manifest import Manifest
from service.cli import main
from service.decision.decide import decide
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.decision.records import DecisionRecord, EventRecord, IdentityRecord, OutcomeRecord, encode_line
from service.registry import Registry
from training.backfill import BY_EVENTS, BY_FEAST, BY_NOTHING
from training.batch import serving_engine
from training.drafting import draft_catalog
from training.evaluate import evaluate
from training.event_history import fed, read_aliases, read_events, write_events
from training.examples import Examples, Objective, load_examples
from training.fit import FitSettings
from training.frames import load_decisions
from training.learn import Manner, learn, prepare
from training.promotion import promote_without_evidence
from training.report_drift import drifted
from training.retrain import Plan, retrain
from training.split import TRAIN_SHARE

AGE = "  - {name: age, type: number, origin: profile, max_age: 400d}\n"
DEVICE = "  - {name: device, type: category, origin: context, categories: [mobile, desktop]}\n"
LOYALTY = "  - {name: loyalty, type: number, origin: value, max_age: 3d}\n"
MOOD = "  - {name: mood, type: category, origin: value, max_age: 1d, categories: [good, bad]}\n"
VIEWS = "  - {name: views_24h, type: number, origin: activity, events: {aggregate: count, type: product_viewed, window: 24h}}\n"
LAST = "  - {name: days_since_view, type: number, origin: activity, events: {aggregate: since_last, type: product_viewed}}\n"
SLOT = "  - {name: weather, type: category, origin: context, categories: [sun, rain]}\n"
BEFORE = parse_contract(f"features:\n{AGE}{DEVICE}")
AFTER = parse_contract(f"features:\n{AGE}{LOYALTY}{MOOD}{DEVICE}")
WITH_EVENTS = parse_contract(f"features:\n{AGE}{VIEWS}{LAST}{DEVICE}{SLOT}")

DAY, SECOND = 86_400.0, 1e-6
BEGIN = 1_790_000_000.0
DAYS, CUSTOMERS, DECISIONS = 12, 300, 4000
SETTINGS = FitSettings(rounds=60, rows_per_leaf=40, threads=1, identity_dropout=0.0)


class Log(NamedTuple):
    """A home, and the truth of it: loyalty by customer and day, (customers, days)."""

    home: Path
    loyalty: np.ndarray
    records: list[DecisionRecord]

    def say(self, *words: str) -> int:
        return main(["--home", str(self.home), *words])

    def examples(self, contract: Contract = AFTER) -> Examples:
        return load_examples(self.home, Objective("click"), contract)

    def train(self) -> Manifest:
        bundle = learn(self.home, prepare(self.home, "click"), Manner(SETTINGS)).bundle
        return read_manifest(Registry(self.home / "registry").bundle_folder(bundle))

    def add_feature(self, values: Callable[[int, int], float | None] | None = None, late: float = 0.0) -> None:
        """Contract 2, and a table of what was true at the beginning of each day, `late` seconds after it."""
        write_home_contract(self.home, AFTER)
        told = values or (lambda customer, day: self.loyalty[customer, day])
        rows = [(c, d) for d in range(DAYS) for c in range(CUSTOMERS)]
        write(
            self.home, [f"c{c}" for c, _ in rows], [BEGIN + d * DAY + late for _, d in rows],
            loyalty=[told(c, d) for c, d in rows], mood=[["good", "bad", None][(c + d) % 3] for c, d in rows],
        )  # fmt: skip


def write(home: Path, customers: list[str], moments: list[float], **columns: list) -> None:
    """Rows of the view `value`, in the time zone of whoever writes them."""
    stamps = pa.array([round(at * 1e6) for at in moments], pa.int64()).cast(pa.timestamp("us", "Asia/Tokyo"))
    write_view(home, "value", pa.table({"customer_id": customers, "event_timestamp": stamps, **columns}))


def append(home: Path, kind: str, records: list) -> None:
    folder = home / "log" / kind
    folder.mkdir(parents=True, exist_ok=True)
    lines = b"".join(encode_line(msgspec.json.encode(one)) for one in records)
    (folder / f"{len(list(folder.iterdir())):013d}-tests-1.log").write_bytes(lines)


def request(name: str, customer: str, at: float, **known: float | str) -> DecisionRequest:
    state, context = CustomerState({"age": 40.0, **known}), {"device": "mobile"}
    return DecisionRequest(name, customer, at, state, context, (PlacementRequest("hero", 1),))


def outcomes(record: DecisionRecord, *, clicked: bool) -> list[OutcomeRecord]:
    item = record.placements[0].items[0]
    kinds = ["impression", "click"][: 1 + clicked]
    return [
        OutcomeRecord(f"{record.decision_id}-{k}", record.decision_id, k, record.at + 60, record.at + 60, "hero", item.action_id)
        for k in kinds
    ]


def clicks(records: list[DecisionRecord], loyalty: np.ndarray, chance: np.random.Generator) -> list[bool]:
    """What comes of decisions about customers who are so loyal."""
    sign = np.array([1.0 if r.placements[0].items[0].action_id == "gold" else -1.0 for r in records])
    return (chance.random(len(records)) < 1 / (1 + np.exp(1.2 - 1.2 * sign * loyalty))).tolist()


def home_of(folder: Path, contract: Contract) -> Path:
    """Two actions, one placement, chosen at random."""
    write_home_contract(folder, contract)
    publish(folder, epsilon=1.0)
    return folder


def publish(home: Path, epsilon: float) -> None:
    drafted = draft_catalog(["gold", "silver"], ["hero"], {}, {})
    (home / "catalog.yaml").write_text(drafted.replace("epsilon: 0.1", f"epsilon: {epsilon}"))
    assert main(["--home", str(home), "catalog", "publish", str(home / "catalog.yaml")]) == 0


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """4,000 decisions of an engine that knows ages only. Who is loyal that day clicks on gold, who is not on silver."""
    home, chance = home_of(tmp_path_factory.mktemp("decided"), BEFORE), np.random.default_rng(5)
    loyalty = chance.standard_normal((CUSTOMERS, DAYS))
    customer = chance.integers(0, CUSTOMERS, DECISIONS)
    at = BEGIN + np.sort(chance.random(DECISIONS)) * DAYS * DAY
    asked = [request(f"d{n}", f"c{c}", a) for n, (c, a) in enumerate(zip(customer.tolist(), at.tolist(), strict=True))]
    records = list(decide(serving_engine(home), asked))
    clicked = clicks(records, loyalty[customer, ((at - BEGIN) // DAY).astype(int)], chance)
    append(home, "decisions", records)
    append(home, "outcomes", [o for r, c in zip(records, clicked, strict=True) for o in outcomes(r, clicked=c)])
    return Log(home, loyalty, records)


@pytest.fixture
def log(decided: Log, tmp_path: Path) -> Log:
    """A copy, to change."""
    return decided._replace(home=Path(shutil.copytree(decided.home, tmp_path / "home")))


def test_a_feature_that_drives_the_outcome_has_skill_only_once_it_is_filled(log: Log, capsys):
    """Without backfill the AUC is that of chance; with it the model knows what it can know, and may serve. The card says so."""
    log.add_feature()
    (log.home / "learning.toml").write_text('[training]\nbackfill = "none"\n')
    before = log.train()
    (log.home / "learning.toml").unlink()
    after = log.train()
    assert before.backfilled == {}
    assert before.metrics["auc"] < 0.55
    assert after.metrics["auc"] > 0.66
    rows = round(TRAIN_SHARE * DECISIONS)
    told = after.backfilled["customer.loyalty"]
    assert (told.rows, told.filled, told.by, told.unknown) == (rows, rows, BY_FEAST, 0)
    assert BEGIN <= told.since < told.until == after.learned_until
    assert 0 < after.backfilled["customer.mood"].filled < rows
    publish(log.home, epsilon=0.1)
    assert log.say("evaluate", "--bundle", after.bundle_id) == 0
    assert log.say("promote", after.bundle_id) == 0
    assert log.say("models") == 0
    said = capsys.readouterr().out
    assert said.count(f"`customer.loyalty`: {rows:,} of {rows:,} rows that could not record it were filled ({BY_FEAST}") >= 2
    assert Registry(log.home / "registry").current().champion == after.bundle_id


def test_values_are_those_that_serving_would_have_read_from_redis(log: Log, redis_url: str):
    """Row for row: Feast copies the tables as of a decision's moment, and the reader's own layout says what it finds then."""
    log.add_feature()
    chosen = [r for r in log.records if "c7" <= r.customer_id <= "c8"][:3]
    [late] = [r for r in log.records if r.decision_id == "d3999"]
    write(log.home, [late.customer_id], [late.at], loyalty=[77.0], mood=[None])
    moments = np.array([r.at for r in (*chosen, late)])
    found, layout = log.examples(), CustomerLayout(AFTER)
    values = {key: found.values[key].to_pylist() for key in ("customer.loyalty", "customer.mood")}
    compared = 0
    for moment in moments.tolist():
        materialize(log.home, redis_url, end=dt.datetime.fromtimestamp(moment, dt.UTC))
        [row] = np.flatnonzero(np.abs(found.decided_at - moment) < SECOND)
        with redis_client(redis_url) as client:
            served = layout.decode(client.hmget(layout.key(found.customer_id[row]), layout.fields), moment).values
        assert values["customer.loyalty"][row] == served.get("loyalty")
        assert values["customer.mood"][row] == served.get("mood")
        compared += len(served)
    assert compared >= 5
    assert values["customer.loyalty"][-1] == 77.0  # written at the very moment


def test_nothing_of_after_the_decision_is_known_and_nothing_that_was_too_old(log: Log):
    """A second later is too late; three days old is young enough for `loyalty`, a microsecond more is not, nor for `mood`."""
    write_home_contract(log.home, AFTER)
    first, second, third = log.records[0], log.records[1], log.records[2]
    for record, age in ((first, -1.0), (second, 3 * DAY), (third, 3 * DAY + SECOND)):
        write(log.home, [record.customer_id], [record.at - age], loyalty=[5.0], mood=["good"])
    found = log.examples()
    told = dict(zip(found.decision_id.to_pylist(), found.values["customer.loyalty"].to_pylist(), strict=True))
    moods = dict(zip(found.decision_id.to_pylist(), found.values["customer.mood"].to_pylist(), strict=True))
    assert (told["d0"], told["d1"], told["d2"]) == (None, 5.0, None)
    assert (moods["d0"], moods["d1"]) == (None, None)
    for row in np.flatnonzero([v is not None for v in found.values["customer.loyalty"].to_pylist()]).tolist():
        assert found.customer_id[row] in {first.customer_id, second.customer_id, third.customer_id}


def test_what_a_contract_knew_and_recorded_as_missing_stays_missing(log: Log):
    """Decisions of contract 2 without a value are no gap in the log: serving had none, and that is what is learned from."""
    log.add_feature()
    after = BEGIN + (DAYS - 1) * DAY + 3600
    asked = [request(f"new{n}", f"c{n}", after + n) for n in range(40)]
    asked += [request(f"known{n}", f"c{n}", after + n, loyalty=9.0) for n in range(40)]
    records = list(decide(serving_engine(log.home), asked))
    append(log.home, "decisions", records)
    append(log.home, "outcomes", [o for r in records for o in outcomes(r, clicked=False)])
    found = log.examples()
    told = dict(zip(found.decision_id.to_pylist(), found.values["customer.loyalty"].to_pylist(), strict=True))
    assert [told[f"new{n}"] for n in range(40)] == [None] * 40
    assert [told[f"known{n}"] for n in range(40)] == [9.0] * 40
    backfilled = found.backfills["customer.loyalty"]
    assert (int(backfilled.unrecorded.sum()), int(backfilled.filled.sum())) == (DECISIONS, DECISIONS)


def test_a_contract_that_nobody_knows_is_left_alone_until_it_is_kept(log: Log):
    """Contract 1 had a feature that is gone since: only what the registry kept tells what it knew."""
    gone = parse_contract(f"features:\n{AGE}{MOOD.replace('mood', 'shoe')}{DEVICE}")
    write_home_contract(log.home, gone)
    records = list(decide(serving_engine(log.home), [request("old", "c1", BEGIN + DAY)]))
    append(log.home, "decisions", records)
    append(log.home, "outcomes", outcomes(records[0], clicked=False))
    log.add_feature()
    backfilled = log.examples().backfills["customer.loyalty"]
    assert (int(backfilled.unrecorded.sum()), int(backfilled.unknown.sum())) == (DECISIONS, 1)
    Registry(log.home / "registry").keep_contract(gone.fingerprint, gone.canonical)
    backfilled = log.examples().backfills["customer.loyalty"]
    assert (int(backfilled.filled.sum()), int(backfilled.unknown.sum())) == (DECISIONS + 1, 0)


def test_the_fingerprint_of_the_rows_covers_what_was_filled_in(log: Log):
    """The same log and history give the same; another history another; without backfill it is that of the log alone."""
    plain = log.examples(BEFORE).fingerprint
    log.add_feature()
    filled = log.examples()
    assert filled.fingerprint == log.examples().fingerprint != plain
    shuffled = np.random.default_rng(0).permutation(len(filled))
    assert filled.take(shuffled).fingerprint == filled.fingerprint
    log.add_feature(lambda c, d: 1.0 if (c, d) == (3, 3) else log.loyalty[c, d])
    assert log.examples().fingerprint not in (filled.fingerprint, plain)
    (log.home / "learning.toml").write_text('[training]\nbackfill = "none"\n')
    assert log.examples().fingerprint == plain


def test_a_table_that_was_filled_in_afterwards_and_backdated_is_caught_by_the_gate(log: Log, capsys):
    """Point in time is no help where the time is a lie: the leak check sees it, and says where the values come from."""
    assert log.say("train", "--objective", "click") == 0
    assert log.say("promote", "--force", "--why", "for tests") == 0
    write_home_contract(log.home, AFTER)
    clicked = load_decisions(log.home, as_="pandas")
    write(
        log.home, clicked["customer_id"].tolist(), [at.timestamp() - 1.0 for at in clicked["decided_at"]],
        loyalty=clicked["outcome.click"].astype(float).tolist(), mood=[None] * len(clicked),
    )  # fmt: skip
    leaking = log.train()
    assert log.say("promote", leaking.bundle_id) == 1
    said = capsys.readouterr().err
    assert "leak? `customer.loyalty` alone tells the outcome" in said
    assert "backfilled, which is a usual way for a leak to come in: `customer.loyalty`" in said


def test_inputs_that_were_filled_pass_the_check_of_inputs_beside_rows_that_recorded_them(log: Log):
    """The older rows are filled, the newer ones recorded it: the gate sees one column. Without backfill it sees another."""
    log.add_feature()
    half = [r for r in log.records if r.at > BEGIN + 0.6 * DAYS * DAY]
    known = [float(log.loyalty[int(r.customer_id[1:]), int((r.at - BEGIN) // DAY)]) for r in half]
    asked = [
        request(f"n{n}-{second}", r.customer_id, r.at + second, loyalty=value)
        for n, (r, value) in enumerate(zip(half, known, strict=True)) for second in (1.0, 2.0)
    ]  # fmt: skip
    records = list(decide(serving_engine(log.home), asked))
    clicked = clicks(records, np.repeat(known, 2), np.random.default_rng(2))
    append(log.home, "decisions", records)
    append(log.home, "outcomes", [o for r, c in zip(records, clicked, strict=True) for o in outcomes(r, clicked=c)])
    told = {}
    for how in ("feast", "none"):
        (log.home / "learning.toml").write_text(f'[training]\nbackfill = "{how}"\n')
        told[how] = inputs_check(log.home, learn(log.home, prepare(log.home, "click", 0.33), Manner(SETTINGS)).bundle)
    assert told["feast"].startswith("5 inputs look as they did; `customer.loyalty`: 2,3")
    assert "`customer.loyalty` was missing in 98% of the rows learned from, in 33% of those served" in told["none"]


def test_a_history_that_was_written_is_a_reason_to_train_again_and_no_drift(log: Log):
    """No new decision has come: with the table the next round learns, and a jump of the AUC waits for somebody's word."""
    first = retrain(log.home, Plan("click", how=Manner(SETTINGS)))
    promote_without_evidence(log.home, first.bundle, "for tests")
    assert retrain(log.home).result == "skipped"
    log.add_feature()
    publish(log.home, epsilon=0.1)
    jumped = retrain(log.home, Plan(how=Manner(SETTINGS)))
    assert jumped.result == "kept"
    assert any("AUC jumps from the champion's" in told and "backfilled" in told for told in jumped.told)
    (log.home / "learning.toml").write_text("[gate]\nauc_jump = 0.4\nmost_times = 400\n")
    again = retrain(log.home)
    assert (again.result, again.bundle) == ("promoted", jumped.bundle)
    assert any(told.startswith("`customer.loyalty`: 2,000 of 2,000 rows") for told in again.told)
    found = {one.column: one.is_shifted for one in drifted(log.home).inputs.columns}
    assert found["customer.loyalty"] is False
    assert found["customer.mood"] is False


def inputs_check(home: Path, bundle: str) -> str:
    return next(check.told for check in evaluate(home, bundle=bundle).checks if check.name == "inputs")


class Watched(NamedTuple):
    """What customers looked at: events that were ingested, and some that came in live, one of them late."""

    home: Path
    records: list[DecisionRecord]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    home = home_of(tmp_path / "watched", BEFORE)
    (home / "features" / "events.yaml").write_text("types:\n  product_viewed: {}\n")
    noon = BEGIN + 10 * DAY
    at = {"early": BEGIN, "one": noon, "late": noon + 60, "hours": noon + 7200, "nobody": noon + 60, "alias": noon + 60}
    customers = {"nobody": "stranger", "alias": "app-7"}
    records = list(decide(serving_engine(home), [request(n, customers.get(n, "c1"), t) for n, t in at.items()]))
    append(home, "decisions", records)
    append(home, "outcomes", [o for r in records for o in outcomes(r, clicked=False)])
    ingested = [event("i1", "c1", noon - 3600), event("i2", "c1", noon), event("i3", "c1", noon + 1)]
    write_events(home, "file", [msgspec.structs.replace(e, received_at=noon + 90 * DAY) for e in ingested])
    append(home, "events", [event("l1", "c1", noon + 30, received_at=noon + 3600)])
    append(home, "identities", [IdentityRecord("app-7", "c1", noon + 30)])
    write_home_contract(home, WITH_EVENTS)
    return Watched(home, records)


def event(name: str, customer: str, at: float, received_at: float | None = None) -> EventRecord:
    return EventRecord(name, customer, "product_viewed", "web", at, at if received_at is None else received_at)


def test_what_events_feed_is_filled_as_of_the_decision_from_lake_and_log(watched: Watched):
    """Counts of what had happened and was known by then; before the first event nobody knows; of a stranger it is none."""
    found = load_examples(watched.home, Objective("click"), WITH_EVENTS)
    names = found.decision_id.to_pylist()
    views = dict(zip(names, found.values["customer.views_24h"].to_pylist(), strict=True))
    assert views == {"early": None, "one": 2.0, "late": 3.0, "hours": 4.0, "nobody": 0.0, "alias": 3.0}
    since = dict(zip(names, found.values["customer.days_since_view"].to_pylist(), strict=True))
    assert (since["early"], since["one"], since["nobody"]) == (None, 0.0, None)
    assert since["late"] * DAY == pytest.approx(59.0)
    assert since["hours"] * DAY == pytest.approx(7170.0)
    told = {key: one.summary(found.decided_at) for key, one in found.backfills.items()}
    assert [(one.rows, one.filled, one.by) for one in told.values()] == [(6, 5, BY_EVENTS), (6, 4, BY_EVENTS), (6, 0, BY_NOTHING)]


def test_what_events_feed_is_what_the_state_that_is_served_says(watched: Watched):
    """The events that had come by a decision, applied one by one, and read at its moment."""
    live, found = LiveFeatures(WITH_EVENTS), load_examples(watched.home, Objective("click"), WITH_EVENTS)
    events = fed(read_events(watched.home), read_aliases(watched.home))
    for row in np.flatnonzero(found.decided_at > BEGIN).tolist():
        at, whose = found.decided_at[row], {"c1", "app-7"} if found.customer_id[row] != "stranger" else {"stranger"}
        come = [
            e
            for customer, e in events
            if customer in whose and e.at <= at and (e.event_id != "l1" or at > BEGIN + 10 * DAY + 3600)
        ]
        served = live.values(live.apply({}, come), at)
        for name in ("views_24h", "days_since_view"):
            assert found.values[f"customer.{name}"][row].as_py() == pytest.approx(served.get(name), abs=1e-9)


def test_a_table_of_decisions_tells_what_was_filled_where_it_is_asked_to(log: Log):
    """As logged unless told otherwise; with `backfill` the values of training, and which they are."""
    log.add_feature()
    plain, filled = (load_decisions(log.home, as_="pandas", backfill=how) for how in (False, True))
    assert plain["customer.loyalty"].isna().all()
    assert "backfilled" not in plain
    assert "made_under" not in filled
    assert filled["customer.loyalty"].tolist() == log.examples().values["customer.loyalty"].to_pylist()
    assert set(map(tuple, filled["backfilled"])) == {("customer.loyalty",), ("customer.loyalty", "customer.mood")}
