"""Row 2: two published histories come in; every row is accounted for, and features are what counting by hand gives."""

import csv
import datetime as dt
import gzip
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from features.contract import Contract, parse_contract, step_of
from features.homes import features_folder, write_home_contract
from features.live_offline import event_table, live_values
from features.offline import read_view, write_view
from features.redis_server import resolve_redis
from tests.acceptance.row import Context, Measured, NotRun, Row
from training.event_history import fed, read_events
from training.ingest import IngestReport, ingest

SAMPLES = 2000
READ = ("sales_value", "basket_text", "product_text", "quantity", "retail_disc", "campaign", "coupon")  # columns of properties
NOW = 1_790_000_000.0
DAY = 86_400.0
EVENTS = """
events:
  offer_received: {properties: {offer: text}}
  offer_viewed: {properties: {offer: text}}
  offer_completed: {properties: {offer: text, reward: number}}
  purchased: {properties: {amount: number, basket: text, product: text, quantity: number, discount: number}}
  mailed: {properties: {campaign: text}}
  redeemed: {properties: {campaign: text, coupon: text}}
"""
FEATURES = """
features:
  - {name: age, type: number, origin: profile, max_age: 4000d}
  - {name: income, type: number, origin: profile, max_age: 4000d}
  - {name: offers_7d, type: number, origin: activity, events: {aggregate: count, type: offer_received, window: 7d}}
  - {name: viewed_24h, type: number, origin: activity, events: {aggregate: count, type: offer_viewed, window: 24h}}
  - {name: spend_7d, type: number, origin: value, events: {aggregate: sum, type: purchased, property: amount, window: 7d}}
  - {name: spend_30d, type: number, origin: value, events: {aggregate: sum, type: purchased, property: amount, window: 30d}}
  - {name: worth, type: number, origin: value, events: {aggregate: sum, type: purchased, property: amount, half_life: 30d}}
  - {name: days_since_order, type: number, origin: value, events: {aggregate: since_last, type: purchased}}
  - {name: offers_seen_30d, type: number, origin: activity, events: {aggregate: distinct, property: offer, window: 30d}}
  - {name: last_amount, type: number, origin: value, events: {aggregate: recent, type: purchased, property: amount}}
"""
REWARDS = """
customer_id = "person"
type = "event"
channel = "=app"
at = "time"
at_unit = 3600
at_start = "2018-01-01T00:00:00Z"
[types]
"offer received" = "offer_received"
"offer viewed" = "offer_viewed"
"offer completed" = "offer_completed"
transaction = "purchased"
[properties]
offer = ["value.offer id", "value.offer_id"]
reward = ["value.reward"]
amount = ["value.amount"]
"""
TRANSACTIONS = """
customer_id = "household_id"
type = "=purchased"
channel = "=store"
at = "transaction_timestamp"
[properties]
amount = ["sales_value"]
basket = ["basket_text"]
product = ["product_text"]
quantity = ["quantity"]
discount = ["retail_disc"]
"""
CAMPAIGNS = """
customer_id = "household_id"
type = "=mailed"
channel = "=mail"
at = "start_date"
[properties]
campaign = ["campaign"]
"""
REDEMPTIONS = """
customer_id = "household_id"
type = "=redeemed"
channel = "=store"
at = "redemption_date"
[properties]
campaign = ["campaign"]
coupon = ["coupon"]
"""


class Happened(NamedTuple):
    """An event as the file has it, read by nothing of ours."""

    customer: str
    kind: str
    at: float
    amount: float | None
    offer: str | None
    name: str = ""


class Source(NamedTuple):
    """A file to take in, its mapping, and what is in it."""

    name: str
    path: Path
    mapping: str
    rows: int
    distinct: list[Happened]


