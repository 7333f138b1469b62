"""Importing: what becomes of each row, and that an import is whole, once, and completed where it was interrupted."""

import csv
import datetime as dt
import gzip
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.contract import Contract, Feature, contract_document, read_contract
from features.homes import contract_path, home_contract
from features.offline import read_view, used_views
from service.catalog.validate import parse_catalog
from training.importing import SNAPSHOT_AGE, STEPS, import_features, import_table, write_customer_views
from training.lake import read_tables
from training.tables import read_table

TABLE = """\
who,shown,at,spot,rank,p,age,region,visits,device,click,spend
u1,gold,2025-11-02T09:00:00Z,home,1,0.5,40,north,3,web,1,0
u1,none,2025-11-03T09:00:00Z,home,2,0.25,41,north,4,app,0,0
u2,gold,2025-11-02T10:00:00Z,mail,1,1,,,,web,NA,12.5
"""
ACTIONS = "code,price,family\ngold,99,card\nspare,5,\n"
MAPPING = """\
[log]
customer_id = "who"
action_id = "shown"
choice_probability = "p"
decided_at = "at"
placement = "spot"
slot = "rank"
[features]
age = "number"
region = "category"
visits = "number"
[views]
activity = ["visits"]
[context]
device = "category"
[actions]
table = "actions.csv"
key = "code"
price = "number"
family = "category"
[outcomes]
click = "binary"
spend = "value"
"""
BARE = '[log]\naction_id = "=email"\nchoice_probability = 0.5\nplacement = "=inbox"\n[outcomes]\nclick = "binary"\n'
NINE = dt.datetime(2025, 11, 2, 9, tzinfo=dt.UTC)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


class Source(NamedTuple):
    """A folder with a table, a mapping and a home that is not there yet."""

    home: Path
    table: Path
    mapping: Path

    def imported(self, progress=lambda _done, _of: None):
        return import_table(self.home, self.table, self.mapping, progress)


