"""Imports with a mistake: each says what was expected and where, and leaves the home as it was."""

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.contract import Contract, ContractError, Feature, contract_document
from features.homes import write_home_contract
from service.errors import ImportInvalid
from training.importing import MOST_CATEGORIES, import_features, import_table

HEADER = "who,shown,at,spot,rank,p,age,region,device,click,spend\n"
ROWS = "u1,gold,2025-11-02,home,1,0.5,40,north,web,1,2.5\nu2,none,2025-11-03,mail,2,0.5,41,south,app,0,0\n"
ACTIONS = "code,price,family\ngold,99,card\nspare,5,card\n"
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
[home]
features = "features.yaml"
catalog = "catalog.yaml"
"""
FEATURES = contract_document(
    Contract(
        (
            Feature("age", "number", "profile", max_age=60.0),
            Feature("region", "category", "activity", max_age=60.0, categories=("north",)),
            Feature("device", "category", "context", categories=("web",)),
        )
    )
)
GOOD = {
    "log.csv": HEADER + ROWS,
    "actions.csv": ACTIONS,
    "map.toml": MAPPING,
    "features.yaml": FEATURES,
    "catalog.yaml": "catalog: 1\n",
}
ID = "a text of 1 to 128 characters, none a control character"
TIME = "a time such as `2026-01-31T09:00:00Z`, or seconds since 1970"

LOG_COLUMNS = "Expected a column of `log.csv` (who, shown, at, spot, rank, p, age, region, device, click, spend)"
ACTION_COLUMNS = "Expected a column of `actions.csv` (code, price, family)"
DOCUMENT = "Expected a document to read under [home]"

SPOILED = [
    ("map.toml", '"binary"', '"x"', "line 19: Expected one of `binary`, `value`, got `x` - at `outcomes.click`"),
    ("map.toml", '"who"', '"whom"', f"map.toml: {LOG_COLUMNS}, got `whom` - at `log.customer_id`"),
    ("map.toml", "age =", "income =", f"map.toml: {LOG_COLUMNS}, got `income` - at `features.income`"),
    ("map.toml", "price =", "cost =", f"map.toml: {ACTION_COLUMNS}, got `cost` - at `actions.cost`"),
    ("map.toml", '"code"', '"id"', f"map.toml: {ACTION_COLUMNS}, got `id` - at `actions.key`"),
    ("map.toml", '"actions.csv"', '"none.csv"', "Expected a table, found none - at `"),
    ("map.toml", '"features.yaml"', '"none.yaml"', f"map.toml: {DOCUMENT}, got `none.yaml`: "),
    ("map.toml", '"catalog.yaml"', '"none.yaml"', f"map.toml: {DOCUMENT}, got `none.yaml`: "),
    ("map.toml", '"catalog.yaml"', '"."', f"map.toml: {DOCUMENT}, got `.`: "),
    ("log.csv", ROWS, "u1", "log.csv: Expected a table (.csv, .csv.gz, .parquet), got something else: CSV parse error: Row #2"),
    ("log.csv", ROWS, "", "log.csv: Expected rows, found none"),
    ("log.csv", ",spend", ",click", "got `click` twice - at `outcomes.click`"),
    ("log.csv", "u2", "", "log.csv: row 2: Expected a value, got `None` - in column `who`"),
    ("log.csv", "none", "", f"log.csv: row 2: Expected {ID}, got `None` - in column `shown`"),
    ("log.csv", "none", "n" * 129, f"log.csv: row 2: Expected {ID}, got `{'n' * 129}` - in column `shown`"),
    ("log.csv", "mail", "a\tb", f"log.csv: row 2: Expected {ID}, got `a\tb` - in column `spot`"),
    ("log.csv", "2025-11-03", "soon", f"log.csv: row 2: Expected {TIME}, got `soon` - in column `at`"),
    ("log.csv", "2025-11-03", "2999-11-03", "log.csv: row 2: Expected a time that has come, got `2999-11-03` - in column `at`"),
    ("log.csv", "mail,2", "mail,0", "log.csv: row 2: Expected a slot, counted from 1, got `0.0` - in column `rank`"),
    ("log.csv", "l,2,0.5", "l,2,0", "row 2: Expected a probability above 0 and at most 1, got `0.0` - in column `p`"),
    ("log.csv", "41", "old", "log.csv: row 2: Expected a finite number, got `old` - in column `age`"),
    ("log.csv", "app,0", "app,2", "log.csv: row 2: Expected 0 or 1 for a binary outcome, got `2.0` - in column `click`"),
    ("log.csv", "0,0\n", "0,dear\n", "log.csv: row 2: Expected a finite number, got `dear` - in column `spend`"),
    ("actions.csv", "spare,5", "spare,x", "actions.csv: row 2: Expected a finite number, got `x` - in column `price`"),
    ("actions.csv", "spare", "", f"actions.csv: row 2: Expected {ID}, got `None` - in column `code`"),
    ("actions.csv", "5,card", "5,a\tb", f"actions.csv: row 2: Expected {ID}, got `a\tb` - in column `family`"),
    ("features.yaml", "name: age", "name: years", "map.toml: Expected `customer.age` as a number in the feature document"),
    ("features.yaml", "name: device", "name: tool", "map.toml: Expected `context.device` as a category in the feature document"),
    ("features.yaml", "number", "category\n  categories: [a]", "in the feature document of this home, found a category"),
    ("features.yaml", "type: number", "type: x", "features.yaml: Invalid enum value 'x' - at `$.features[0].type`"),
    ("features.yaml", "origin: context", "origin: request_time", "Expected a request-time feature among `hour`, `weekday`"),
]


class Source(NamedTuple):
    """A folder with everything that an import reads, and a home that is not there yet."""

    folder: Path
    home: Path

    def imported(self):
        return import_table(self.home, self.folder / "log.csv", self.folder / "map.toml")

    def mistake(self, call=None) -> str:
        """What an import, or another call, is refused with."""
        with pytest.raises((ImportInvalid, ContractError)) as caught:
            (call or self.imported)()
        return str(caught.value)

    def replace(self, file: str, part: str, spoiled: str) -> None:
        text = (self.folder / file).read_text()
        assert part in text
        (self.folder / file).write_text(text.replace(part, spoiled, 1))

    def tree(self) -> dict[str, bytes | None]:
        """Every folder and file of the home with its content."""
        return {str(p.relative_to(self.home)): p.read_bytes() if p.is_file() else None for p in self.home.rglob("*")}


@pytest.fixture
def source(tmp_path) -> Source:
    for name, text in GOOD.items():
        (tmp_path / name).write_text(text)
    return Source(tmp_path, tmp_path / "nextbest")


@pytest.mark.parametrize(("file", "part", "spoiled", "expected"), SPOILED, ids=[f"{s[0]}-{s[2][:20]}" for s in SPOILED])
def test_with_one_mistake_nothing_is_written(source, file, part, spoiled, expected):
    """The mistake is told with its line or row; there is no home, not even a folder."""
    source.replace(file, part, spoiled)
    assert expected in source.mistake()
    assert not source.home.exists()


def test_a_mistake_in_a_later_table_leaves_the_home_as_the_first_one_made_it(source):
    """Every folder and every byte, whatever the mistake."""
    source.imported()
    before = source.tree()
    for file, part, spoiled, expected in SPOILED:
        if "yaml" in file + part:
            continue  # the home has its own
        source.replace(file, part, spoiled)
        assert expected in source.mistake()
        assert source.tree() == before
        (source.folder / file).write_text(GOOD[file])


def test_documents_of_the_mapping_are_not_needed_where_the_home_has_its_own(source):
    """They are where a home begins; afterwards what is there counts."""
    source.imported()
    (source.folder / "features.yaml").unlink()
    (source.folder / "catalog.yaml").unlink()
    source.replace("log.csv", "u2", "u3")
    assert source.imported().rows == 2


def test_a_document_that_is_no_text_is_refused(source):
    """It is opened before anything is written."""
    (source.folder / "catalog.yaml").write_bytes(b"# caf\xe9\n")
    assert "map.toml: Expected a document to read under [home], got `catalog.yaml`: 'utf-8' codec" in source.mistake()
    assert not source.home.exists()


def test_a_table_or_mapping_that_is_not_there_is_named_with_its_path(source):
    """The mapping is read first."""
    (source.folder / "log.csv").unlink()
    assert source.mistake() == f"Expected a table, found none - at `{source.folder / 'log.csv'}`"
    (source.folder / "map.toml").unlink()
    assert source.mistake() == f"Expected a mapping file, found none - at `{source.folder / 'map.toml'}`"
    assert not source.home.exists()


def test_every_mistake_of_both_tables_is_reported_at_once(source):
    """One attempt shows them all; none hides another."""
    for part, spoiled in [
        ("u1", ""),
        ("2025-11-02", "x"),
        ("home,1", "home,0"),
        ("0.5", "2"),
        ("40", "x"),
        ("web,1,2.5", "web,3,x"),
    ]:
        source.replace("log.csv", part, spoiled)
    source.replace("actions.csv", "99", "x")
    assert [problem.split(" in column ")[1] for problem in source.mistake().splitlines()] == [
        "`who`", "`at`", "`rank`", "`p`", "`age`", "`click`", "`spend`", "`price`",
    ]  # fmt: skip


def test_every_column_that_is_not_there_is_reported_at_once(source):
    """The table may simply be another one."""
    source.replace("log.csv", HEADER, "a,b,c,d,e,f,g,h,i,j,k\n")
    problems = source.mistake().splitlines()
    assert len(problems) == 11
    assert all("Expected a column of `log.csv` (a, b, c, d, e, f, g, h, i, j, k)" in problem for problem in problems)


def test_a_home_that_works_with_other_features_refuses_the_table_and_says_what_to_do(source):
    """Two worlds do not fit into one home."""
    write_home_contract(source.home, Contract((Feature("age", "category", "profile", max_age=1.0, categories=("old",)),)))
    before = source.tree()
    assert source.mistake().splitlines() == [
        "map.toml: Expected `customer.age` as a number in the feature document of this home, found a category",
        "map.toml: Expected `customer.region` as a category in the feature document of this home, found none",
        "map.toml: Expected `context.device` as a category in the feature document of this home, found none",
        "Use another --home for a table with other features, or change features/features.yaml",
    ]
    assert source.tree() == before


def test_features_alone_that_do_not_fit_the_home_are_refused_before_any_view_is_written(source):
    """A home without a document has the features of the package: the mapping's document does not become its own."""

    def features_alone():
        return import_features(source.home, source.folder / "log.csv", source.folder / "map.toml")

    source.replace("log.csv", "age", "shoes")
    source.replace("map.toml", "age", "shoes")
    expected = "map.toml: Expected `customer.shoes` as a number in the feature document of this home, found none"
    assert source.mistake(features_alone).splitlines()[0] == expected
    source.replace("log.csv", "41", "big")
    assert source.mistake(features_alone) == "log.csv: row 2: Expected a finite number, got `big` - in column `shoes`"
    assert not source.home.exists()


def test_a_category_with_more_values_than_a_feature_document_holds_is_refused(source):
    """It is an id or free text; a home with such a document could not be opened again."""
    values = [f"v{n}" for n in range(MOST_CATEGORIES + 1)]
    table = source.folder / "log.parquet"
    pq.write_table(pa.table({"region": values, "click": pa.repeat(0, len(values))}), table)
    (source.folder / "map.toml").write_text(
        '[log]\naction_id = "=a"\nchoice_probability = 1\n[features]\nregion = "category"\n[outcomes]\nclick = "binary"\n'
    )
    expected = "map.toml: Expected at most 100000 values of a category, got 100001 - at `customer.region`"
    assert source.mistake(lambda: import_table(source.home, table, source.folder / "map.toml")) == expected
    assert not source.home.exists()
