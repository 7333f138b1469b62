"""Row 6: what a draft would have made of a million logged decisions, and whether what it says of their value is true."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import msgspec
import numpy as np

from service.catalog.validate import parse_catalog
from service.decision.again import encode_record
from service.decision.decide import decide, outline
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.decision.records import DecisionRecord, OutcomeRecord, encode_line
from service.registry import Registry
from tests.acceptance.processes import clean_environment, nextbest, run_or_not
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.whole import EXAMPLES, WholeHome, whole_home, whole_world, without_log
from training.batch import serving_engine
from training.simulate import CHANNELS, DAY, Moment, World
from training.whatif import Draft, build

DECISIONS = 1_000_000
LIMIT_S = 300.0
PROCESSES = 2
AT_ONCE = 4096
EVERY = 5  # of the logged visits, whose true value is worked out
START = 1_790_000_000.0
CHANGES = (
    ("lever: 1.05", "lever: 1.5"),
    ("factor: 1.2", "factor: 2.0"),
    ('is_adult: "customer.age >= 18"', 'is_adult: "customer.age >= 21"'),
)


def measure(context: Context) -> Measured:
    home = without_log(context, whole_home(context), "million")
    size = _write_everything(home, context)
    draft = home.folder / "draft.yaml"
    draft.write_text(_changed((EXAMPLES / "catalog.yaml").read_text()))
    started = time.perf_counter()
    command = nextbest("--home", str(home.folder), "whatif", "--catalog", str(draft), "--json")
    report = json.loads(run_or_not(command, context.root, clean_environment(), limit=2 * LIMIT_S).output)
    seconds = time.perf_counter() - started
    found, truth = report["value_drafted"], true_value(home, draft, context.seed)
    error = (found["ci"][1] - found["ci"][0]) / 2
    told = f"{report['value_logged']['value']:.4f} as logged, the draft {found['value']:.4f} +- {error:.4f}"
    figure = (
        f"{report['decisions']:,} decisions and {report['held_out']:,} of the holdout ({size / 1e9:.1f} GB) in {seconds:.0f} s "
        f"on {PROCESSES} cores; click a first item: "
        f"{told} ({report['effective_rows']:,.0f} effective rows), in truth {truth:.4f}"
    )
    is_true = abs(found["value"] - truth) <= 2 * error and not report["doubts"]
    return Measured(figure, report["decisions"] + report["held_out"] == DECISIONS and seconds <= LIMIT_S and is_true)


def _changed(text: str) -> str:
    for old, new in CHANGES:
        text = text.replace(old, new)
    return text


def _write_everything(home: WholeHome, context: Context) -> int:
    """A million decisions and their outcomes, as the service writes them. Bytes of the decisions."""
    context.tell(f"deciding {DECISIONS:,} times ...")
    started = time.perf_counter()
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        shares = [DECISIONS // PROCESSES] * PROCESSES
        list(pool.map(_write_log, [str(home.folder)] * PROCESSES, [context.seed] * PROCESSES, range(PROCESSES), shares))
    size = sum(path.stat().st_size for path in (home.folder / "log" / "decisions").rglob("*.log"))
    context.tell(f"wrote {size / 1e9:.1f} GB in {time.perf_counter() - started:.0f} s")
    return size


def _write_log(home: str, seed: int, part: int, count: int) -> None:
    """Visits to the simulated world, decided for by the engine that serves."""
    world, engine, folder = whole_world(seed), serving_engine(Path(home)), Path(home) / "log"
    states = [world.state(customer) for customer in range(len(world.customer_ids))]
    moments = _moments(world, seed, part, count)
    for kind in ("decisions", "outcomes"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    name = f"{int(START * 1000):013d}-accept{part}-1.log"
    with (folder / "decisions" / name).open("wb") as decisions, (folder / "outcomes" / name).open("wb") as outcomes:
        for start in range(0, count, AT_ONCE):
            some = moments[start : start + AT_ONCE]
            records = decide(engine, _requests(world, states, some, f"p{part}-{start}"))
            decisions.writelines(encode_line(encode_record(record)) for record in records)
            outcomes.writelines(encode_line(msgspec.json.encode(o)) for o in _outcomes(world, some, records, seed + start))


def _moments(world: World, seed: int, part: int, count: int) -> list[Moment]:
    """The visits that one process decides for."""
    return world.moments(count, START, START + 30 * DAY, seed + part + 1)


def _requests(world: World, states: Sequence[CustomerState], moments: Sequence[Moment], name: str) -> list[DecisionRequest]:
    return [
        DecisionRequest(
            f"{name}-{n}", world.customer_ids[m.customer], m.at, states[m.customer],
            {"channel": CHANNELS[m.placement], "device": m.device, "local_hour": 12.0}, (PlacementRequest(m.placement, 1),),
        )
        for n, m in enumerate(moments)
    ]  # fmt: skip


def _outcomes(world: World, moments: Sequence[Moment], records: Sequence[DecisionRecord], seed: int) -> list[OutcomeRecord]:
    """Every item that is no fallback is seen; some are clicked."""
    positions = {action.id: position for position, action in enumerate(world.actions)}
    shown = [(m, r) for m, r in zip(moments, records, strict=True) if not r.placements[0].fallback]
    chosen = np.array([positions[r.placements[0].items[0].action_id] for _, r in shown], np.intp)
    clicks, _ = world.respond([m for m, _ in shown], chosen, seed)
    found = []
    for (_, record), clicked in zip(shown, clicks.tolist(), strict=True):
        item, placement = record.placements[0].items[0], record.placements[0].id
        for kind in ("impression", "click") if clicked else ("impression",):
            name = f"{record.decision_id}-{kind}"
            found.append(OutcomeRecord(name, record.decision_id, kind, record.at, record.at, placement, item.action_id))
    return found


def true_value(home: WholeHome, draft: Path, seed: int) -> float:
    """How often the draft's first items would be clicked where the log shows one, by the truth of the world."""
    world, serves = home.world, serving_engine(home.folder)
    document, _ = parse_catalog(draft.read_text(), world.contract)
    engine = build(home.folder, Draft(document, Registry(home.folder / "registry").current().champion))
    share = DECISIONS // PROCESSES
    moments = [moment for part in range(PROCESSES) for moment in _moments(world, seed, part, share)[::EVERY]]
    states = [world.state(customer) for customer in range(len(world.customer_ids))]
    requests = _requests(world, states, moments, "truth")
    parts = (decide(serves, requests[start : start + AT_ONCE]) for start in range(0, len(requests), AT_ONCE))
    logged = np.array([not record.placements[0].fallback for records in parts for record in records])
    likely = np.zeros((len(moments), len(engine.actions)))
    for start in range(0, len(moments), AT_ONCE):
        for part in outline(engine, requests[start : start + AT_ONCE]):
            likely[start + part.rows] = part.first
    likely, rates = likely[logged], world.rates([m for m, kept in zip(moments, logged, strict=True) if kept])
    return float((likely * rates).sum() / likely.sum())


ROW = Row(
    6,
    f"a what-if over {DECISIONS:,} logged decisions",
    f"within {LIMIT_S / 60:.0f} minutes on one machine; the true value within twice the interval",
    measure,
)
