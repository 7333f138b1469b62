"""A small world with known truth: customers, what they are like, and how likely they are to respond to what they are shown.

Everything follows from a seed. The truth is written out below, so that a test can say what the best choice would have been.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.contract import Contract, Feature, read_contract
from features.homes import PACKAGED
from service.catalog.entities import Catalog, Exploration, Scalar
from service.catalog.validate import parse_catalog
from service.decision.decide import choice_table, decide
from service.decision.engine import Engine, build_engine, by_priority
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.decision.records import Versions
from service.decision.scoring import FlatScorer
from training.calibrate import sigmoid

Values = npt.NDArray[np.float64]
Names = npt.NDArray[np.str_]

CATALOG = Path(__file__).parent / "demo" / "catalog.yaml"
CHANNELS = {"home_hero": "web", "app_card": "app", "mail_top": "email"}
DEVICES = ("mobile", "desktop", "tablet", "other")
CATEGORIES = ("fashion", "home", "tech", "food", "travel")
DAY = 86_400.0
HISTORY_DAYS = 30.0
BUYERS = 0.2  # share of clicks that end in a purchase
DECIDED_AT_ONCE = 4096
JOURNEY_STAGES = ("browsing", "cart", "checkout", "bought", "quiet")
TIME_ZONES = ("Europe/Berlin", "Asia/Shanghai", "America/New_York")
WHO, WHETHER, MORE = 1, 2, 3  # streams of chance: who comes must not tell whether they respond
MAPPING = """\
[log]
customer_id = "customer_id"
action_id = "action_id"
choice_probability = "choice_probability"
decided_at = "decided_at"
placement = "placement"
[features]
{features}
[context]
channel = "category"
device = "category"
[outcomes]
click = "binary"
conversion = "value"
[home]
features = "features.yaml"
catalog = "catalog.yaml"
"""


class Moment(NamedTuple):
    """Somebody comes by: which customer, when (seconds since 1970 UTC), where, on what."""

    customer: int
    at: float
    placement: str
    device: str


class World:
    """So many customers, drawn from a seed. Arrays over customers are in the order of `customer_ids`."""

    def __init__(self, customers: int = 4000, seed: int = 0, catalog: Path = CATALOG, features: Path = PACKAGED) -> None:
        self.catalog_path, self.features_path = catalog, features
        self._chance = np.random.default_rng(seed)
        self.contract: Contract = read_contract(features)
        self.catalog: Catalog = parse_catalog(catalog.read_text(), self.contract, catalog.name)[1]
        self.actions = by_priority(self.catalog)
        self.customer_ids = [f"c{number}" for number in range(customers)]
        self._truth = self._draw(customers) | self._draw_more(customers, np.random.default_rng([seed, customers, MORE]))
        self.features = self._observed()

    def _draw(self, size: int) -> dict[str, Any]:
        """What customers are really like: (customers,) each."""
        chance = self._chance
        engagement = chance.gamma(2.0, 0.5, size)
        orders = chance.poisson(2.5 * engagement)
        return {
            "age": np.round(chance.normal(44, 15, size).clip(16, 90)),
            "region": chance.choice(["north", "south", "east", "west"], size),
            "tenure_days": np.round(chance.exponential(700, size)),
            "visits_30d": chance.poisson(4 * engagement).astype(float),
            "days_since_visit": np.round(chance.exponential(12 / (0.3 + engagement))),
            "email_opens_30d": chance.poisson(2 * engagement).astype(float),
            "last_channel": chance.choice(["web", "app", "email", "store", "chat"], size, p=[0.4, 0.3, 0.15, 0.1, 0.05]),
            "orders_12m": orders.astype(float),
            "spend_12m": np.round(orders * chance.lognormal(4.0, 0.5, size), 2),
            "days_since_order": np.where(orders > 0, np.round(chance.exponential(80, size)), np.nan),
            "favourite_category": chance.choice(CATEGORIES, size, p=[0.3, 0.2, 0.2, 0.2, 0.1]),
            "nps": np.where(chance.random(size) < 0.4, np.round(chance.normal(7.5, 2, size).clip(0, 10)), np.nan),
            "open_complaint": (chance.random(size) < 0.08).astype(float),
            "price_sensitivity": chance.beta(2, 2, size),
            "newsletter": (chance.random(size) < 0.5).astype(float),
            "engagement": engagement,
        }

    @staticmethod
    def _draw_more(size: int, chance: np.random.Generator) -> dict[str, Any]:
        """What only some feature documents ask for, from a stream of its own, so that all else stays as it is."""
        return {
            "journey_stage": chance.choice(JOURNEY_STAGES, size, p=[0.45, 0.15, 0.05, 0.15, 0.2]),
            "time_zone": chance.choice(TIME_ZONES, size, p=[0.6, 0.2, 0.2]),
        }

    def _observed(self) -> dict[str, pa.Array]:
        """What is known of them: some of it is not. Columns by feature name."""
        columns = {}
        for feature in self.contract.customer:
            values = self._truth[feature.name]
            hidden = self._chance.random(len(values)) < (0.3 if feature.name == "price_sensitivity" else 0.02)
            missing = hidden | np.isnan(values) if feature.type == "number" else hidden
            columns[feature.name] = pa.array(values, mask=missing)
        return columns

    def state(self, customer: int) -> CustomerState:
        """One customer as the feature store knows them."""
        known = {name: column[customer].as_py() for name, column in self.features.items()}
        return CustomerState({name: value for name, value in known.items() if value is not None})

    def moments(self, count: int, start: float, end: float, seed: int) -> list[Moment]:
        """So many visits, evenly spread over a span of seconds, in order of time. Engaged customers come more often."""
        chance = np.random.default_rng([seed, count, WHO])
        weight = self._truth["engagement"] / self._truth["engagement"].sum()
        customers = chance.choice(len(weight), count, p=weight)
        places = chance.choice(list(CHANNELS), count, p=[0.5, 0.35, 0.15])
        devices = chance.choice(DEVICES, count, p=[0.5, 0.35, 0.1, 0.05])
        times = np.sort(chance.uniform(start, end, count))
        rows = zip(customers.tolist(), times.tolist(), places.tolist(), devices.tolist(), strict=True)
        return [Moment(*row) for row in rows]

    def request(self, moment: Moment, decision_id: str) -> DecisionRequest:
        """What the service would be asked at this moment, features read."""
        context: dict[str, Scalar] = {"channel": CHANNELS[moment.placement], "device": moment.device}
        return DecisionRequest(
            decision_id, self.customer_ids[moment.customer], moment.at, self.state(moment.customer), context,
            (PlacementRequest(moment.placement, 1),),
        )  # fmt: skip

    def rates(self, moments: Sequence[Moment], turned: int = 0) -> Values:
        """The truth: the rate at which each action gets a click: (moments, actions), actions as in `actions`.

        `turned`: by how many categories tastes have moved on, while everything that is known of customers stays as it is.
        """
        who = np.array([m.customer for m in moments], np.intp)
        customer = {name: column[who][:, None] for name, column in self._truth.items()}
        if turned:
            places = np.array([CATEGORIES.index(name) for name in customer["favourite_category"][:, 0].tolist()])
            customer["favourite_category"] = np.array(CATEGORIES)[(places + turned) % len(CATEGORIES)][:, None]
        action = {
            name: np.array([a.attributes[name] for a in self.actions])[None, :] for name in ("category", "discount", "price")
        }
        kind = np.array([a.kind for a in self.actions])[None, :]
        mobile = np.array([m.device == "mobile" for m in moments])[:, None]
        mail = np.array([CHANNELS[m.placement] == "email" for m in moments])[:, None]
        margin = (
            -3.3 + 1.7 * (action["category"] == customer["favourite_category"])
            + 0.35 * np.minimum(customer["engagement"], 3.0)
            + 9.0 * action["discount"] * (customer["price_sensitivity"] - 0.35)
            - 0.25 * np.maximum(np.log1p(action["price"]) - np.log1p(customer["spend_12m"] / 4), 0)
            + 0.6 * (action["category"] == "tech") * (customer["age"] < 35)
            + 0.5 * (action["category"] == "travel") * (customer["age"] > 55)
            + 0.4 * (kind == "content") * mobile + 0.5 * mail * customer["newsletter"] - 0.6 * mail * (1 - customer["newsletter"])
            + 2.2 * (kind == "service") * customer["open_complaint"] - 1.0 * (kind == "offer") * customer["open_complaint"]
        )  # fmt: skip
        return sigmoid(margin)

    def conversion_value(self, action: int) -> float:
        """What a click on an action brings when it ends in a purchase, in money."""
        attributes = self.actions[action].attributes
        return round(float(attributes["price"]) * (1 - float(attributes["discount"])) * 0.3, 2)

    def respond(self, moments: Sequence[Moment], chosen: npt.NDArray[np.intp], seed: int) -> tuple[Values, Values]:
        """What came of showing these actions: click (0 or 1), and the value of a purchase or 0: (moments,) each."""
        chance = np.random.default_rng([seed, len(moments), WHETHER])
        rates = self.rates(moments)[np.arange(len(moments)), chosen]
        clicks = (chance.random(len(moments)) < rates).astype(float)
        values = np.array([self.conversion_value(int(a)) for a in chosen])
        return clicks, np.where((clicks > 0) & (chance.random(len(moments)) < BUYERS), values, 0.0)

    def true_value(self, moments: Sequence[Moment], probabilities: Values) -> float:
        """The rate at which a policy gets clicks: `probabilities` (moments, actions)."""
        return float((self.rates(moments) * probabilities).sum(axis=1).mean())


def exploring_engine(world: World) -> Engine:
    """The system before: any action that may be shown, each with the same probability."""
    placements = {
        name: msgspec.structs.replace(p, explore=Exploration(epsilon=1.0)) for name, p in world.catalog.placements.items()
    }
    catalog = msgspec.structs.replace(world.catalog, placements=placements)
    scorer = FlatScorer([0.0] * len(world.actions))
    return build_engine(catalog, world.contract, scorer, Versions(0, None, world.contract.fingerprint))


def probabilities(engine: Engine, requests: Sequence[DecisionRequest]) -> Values:
    """How likely each action is shown in the one slot of each request: (requests, actions)."""
    table = np.zeros((len(requests), len(engine.actions)))
    for placement in engine.plans:
        rows = [row for row, request in enumerate(requests) if request.placements[0].id == placement]
        if rows:
            table[rows] = choice_table(engine, [requests[row] for row in rows], placement).probabilities
    return table


def history(world: World, decisions: int, end: float, seed: int) -> pa.Table:
    """What the system before wrote down over 30 days until `end`: features, choices, probabilities, outcomes."""
    moments = world.moments(decisions, end - HISTORY_DAYS * DAY, end, seed)
    engine, served = exploring_engine(world), []
    for start in range(0, decisions, DECIDED_AT_ONCE):
        some = enumerate(moments[start : start + DECIDED_AT_ONCE], start)
        served += [r.placements[0] for r in decide(engine, [world.request(m, f"h{seed}-{n}") for n, m in some])]
    kept = [row for row, placement in enumerate(served) if not placement.fallback]
    moments, items = [moments[row] for row in kept], [served[row].items[0] for row in kept]
    clicks, bought = world.respond(moments, np.array([engine.positions[i.action_id] for i in items], np.intp), seed)
    who = pa.array([m.customer for m in moments])
    return pa.table({
        "customer_id": pa.array(world.customer_ids).take(who),
        "decided_at": pa.array([round(m.at * 1e6) for m in moments], pa.timestamp("us", tz="UTC")),
        "placement": [m.placement for m in moments],
        "action_id": [i.action_id for i in items],
        "choice_probability": [i.choice_probability for i in items],
        **{name: column.take(who) for name, column in world.features.items()},
        "channel": [CHANNELS[m.placement] for m in moments],
        "device": [m.device for m in moments],
        "click": clicks, "conversion": bought,
    })  # fmt: skip


def write_world(folder: Path, world: World, decisions: int, end: float, seed: int) -> tuple[Path, Path]:
    """A history ready to import: `log.parquet`, `mapping.toml`, `features.yaml`, `catalog.yaml`. Returns the first two."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(history(world, decisions, end, seed), folder / "log.parquet")
    (folder / "mapping.toml").write_text(MAPPING.format(features="\n".join(_declared(world.contract.customer))))
    (folder / "features.yaml").write_text(world.features_path.read_text())
    (folder / "catalog.yaml").write_text(world.catalog_path.read_text())
    return folder / "log.parquet", folder / "mapping.toml"


def _declared(features: Sequence[Feature]) -> Iterator[str]:
    return (f'{feature.name} = "{feature.type}"' for feature in features)
