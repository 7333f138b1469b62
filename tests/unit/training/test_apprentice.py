"""The apprentice foretells what the existing system would choose, and says how well beside the simplest guess."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.cli import main
from service.errors import NotReady
from training.apprentice import apprentice
from training.fit import FitSettings
from training.importing import import_table

QUICK = FitSettings(rounds=30, threads=1, rows_per_leaf=20)
MAPPING = """
[log]
customer_id = "customer"
action_id = "shown"
choice_probability = "p"
decided_at = "at"
placement = "=hero"
[features]
age = "number"
city = "category"
[outcomes]
bought = "binary"
"""


def system(home, choose, rows: int = 3000, seed: int = 1):
    """The imported log of a system that chooses by what it knows of the customer, and by chance."""
    chance = np.random.default_rng(seed)
    age, city = chance.uniform(18, 80, rows), chance.choice(["ulm", "bonn"], rows)
    shown, p = choose(age, city, chance)
    table = pa.table({
        "customer": [f"c{n % 900}" for n in range(rows)], "shown": shown, "p": p, "age": age, "city": city,
        "at": pa.array((1_790_000_000 + np.arange(rows) * 60) * 1_000_000, pa.timestamp("us", tz="UTC")),
        "bought": (chance.random(rows) < 0.1).astype(float),
    })  # fmt: skip
    home.mkdir()
    pq.write_table(table, home / "log.parquet")
    (home / "mapping.toml").write_text(MAPPING)
    import_table(home, home / "log.parquet", home / "mapping.toml")
    return home


def by_rule(age, city, chance):
    """Cards for the old, loans for the young, tours in Bonn for whoever is between; one in ten by chance."""
    ruled = np.where(age > 60, "card", np.where(age < 35, "loan", np.where(city == "bonn", "tour", "card")))
    drawn = chance.random(len(age)) < 0.1
    shown = np.where(drawn, chance.choice(["card", "loan", "tour"], len(age)), ruled)
    return shown, np.where(shown == ruled, 0.9 + 0.1 / 3, 0.1 / 3)


def by_chance(age, _city, chance):
    """Nobody is looked at."""
    return chance.choice(["card", "loan", "tour"], len(age)), np.full(len(age), 1 / 3)


def test_a_system_that_follows_a_rule_is_foretold_far_beyond_its_most_frequent_action(tmp_path):
    """Nine in ten and a third of the rest could be: the rule is found, chance is not."""
    report = apprentice(system(tmp_path / "home", by_rule), settings=QUICK)
    assert (report.learned, report.unseen, report.actions, report.verdict) == (1500, 1500, 3, "learned")
    assert report.matches.value == pytest.approx(0.9 + 0.1 / 3, abs=0.03)
    assert report.matches.ci[0] < report.matches.value < report.matches.ci[1]
    assert report.usual_action == "card"
    assert report.usual.value == pytest.approx(0.48, abs=0.06)
    assert report.gain.value == pytest.approx(report.matches.value - report.usual.value)
    assert report.repeats == pytest.approx((0.9 + 0.1 / 3) ** 2 + 2 * (0.1 / 3) ** 2, abs=0.02)


def test_a_system_that_chooses_by_chance_is_not_foretold(tmp_path):
    """A third is right, as of any guess, and nothing is claimed."""
    report = apprentice(system(tmp_path / "home", by_chance), settings=QUICK)
    assert report.verdict != "learned"
    assert report.matches.value == pytest.approx(1 / 3, abs=0.05)
    assert report.repeats == pytest.approx(1 / 3)


def test_the_command_says_it_in_words(tmp_path, capsys):
    """Match rate with its interval, beside the simplest guess, and what follows."""
    home = system(tmp_path / "home", by_rule)
    assert main(["--home", str(home), "apprentice"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "learned from 1,500 choices among 3 actions; judged on 1,500 it had not seen"
    assert told[1].startswith("the apprentice names the existing system's choice in 9")
    assert told[2].startswith("always saying `card`, the most frequent one, does so in 4")
    assert told[4] == "so what it decides from is among the inputs: the difference is shown"


def test_what_the_service_itself_decided_is_not_learned_from(busy_home, trained_home):
    """Only the existing system's choices: as many rows as before there was a service."""
    both = [apprentice(home, settings=FitSettings(rounds=2)) for home in (busy_home, trained_home)]
    assert both[0].learned + both[0].unseen == both[1].learned + both[1].unseen


@pytest.mark.parametrize(
    ("rows", "choose"), [(300, by_rule), (3000, lambda age, _city, _chance: (np.full(len(age), "card"), np.ones(len(age))))]
)
def test_too_little_to_learn_from_is_refused(tmp_path, rows, choose):
    """Few rows, or one action: there is no choice to foretell."""
    with pytest.raises(NotReady, match="Expected at least 200 rows of several actions"):
        apprentice(system(tmp_path / "home", choose, rows))


def test_without_an_imported_log_there_is_nothing_to_learn(tmp_path):
    """And it says how to bring one."""
    with pytest.raises(NotReady, match="nextbest import TABLE --mapping FILE"):
        apprentice(tmp_path)