def source(folder: Path, table: str | bytes = TABLE, mapping: str = MAPPING, name: str = "log.csv") -> Source:
    (folder / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    (folder / "map.toml").write_text(mapping)
    (folder / "actions.csv").write_text(ACTIONS)
    return Source(folder / "nextbest", folder / name, folder / "map.toml")


def rows(home: Path, kind: str) -> list[dict]:
    return [row for table in read_tables(home, kind) for row in table.to_pylist()]


def column(home: Path, name: str, kind: str = "decisions") -> list:
    return [row[name] for row in rows(home, kind)]


def tree(home: Path) -> dict[str, bytes | None]:
    """Every folder and file with its content."""
    return {str(path.relative_to(home)): path.read_bytes() if path.is_file() else None for path in home.rglob("*")}


def test_each_row_becomes_a_decision_with_the_values_it_was_made_from(tmp_path):
    """Who, when, where, what, how likely, and what was known; missing stays missing."""
    world = source(tmp_path)
    report = world.imported()
    assert (report.rows, report.outcomes, report.actions, report.already) == (3, 5, ("gold", "none", "spare"), False)
    one, two, three = rows(world.home, "decisions")
    name = one["decision_id"].removesuffix("-0")
    assert one == {
        "decision_id": f"{name}-0", "customer_id": "u1", "decided_at": NINE, "placement": "home", "slot": 1, "action_id": "gold",
        "choice_probability": 0.5, "source": "import",
        "customer.age": 40.0, "customer.region": "north", "customer.visits": 3.0, "context.device": "web",
    }  # fmt: skip
    assert two == one | {
        "decision_id": f"{name}-2", "customer_id": "u2", "decided_at": NINE + HOUR, "placement": "mail",
        "choice_probability": 1.0, "customer.age": None, "customer.region": None, "customer.visits": None,
    }  # fmt: skip
    assert three == one | {
        "decision_id": f"{name}-1", "decided_at": NINE + DAY, "slot": 2, "action_id": "none", "choice_probability": 0.25,
        "customer.age": 41.0, "customer.visits": 4.0, "context.device": "app",
    }  # fmt: skip


def test_each_row_was_an_impression_and_has_the_other_outcomes_that_are_not_zero(tmp_path):
    """A logged decision was shown; nothing and missing are no outcomes."""
    world = source(tmp_path)
    world.imported()
    found = rows(world.home, "outcomes")
    assert sorted((row["decision_id"][-1], row["type"], row["value"]) for row in found) == [
        ("0", "click", 1.0), ("0", "impression", 0.0), ("1", "impression", 0.0), ("2", "impression", 0.0), ("2", "spend", 12.5),
    ]  # fmt: skip
    decided = {
        row["decision_id"]: (row["decided_at"], row["placement"], row["action_id"]) for row in rows(world.home, "decisions")
    }
    assert all((row["at"], row["placement"], row["action_id"]) == decided[row["decision_id"]] for row in found)
    assert len({row["outcome_id"] for row in found}) == len(found)


def test_features_are_declared_as_the_mapping_says_with_the_categories_of_the_table(tmp_path):
    """A snapshot does not grow old; a feature without a view is the profile's."""
    world = source(tmp_path)
    contract = world.imported().contract
    assert contract == home_contract(world.home)
    assert contract.features == (
        Feature("age", "number", "profile", max_age=SNAPSHOT_AGE),
        Feature("region", "category", "profile", max_age=SNAPSHOT_AGE, categories=("north",)),
        Feature("visits", "number", "activity", max_age=SNAPSHOT_AGE),
        Feature("device", "category", "context", categories=("app", "web")),
    )


def test_a_category_without_a_value_is_still_a_category(tmp_path):
    """A column that happens to be empty may be filled in the next table."""
    world = source(tmp_path, TABLE.replace("north", ""))
    assert world.imported().contract.find("customer.region").categories == ("",)
    assert home_contract(world.home) == read_contract(contract_path(world.home))


def test_what_is_known_of_customers_lands_in_the_offline_tables_of_feast(tmp_path):
    """Each moment of each customer is a row of their history, view by view; context is not kept."""
    world = source(tmp_path)
    world.imported()
    assert used_views(home_contract(world.home)) == ("profile", "activity")
    assert [tuple(row.values()) for row in read_view(world.home, "profile").to_pylist()] == [
        ("u1", NINE, 40.0, "north"), ("u1", NINE + DAY, 41.0, "north"), ("u2", NINE + HOUR, None, None),
    ]  # fmt: skip
    assert [tuple(row.values()) for row in read_view(world.home, "activity").to_pylist()] == [
        ("u1", NINE, 3.0), ("u1", NINE + DAY, 4.0), ("u2", NINE + HOUR, None),
    ]  # fmt: skip


def test_the_drafted_catalog_holds_the_actions_of_the_log_and_of_the_actions_table(tmp_path):
    """Keys that the log never showed are actions too; those that the table does not know have no attributes."""
    world = source(tmp_path)
    report = world.imported()
    catalog = parse_catalog(report.catalog.read_text(), report.contract)[1]
    assert {action.id: dict(action.attributes) for action in catalog.actions} == {
        "gold": {"price": 99.0, "family": "card"}, "none": {}, "spare": {"price": 5.0},
    }  # fmt: skip
    assert list(catalog.placements) == ["home", "mail"]


def test_literals_stand_for_every_row_and_what_is_not_named_has_its_default(tmp_path):
    """Without a customer each row is somebody of their own; without a time all happened now; the slot is the first."""
    world = source(tmp_path, "click\n1\n0\n", BARE)
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    assert world.imported().actions == ("email",)
    one, two = rows(world.home, "decisions")
    assert {k: one[k] for k in ("action_id", "placement", "choice_probability", "slot")} == {
        "action_id": "email", "placement": "inbox", "choice_probability": 0.5, "slot": 1,
    }  # fmt: skip
    assert one["customer_id"] == one["decision_id"] != two["customer_id"]
    assert before <= one["decided_at"] == two["decided_at"] <= dt.datetime.now(dt.UTC)


def test_a_placement_that_is_not_named_is_the_default_one(tmp_path):
    """A log of one place need not say which."""
    world = source(tmp_path, "click\n1\n", BARE.replace('placement = "=inbox"\n', ""))
    world.imported()
    assert column(world.home, "placement") == ["default"]


def without_ids(home: Path) -> list[dict]:
    """Decisions and outcomes, but for their ids: these follow from the bytes of the table."""
    return [
        {k: v for k, v in row.items() if not k.endswith("n_id") and k != "outcome_id"}
        for kind in ("decisions", "outcomes") for row in rows(home, kind)
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["log.csv.gz", "log.parquet"])
def test_a_table_means_the_same_in_any_kind_of_file(tmp_path, tmp_path_factory, name):
    """Compressed, or with types of its own."""
    plain, other = source(tmp_path), source(tmp_path_factory.mktemp("other"), gzip.compress(TABLE.encode()), name=name)
    if name.endswith(".parquet"):
        pq.write_table(read_table(plain.table), other.table)
    plain.imported()
    other.imported()
    assert without_ids(other.home) == without_ids(plain.home)


@pytest.mark.parametrize("at", ["2025-11-02 09:00:00", "2025-11-02T10:00:00+01:00", "1762074000"])
def test_times_come_in_several_forms(tmp_path, at):
    """Without a zone, with another, or in seconds since 1970."""
    header, first, *_ = TABLE.splitlines()
    world = source(tmp_path, f"{header}\n{first.replace('2025-11-02T09:00:00Z', at)}\n")
    world.imported()
    assert column(world.home, "decided_at") == [NINE]


def test_names_and_categories_that_look_like_numbers_keep_their_zeros(tmp_path):
    """`007` and `7` are two customers, two actions and two regions."""
    text = TABLE.replace("u1", "007").replace("u2", "7").replace("gold", "01").replace("none", "1").replace("north", "00")
    world = source(tmp_path, text)
    (tmp_path / "actions.csv").write_text("code,price,family\n01,9,007\n1,8,7\n")
    report = world.imported()
    assert column(world.home, "customer_id") == ["007", "7", "007"]
    assert (report.actions, report.contract.find("customer.region").categories) == (("01", "1"), ("00",))
    catalog = parse_catalog(report.catalog.read_text(), report.contract)[1]
    assert [dict(action.attributes)["family"] for action in catalog.actions] == ["007", "7"]


def test_importing_twice_changes_nothing(tmp_path):
    """Byte for byte; the report says that it was there already, and what it holds."""
    world = source(tmp_path)
    first = world.imported()
    before = tree(world.home)
    assert world.imported() == first._replace(already=True)
    assert tree(world.home) == before


def test_progress_is_told_step_by_step_to_the_end(tmp_path):
    """Also where there is nothing to do."""
    world, told = source(tmp_path), []
    world.imported(lambda done, of: told.append((done, of)))
    assert told == [(step, STEPS) for step in range(1, STEPS + 1)]
    world.imported(lambda done, of: told.append((done, of)))
    assert told[-1] == (STEPS, STEPS)


@pytest.mark.parametrize("last", range(1, STEPS))
def test_an_interrupted_import_is_completed_by_importing_again(tmp_path, tmp_path_factory, last):
    """Decisions are written last, so whatever is missing is written then; the home is as if nothing had happened."""
    world, whole = source(tmp_path), source(tmp_path_factory.mktemp("whole"))

    def stop(done: int, _of: int) -> None:
        if done == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.imported(stop)
    assert rows(world.home, "decisions") == []
    assert not world.imported().already
    whole.imported()
    assert tree(world.home) == tree(whole.home)


def test_an_import_that_broke_off_between_two_days_is_completed_too(tmp_path):
    """A disk may fill at any file; some days of an import are not the import."""
    world = source(tmp_path)
    obstacle = world.home / "lake" / "decisions" / "date=2025-11-03"
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("in the way")
    with pytest.raises(FileExistsError):
        world.imported()
    assert len(rows(world.home, "decisions")) == 2
    obstacle.unlink()
    assert not world.imported().already
    assert len(rows(world.home, "decisions")) == 3
    assert world.imported().already


def test_what_somebody_wrote_into_the_home_stays(tmp_path):
    """A reviewed catalog and a commented feature document are work; an import does not undo it."""
    world = source(tmp_path)
    world.imported()
    for path in (world.home / "catalog.yaml", contract_path(world.home)):
        path.write_text(path.read_text() + "# reviewed\n")
    world.table.write_text(TABLE.replace("gold", "silver"))
    report = world.imported()
    assert not report.already
    assert "# reviewed" in report.catalog.read_text()
    assert "# reviewed" in contract_path(world.home).read_text()


def test_a_second_table_adds_to_the_home(tmp_path):
    """Decisions of both; a customer's history grows."""
    world = source(tmp_path)
    world.imported()
    world.table.write_text(TABLE.replace("2025", "2024"))
    world.imported()
    assert [moment.year for moment in column(world.home, "decided_at")] == [2024, 2024, 2024, 2025, 2025, 2025]
    assert read_view(world.home, "profile").num_rows == 6


def test_documents_that_the_mapping_names_are_taken_as_they_are(tmp_path):
    """Who has a catalog and features already need not review a draft; more may be declared than the table has."""
    declared = Contract(
        (
            Feature("age", "number", "value", max_age=60.0),
            Feature("income", "number", "value", max_age=60.0),
            Feature("region", "category", "profile", max_age=60.0, categories=("north", "south")),
            Feature("visits", "number", "activity", max_age=60.0),
            Feature("device", "category", "context", categories=("web",)),
        )
    )
    world = source(tmp_path, mapping=MAPPING + '[home]\nfeatures = "features.yaml"\ncatalog = "mine.yaml"\n')
    (tmp_path / "features.yaml").write_text(contract_document(declared))
    (tmp_path / "mine.yaml").write_text("# mine\n")
    report = world.imported()
    assert report.contract == home_contract(world.home) == declared
    assert report.catalog.read_text() == "# mine\n"
    assert read_view(world.home, "value")["age"].to_pylist() == [40.0, 41.0, None]
    assert read_view(world.home, "value")["income"].null_count == 3


def test_features_alone_are_imported_without_decisions(tmp_path):
    """Customers who come later become known; contract, catalog and lake stay as they are."""
    world = source(tmp_path)
    world.imported()
    before = tree(world.home)
    world.table.write_text(TABLE.replace("u1", "u3"))
    assert import_features(world.home, world.table, world.mapping) == 3
    changed = {name for name, content in tree(world.home).items() if before.get(name) != content}
    assert changed == {"features/offline/profile.parquet", "features/offline/activity.parquet"}
    assert set(read_view(world.home, "profile")["customer_id"].to_pylist()) == {"u1", "u2", "u3"}


def test_features_of_a_home_without_a_document_are_those_of_the_package(tmp_path):
    """Nobody has to import decisions first."""
    mapping = MAPPING.replace("visits", "visits_30d").replace('region = "category"\n', "")
    world = source(tmp_path, TABLE.replace("visits", "visits_30d"), mapping)
    assert import_features(world.home, world.table, world.mapping) == 3
    assert read_view(world.home, "activity")["visits_30d"].to_pylist() == [3.0, 4.0, None]
    assert set(tree(world.home)) == {
        "features", "features/offline", "features/offline.lock", "features/offline/profile.parquet",
        "features/offline/activity.parquet",
    }  # fmt: skip


def test_only_views_with_a_given_value_are_written(tmp_path):
    """A feature that nobody gave is missing in its view; a view of which nothing was given has no new row."""
    world = source(tmp_path)
    contract = world.imported().contract
    values = {"customer.age": pa.array([1.0])}
    write_customer_views(world.home, contract, pa.array(["new"]), pa.array([NINE], pa.timestamp("us", "UTC")), values)
    assert read_view(world.home, "profile").to_pylist()[0] == {
        "customer_id": "new", "event_timestamp": NINE, "age": 1.0, "region": None,
    }  # fmt: skip
    assert "new" not in read_view(world.home, "activity")["customer_id"].to_pylist()


FED = {
    "views_30d": "events: {aggregate: count, type: product_viewed, window: 30d}",
    "orders": "transactions: frequency, max_age: 40d",
    "churn": "prediction: churn, max_age: 40d",
}
DECLARED = """\
transactions: {type: purchased, amount: amount}
features:
  - {name: age, type: number, origin: profile, max_age: 40d}
  - {name: region, type: category, origin: profile, max_age: 40d, categories: [north]}
  - {name: visits, type: number, origin: activity, max_age: 40d}
  - {name: device, type: category, origin: context, categories: [web, app]}
"""


@pytest.mark.parametrize("name", FED)
def test_a_table_comes_into_a_home_with_a_feature_that_something_else_feeds(tmp_path, name):
    """Of the same origin; a column for it stays with the decisions, and is no row of what feeds it."""
    mapping = MAPPING.replace("[views]", f'{name} = "number"\n[views]') + '[home]\nfeatures = "features.yaml"\n'
    world = source(tmp_path, TABLE.replace("spend\n", f"spend,{name}\n").replace("0\n", "0,7\n").replace("5\n", "5,7\n"), mapping)
    fed = f"  - {{name: {name}, type: number, origin: activity, {FED[name]}}}\n"
    (tmp_path / "features.yaml").write_text(DECLARED + fed)
    assert world.imported().rows == 3
    assert import_features(world.home, world.table, world.mapping) == 3
    assert read_view(world.home, "activity")["visits"].to_pylist() == [3.0, 4.0, None]
    assert column(world.home, f"customer.{name}") == [7.0, 7.0, 7.0]
    assert sorted(path.stem for path in (world.home / "features" / "offline").iterdir()) == ["activity", "profile"]


days = st.integers(0, 3).map(lambda n: (NINE + n * DAY).isoformat())
entries = st.tuples(
    st.sampled_from(["u1", "u2"]), st.sampled_from(["gold", "none"]), days, st.booleans(), st.sampled_from([0, 1.5])
)


@settings(max_examples=10)
@given(st.lists(entries, min_size=1, max_size=6))
def test_no_row_is_lost_and_none_is_made_up(tmp_path_factory, entries):
    """As many decisions and impressions as rows; each outcome as often and worth as much as in the table."""
    folder = tmp_path_factory.mktemp("any")
    world = source(folder, "", MAPPING)
    with world.table.open("w", newline="") as file:
        csv.writer(file).writerows([TABLE.splitlines()[0].split(",")])
        csv.writer(file).writerows((*e[:3], "home", 1, 0.5, 40, "north", 3, "web", int(e[3]), e[4]) for e in entries)
    report = world.imported()
    outcomes = rows(world.home, "outcomes")
    assert (
        report.rows == len(rows(world.home, "decisions")) == sum(row["type"] == "impression" for row in outcomes) == len(entries)
    )
    assert sum(row["type"] == "click" for row in outcomes) == sum(e[3] for e in entries)
    assert sum(row["value"] for row in outcomes if row["type"] == "spend") == sum(e[4] for e in entries)
    assert report.outcomes == len(outcomes)
    assert sorted(column(world.home, "customer_id")) == sorted(e[0] for e in entries)
    assert read_view(world.home, "profile").num_rows == len({(e[0], e[2]) for e in entries})