def measure(context: Context) -> Measured:
    data = Path(os.environ.get("NEXTBEST_DATA") or context.root.parent / "shared" / "data")
    if not (data / "complete_journey").exists() or not (data / "rewards_simulated").exists():
        raise NotRun("the histories are not here: set NEXTBEST_DATA to the folder of rewards_simulated and complete_journey")
    told, wrong, sampled = [], 0, 0
    for name, sources in (("rewards", _rewards(data, context.scratch)), ("journey", _journey(data, context.scratch))):
        home = context.scratch / f"history-{name}"
        contract = _home(home)
        customers = _profiles(home, data, name)
        reports = []
        with resolve_redis(None, home) as url:
            for source in sources:
                mapping = home / f"{source.name}.toml"
                mapping.write_text(source.mapping)
                reports.append(ingest(home, url, source.path, mapping, now=NOW))
                context.tell(f"  {source.name}: {reports[-1]}")
        problems = [p for s, r in zip(sources, reports, strict=True) for p in _reconciled(s, r)]
        problems += _kept(home, [one for source in sources for one in source.distinct])
        happened = [one for source in sources for one in source.distinct]
        differences, count = _sampled(home, contract, happened, context.seed)
        wrong += differences + len(problems)
        sampled += count
        total, taken, twice = (sum(getattr(r, key) for r in reports) for key in ("rows", "accepted", "duplicates"))
        told.append(
            f"{name}: {total:,} rows = {taken:,} events + {twice:,} twice, {customers:,} customers"
            f"{'; ' + problems[0] if problems else ''}; {count - differences} of {count} moments agree"
        )
    return Measured("; ".join(told), wrong == 0 and sampled == SAMPLES)


def _home(folder: Path) -> Contract:
    contract = parse_contract(FEATURES)
    write_home_contract(folder, contract)
    (features_folder(folder) / "events.yaml").write_text(EVENTS)
    return contract


def _profiles(home: Path, data: Path, name: str) -> int:
    """Customers, with what is known of who they are."""
    path = data / ("rewards_simulated/profile.csv.gz" if name == "rewards" else "complete_journey/demographics.csv.gz")
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    ids = [row["id" if name == "rewards" else "household_id"] for row in rows]
    numbers = {key: [_number(row.get(key, "")) for row in rows] for key in ("age", "income")}
    moment = pa.array([round(NOW * 1e6)] * len(ids), pa.timestamp("us", tz="UTC"))
    columns = {key: pa.array(values, pa.float64()) for key, values in numbers.items()}
    write_view(home, "profile", pa.table({"customer_id": ids, "event_timestamp": moment, **columns}))
    if read_view(home, "profile").num_rows != len(set(ids)):
        raise NotRun("the profiles did not come in whole")
    return len(ids)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _rewards(data: Path, _scratch: Path) -> list[Source]:
    path = data / "rewards_simulated" / "transcript.jsonl.gz"
    start = dt.datetime(2018, 1, 1, tzinfo=dt.UTC).timestamp()
    kinds = {"transaction": "purchased"}
    with gzip.open(path, "rt") as file:
        lines = [json.loads(line) for line in file]
    distinct = {json.dumps(line, sort_keys=True): line for line in lines}
    found = [
        Happened(
            line["person"], kinds.get(line["event"], line["event"].replace(" ", "_")), start + line["time"] * 3600.0,
            line["value"].get("amount"), line["value"].get("offer id") or line["value"].get("offer_id"),
        )
        for line in distinct.values()
    ]  # fmt: skip
    return [Source("transcript", path, REWARDS, len(lines), found)]


def _journey(data: Path, scratch: Path) -> list[Source]:
    """Identifiers become texts: a basket is no number."""
    folder = data / "complete_journey"
    starts = {row["campaign_id"]: row["start_date"] for row in _csv(folder / "campaign_descriptions.csv.gz")}
    transactions, mailed, redeemed = (
        [_with_texts(row, starts) for row in _csv(folder / f"{name}.csv.gz")]
        for name in ("transactions", "campaigns", "coupon_redemptions")
    )
    return [
        _source(scratch / "transactions.csv", transactions, TRANSACTIONS, ("purchased", "transaction_timestamp")),
        _source(scratch / "campaigns.csv", mailed, CAMPAIGNS, ("mailed", "start_date")),
        _source(scratch / "redemptions.csv", redeemed, REDEMPTIONS, ("redeemed", "redemption_date")),
    ]


def _with_texts(row: dict[str, str], starts: dict[str, str]) -> dict[str, str]:
    texts = {"basket_text": "basket_id", "product_text": "product_id", "campaign": "campaign_id", "coupon": "coupon_upc"}
    added = {name: f"x{row[column]}" for name, column in texts.items() if column in row}
    if "campaign_id" in row and "redemption_date" not in row:
        added["start_date"] = starts[row["campaign_id"]]
    return {**row, **added}


