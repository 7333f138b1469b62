"""Row 4: logged decisions, made again after catalog and bundle have changed; and a log that somebody changed."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import msgspec
import pyarrow as pa
from pyarrow import csv

from service.decision.again import encode_record
from service.decision.entities import PlacementRequest
from service.decision.records import DecisionRecord, decode_lines, encode_line
from service.registry import Registry
from tests.acceptance.row import Context, Measured, NotRun, Row
from tests.acceptance.rows.footprint import serving
from tests.acceptance.whole import WholeHome, command, whole_home, with_customers, without_log
from training.batch import decide_table
from training.batch_parts import Campaign
from training.decision_log import read_decisions
from training.fit import FitSettings
from training.learn import train
from training.live_log import segments
from training.promotion import promote_without_evidence
from training.replay import replay

DECISIONS = 10_000
IN_BATCHES = 8000  # by `decide`, 2,048 at once; the rest by a server, one by one
ASKED = (PlacementRequest("home_hero", 3), PlacementRequest("app_card", 2))
MUTATED = "spend_12m"


def measure(context: Context) -> Measured:
    logged_home = without_log(context, whole_home(context), "replayed")
    with with_customers(logged_home) as url:
        _in_batches(logged_home, url)
        with serving(logged_home.folder, context) as (_, address, _ready):
            _one_by_one(logged_home, address)
    versions = _move_on(logged_home.folder)
    report = replay(logged_home.folder)
    mutated = _mutated(logged_home.folder)
    found = replay(logged_home.folder)
    detected = [m.decision_id for m in found.mismatches]
    experiments = {logged.record.experiment for logged in read_decisions(logged_home.folder) if logged.record.experiment}
    figure = (
        f"{report.identical:,} of {report.decisions:,} byte-identical after {versions}; {len(experiments)} arms among them; "
        f"`{MUTATED}` changed in one record: {found.different} different"
    )
    holds = report.holds and report.decisions == DECISIONS and detected == [mutated] and found.different == 1
    return Measured(figure, holds)


def _in_batches(home: WholeHome, redis_url: str) -> None:
    table = home.folder / "customers.csv"
    names = home.world.customer_ids
    csv.write_csv(pa.table({"customer_id": [names[n % len(names)] for n in range(IN_BATCHES)]}), table)
    campaign = Campaign("replayed", ASKED, {"channel": "web", "device": "mobile"})
    decide_table(home.folder, redis_url, campaign, table, home.folder / "out.parquet")


def _one_by_one(home: WholeHome, url: str) -> None:
    """Customers who ask, see what they get, and sometimes send it away: caps and cool-downs come to bear."""
    with httpx.Client(base_url=url, timeout=10.0) as web, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: _visit(web, home.world.customer_ids[number % 500], number), range(DECISIONS - IN_BATCHES)))


def _visit(web: httpx.Client, customer: str, number: int) -> None:
    asked = {
        "placements": [{"id": "home_hero", "slots": 3}],
        "context": {"channel": "web", "device": "desktop"},
        "deadline_ms": 2000,
    }
    answer = web.post("/recommend", json={"customer_id": customer, **asked}).raise_for_status().json()
    item = answer["placements"][0]["items"][0]
    said = {
        "decision_id": answer["decision_id"],
        "placement": "home_hero",
        "action_id": item["action_id"],
        "at": dt.datetime.now(dt.UTC).isoformat(),
    }
    kinds = ["impression", "dismiss"] if number % 3 == 0 else ["impression"]
    outcomes = [{"outcome_id": f"{answer['decision_id']}-{kind}", "type": kind, **said} for kind in kinds]
    web.post("/outcomes", json={"outcomes": outcomes}).raise_for_status()


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()


def _move_on(home: Path) -> str:
    """Another catalog, and another bundle."""
    text = (home / "catalog.yaml").read_text()
    for old, new in (("value: 2.0", "value: 9"), ("at_most: 3, per: action", "at_most: 1, per: action")):
        text = text.replace(old, new)
    (home / "changed.yaml").write_text(text)
    command(home, "catalog", "publish", str(home / "changed.yaml"))
    promote_without_evidence(home, train(home, "click", settings=FitSettings(seed=1)), "another one")
    pointer = Registry(home / "registry").current()
    if pointer.catalog != 2 or len(pointer.previous) < 2:
        raise NotRun(f"the catalog or the bundle did not change: {pointer}")
    return f"catalog {pointer.catalog} and another bundle"


def _mutated(home: Path) -> str:
    """Change one feature of one record, checksum and all. The decision's id."""
    for path in segments(home, "decisions"):
        lines = [line.payload for line in decode_lines(path.read_bytes()) if line.payload is not None]
        for number, payload in enumerate(lines):
            record = msgspec.json.decode(payload, type=DecisionRecord)
            if not all(p.fallback for p in record.placements) and MUTATED in record.customer:
                changed = {**record.customer, MUTATED: float(record.customer[MUTATED]) + 1000.0}
                lines[number] = encode_record(msgspec.structs.replace(record, customer=changed))
                path.write_bytes(b"".join(encode_line(line) for line in lines))
                return record.decision_id
    raise NotRun("no decision has the feature to change")


ROW = Row(
    4,
    f"{DECISIONS:,} logged decisions, then a changed catalog and a new bundle: replayed",
    "all byte-identical; one changed feature is found, and only that",
    measure,
)
