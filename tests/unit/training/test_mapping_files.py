"""The mapping file: what a good one says, and every mistake with its line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ImportInvalid
from training.mapping import TableMapping, read_mapping

GOOD = """\
[log]
customer_id = "who"
action_id = "shown"
choice_probability = 0.5
decided_at = "at"
placement = "=mail"
slot = "rank"

[features]
age = "number"
region = "category"
visits = "number"

[views]
activity = ["visits"]

[context]
age = "number"
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
SECTIONS = tuple(f"{section.strip()}\n" for section in GOOD.split("\n\n"))
SHORTEST = '[log]\naction_id = "a"\nchoice_probability = 1\n[outcomes]\n"any name" = "binary"\n'
COLUMN_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda n: n not in ("customer_id", "event_timestamp"))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Writes a mapping and gives its path."""
    path = tmp_path_factory.mktemp("mapping") / "map.toml"

    def write(text: str) -> Path:
        path.write_text(text)
        return path

    return write


def problems(path: Path) -> list[str]:
    with pytest.raises(ImportInvalid) as caught:
        read_mapping(path)
    return list(caught.value.problems)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_a_good_mapping_says_which_column_means_what(written):
    """Each section has its place; what is not said has its default."""
    assert read_mapping(written(GOOD)) == TableMapping(
        action_id="shown", choice_probability=0.5, customer_id="who", decided_at="at", placement="=mail", slot="rank",
        features={"age": "number", "region": "category", "visits": "number"}, views={"visits": "activity"},
        context={"age": "number", "device": "category"}, outcomes={"click": "binary", "spend": "value"},
        actions_table="actions.csv", actions_key="code", attributes={"price": "number", "family": "category"},
        contract_file="features.yaml", catalog_file="catalog.yaml",
    )  # fmt: skip
    assert read_mapping(written(SHORTEST)) == TableMapping("a", 1, outcomes={"any name": "binary"})


def test_the_table_must_have_every_column_that_is_named_and_none_for_a_literal(written):
    """A text that starts with `=` stands for itself; a probability may be a number or a column."""
    assert read_mapping(written(GOOD)).columns == {
        "who": "log.customer_id", "shown": "log.action_id", "at": "log.decided_at", "rank": "log.slot",
        "age": "context.age", "region": "features.region", "visits": "features.visits", "device": "context.device",
        "click": "outcomes.click", "spend": "outcomes.spend",
    }  # fmt: skip
    other = GOOD.replace('"shown"', '"=email"').replace("0.5", '"p"').replace('"=mail"', '"spot"')
    columns = read_mapping(written(other)).columns
    assert "=email" not in columns
    assert (columns["p"], columns["spot"]) == ("log.choice_probability", "log.placement")


def test_names_and_categories_are_read_as_the_text_they_are(written):
    """Who, what, where and every category; numbers, times and outcomes are not texts."""
    text = GOOD.replace('"=mail"', '"spot"')
    assert sorted(read_mapping(written(text)).texts) == ["device", "region", "shown", "spot", "who"]


SPOILED = [
    ("[home]", "[homes]", "[homes]", "Expected a known section (did you mean `home`?), got `homes` - at `homes`"),
    ("[home]", "[home.x]", "[home.x]", "Expected a known key (`catalog`, `features`), got `x` - at `home.x`"),
    ("[context]", "[[context]]", "[[context]]", "Expected a section, got `[{'age': 'number', 'device': 'category'}]`"),
    ('slot = "rank"', 'slott = "rank"', "slott", "Expected a known key (did you mean `slot`?), got `slott` - at `log.slott`"),
    ("0.5", "0", "choice_p", "Expected a probability above 0 and at most 1, got `0` - at `log.choice_probability`"),
    ("0.5", "1.01", "choice_p", "Expected a probability above 0 and at most 1, got `1.01` - at `log.choice_probability`"),
    ("0.5", "nan", "choice_p", "Expected a probability above 0 and at most 1, got `nan` - at `log.choice_probability`"),
    ("0.5", "true", "choice_p", "Expected a number or the name of a column, got `True` - at `log.choice_probability`"),
    ("0.5", '"=0.5"', "choice_p", "Expected a number or the name of a column, got `=0.5` - at `log.choice_probability`"),
    ('"at"', "7", "decided_at", "Expected the name of a column, got `7` - at `log.decided_at`"),
    ('"who"', '""', "customer_id", "Expected the name of a column, got `` - at `log.customer_id`"),
    ('"who"', '"=me"', "customer_id", "Expected the name of a column, got `=me` - at `log.customer_id`"),
    ('"at"', '"=2026-01-31"', "decided_at", "Expected the name of a column, got `=2026-01-31` - at `log.decided_at`"),
    ('"rank"', '"=1"', "slot", "Expected the name of a column, got `=1` - at `log.slot`"),
    ('"=mail"', '"="', "placement", "Expected the name of a column, got `=` - at `log.placement`"),
    ('action_id = "shown"\n', "", "[log]", "Expected key `action_id`, got none - at `log`"),
    ("choice_probability = 0.5\n", "", "[log]", "Expected key `choice_probability`, got none - at `log`"),
    ('age = "number"', 'age = "numbers"', "age", "Expected one of `number`, `category`, got `numbers` - at `features.age`"),
    ('age = "number"', "age = [1]", "age", "Expected one of `number`, `category`, got `[1]` - at `features.age`"),
    ("age =", '"age in years" =', '"age in', "Expected a column named with letters, digits and `_`, got `age in years`"),
    ("age =", "customer_id =", 'customer_id = "n', "Expected a column of another name, got `customer_id`, which is taken"),
    ("age =", "Customer_Id =", 'Customer_Id = "n', "Expected a column of another name, got `Customer_Id`, which is taken"),
    (
        'visits = "number"\n', 'visits = "number"\nAge = "number"\n', 'Age = "number',
        "Expected names that differ in more than their case, got `age` and `Age` - at `features.Age`",
    ),
    (
        'device = "category"\n', 'device = "category"\nDevice = "category"\n', "Device",
        "Expected names that differ in more than their case, got `device` and `Device` - at `context.Device`",
    ),
    ("age =", "event_timestamp =", "event_t", "Expected a column of another name, got `event_timestamp`, which is taken"),
    ('["visits"]', '["vists"]', "activity", "Expected a column of [features] (did you mean `visits`?), got `vists`"),
    ('["visits"]', '[["visits"]]', "activity", "Expected a column of [features] (did you mean `visits`?), got `['visits']`"),
    ("activity =", "activities =", "activities", "Expected a view (did you mean `activity`?), got `activities`"),
    ('["visits"]', '["visits"]\nvalue = "visits"', "value =", "Expected each column in one view, got `visits` again"),
    ('device = "category"', 'device = "text"', "device", "Expected one of `number`, `category`, got `text` - at `context.d"),
    ("device =", "dev-ice =", "dev-ice", "Expected a column named with letters, digits and `_`, got `dev-ice`"),
    ('table = "actions.csv"', "table = 3", "table", "Expected a text, got `3` - at `actions.table`"),
    ('key = "code"\n', "", "[actions]", "Expected a text, got `None` - at `actions.key`"),
    ('price = "number"', 'price = "money"', "price", "Expected one of `number`, `category`, got `money` - at `actions.price`"),
    ("price =", "Price =", "Price", "Expected a column named with a-z, 0-9 and `_`, as catalogs do, got `Price`"),
    ("price =", "id =", 'id = "number', "Expected a column of another name, got `id`, which is taken - at `actions.id`"),
    ('"binary"', '"yes"', "click", "Expected one of `binary`, `value`, got `yes` - at `outcomes.click`"),
    ("click =", "impression =", "impression", "Expected a column of another name, got `impression`, which is taken"),
    ('click = "binary"\nspend = "value"\n', "", "[outcomes]", "Expected at least one outcome, got none - at `outcomes`"),
    ('"features.yaml"', "true", "features =", "Expected the name of a file, got `True` - at `home.features`"),
    ("catalog =", "catalogue =", "catalogue", "Expected a known key (did you mean `catalog`?), got `catalogue`"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "spoiled", "stands", "expected"), SPOILED, ids=[f"{s[1][:20]}-{s[3][:40]}" for s in SPOILED])
def test_each_kind_of_mistake_says_what_was_expected_and_on_which_line(written, part, spoiled, stands, expected):
    """Expected, found and where; the line is that of the key, or of its section where the key is missing."""
    text = GOOD.replace(part, spoiled, 1)
    assert text != GOOD
    matching = [p for p in problems(written(text)) if expected in p]
    assert len(matching) == 1
    assert matching[0].startswith(f"map.toml: line {line_of(text, stands)}: ")


def test_a_mapping_without_outcomes_or_log_names_what_is_missing(written):
    """There is nothing to learn from a log that says neither what was done nor what came of it."""
    assert "map.toml: line 2: Expected a section, got `3` - at `features`" in problems(written("log.slot = 'a'\nfeatures = 3"))
    assert problems(written("")) == [
        "map.toml: line 1: Expected key `action_id`, got none - at `log`",
        "map.toml: line 1: Expected key `choice_probability`, got none - at `log`",
        "map.toml: line 1: Expected at least one outcome, got none - at `outcomes`",
    ]


def test_every_mistake_of_a_mapping_is_reported_at_once(written):
    """One reading shows them all; none hides another."""
    spoils = [
        ('"who"', "1"), ("0.5", "2"), ('age = "number"', 'age = "x"'), ("activity", "actions"), ('device = "c', 'device = "d'),
        ('"code"', "2"), ("family", "Family"), ('"binary"', '"bin"'), ('"catalog.yaml"', "3"),
    ]  # fmt: skip
    text = GOOD
    for part, spoiled in spoils:
        text = text.replace(part, spoiled, 1)
    found = problems(written(text))
    assert len(found) == len(spoils)
    assert sorted(int(p.split("line ")[1].split(":")[0]) for p in found) == sorted(line_of(GOOD, part) for part, _ in spoils)


@settings(max_examples=25)
@given(st.permutations(SECTIONS), st.sampled_from(SECTIONS[:7]))
def test_the_line_of_a_mistake_is_right_in_any_order_of_the_sections(written, sections, chosen):
    """A key of the same name in another section does not draw a mistake to itself."""
    header, first, *rest = chosen.splitlines()
    spoiled = "\n".join([header, f"{first.split(' =')[0]} = 2", *rest, ""])
    text = "".join(spoiled if section is chosen else section for section in sections)
    assert [p.split(": ")[1] for p in problems(written(text))] == [f"line {line_of(text, spoiled) + 1}"]


@settings(max_examples=25)
@given(st.permutations(SECTIONS))
def test_the_order_of_the_sections_means_nothing(written, sections):
    """People order a file as they think of it."""
    assert read_mapping(written("".join(sections))) == read_mapping(written(GOOD))


@settings(max_examples=25)
@given(st.dictionaries(COLUMN_NAMES, st.sampled_from(["number", "category"])), st.floats(0, 1, exclude_min=True))
def test_what_is_written_is_what_is_read(written, features, probability):
    """Any columns of either type, at any probability; those without a view are the profile, said nowhere."""
    lines = "".join(f'{name} = "{kind}"\n' for name, kind in features.items())
    meaning = read_mapping(written(f"{SHORTEST}[features]\n{lines}".replace("= 1\n", f"= {probability!r}\n")))
    assert (meaning.features, meaning.views, meaning.choice_probability) == (features, {}, probability)


def test_a_mapping_that_is_no_file_or_no_toml_is_refused(written, tmp_path):
    """TOML's own message names the line."""
    for path in (tmp_path / "none.toml", tmp_path):
        assert problems(path) == [f"Expected a mapping file, found none - at `{path}`"]
    assert "map.toml: Expected TOML, got something else: " in problems(written("[log]\naction_id = \n"))[0]
    assert "line 2" in problems(written("[log]\naction_id = \n"))[0]
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"# caf\xe9\n")
    assert "latin.toml: Expected TOML, got something else: 'utf-8' codec can't decode byte 0xe9" in problems(latin)[0]