def _csv(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        yield from csv.DictReader(file)


def _source(path: Path, rows: list[dict[str, str]], mapping: str, what: tuple[str, str]) -> Source:
    """Write the file, and count for ourselves. `what`: type and moment of its events."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    kind, at = what
    read = ["household_id", at, *(name for name in READ if name in rows[0])]
    distinct = {tuple(row[key] for key in read): row for row in rows}.values()
    moments = [dt.datetime.fromisoformat(row[at]).replace(tzinfo=dt.UTC).timestamp() for row in distinct]
    found = [
        Happened(row["household_id"], kind, moment, _number(row.get("sales_value", "")), None)
        for row, moment in zip(distinct, moments, strict=True)
    ]
    return Source(path.stem, path, mapping, len(rows), found)


def _reconciled(source: Source, report: IngestReport) -> Iterator[str]:
    if report.rows != source.rows:
        yield f"{source.name}: {report.rows} rows of {source.rows}"
    if report.accepted != len(source.distinct):
        yield f"{source.name}: {report.accepted} events of {len(source.distinct)} different rows"
    if report.accepted + report.duplicates + report.quarantined != source.rows or report.quarantined or report.undeclared:
        yield f"{source.name}: {report}"


def _kept(home: Path, happened: Sequence[Happened]) -> Iterator[str]:
    """What lies in the lake, by type and in money, against the files."""
    counts, money = Counter[str](), 0.0
    for record in read_events(home):
        counts[record.type] += 1
        money += float(record.properties.get("amount", 0.0))
    if counts != Counter(one.kind for one in happened):
        yield f"events by type differ: {counts}"
    if abs(money - sum(one.amount or 0.0 for one in happened)) > 1e-3:  # of a sum of a million, in another order
        yield f"money differs: {money}"


def _sampled(home: Path, contract: Contract, happened: Sequence[Happened], seed: int) -> tuple[int, int]:
    """Random customers at random moments: how many differ, of how many."""
    chance = np.random.default_rng(seed)
    by_customer: defaultdict[str, list[Happened]] = defaultdict(list)
    for one in happened:
        by_customer[one.customer].append(one)
    names, count = sorted(by_customer), SAMPLES // 2
    first, last = min(one.at for one in happened), max(one.at for one in happened)
    customers = [names[n] for n in chance.integers(len(names), size=count)]
    moments = np.floor(chance.uniform(first, last + 5 * DAY, count)) + 0.5  # between events, which have whole seconds
    table = event_table(fed(read_events(home)), contract)
    asked = pa.table({"customer_id": customers, "at": moments})
    rows = live_values(contract, table, asked).to_pylist()
    return sum(not _agrees(row, _by_hand(by_customer[row["customer_id"]], row["at"])) for row in rows), count


def _by_hand(happened: Sequence[Happened], now: float) -> dict[str, Any]:
    """The features by their definitions; for the last amount, all amounts of the last moment."""
    past = [one for one in happened if one.at <= now]
    bought = [one for one in past if one.kind == "purchased"]

    def inside(one: Happened, window: float) -> bool:
        step = step_of(window)
        return one.at // step > now // step - round(window / step)

    return {
        "offers_7d": sum(one.kind == "offer_received" and inside(one, 7 * DAY) for one in past),
        "viewed_24h": sum(one.kind == "offer_viewed" and inside(one, DAY) for one in past),
        "spend_7d": sum(one.amount or 0.0 for one in bought if inside(one, 7 * DAY)),
        "spend_30d": sum(one.amount or 0.0 for one in bought if inside(one, 30 * DAY)),
        "worth": sum((one.amount or 0.0) * 0.5 ** ((now - one.at) / (30 * DAY)) for one in bought),
        "days_since_order": (now - max(one.at for one in bought)) / DAY if bought else None,
        "offers_seen_30d": len({one.offer for one in past if one.offer and inside(one, 30 * DAY)}),
        "last_amount": {one.amount for one in bought if one.at == max(b.at for b in bought)} or {None},
    }


def _agrees(row: dict[str, Any], expected: dict[str, Any]) -> bool:
    if row["last_amount"] not in expected.pop("last_amount"):
        return False
    return all(
        row[name] == value if value is None or row[name] is None else abs(row[name] - value) <= 1e-6 * max(1.0, abs(value))
        for name, value in expected.items()
    )


ROW = Row(
    2,
    "two published histories as customers and events; features at random moments",
    f"every row accounted for; {SAMPLES:,} of {SAMPLES:,} moments equal a count by hand",
    measure,
)
