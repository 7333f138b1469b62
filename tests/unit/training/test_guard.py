"""A canary that does harm is taken back, one that does none goes on; whoever looks every minute is not misled."""

import json
import os
import time

import msgspec
import numpy as np
import pytest

from features.homes import home_contract
from service.bundles.engines import EngineSource
from service.cli import main
from service.decision.decide import decide
from service.decision.experiments import CANARY, Canary
from service.decision.records import DecisionRecord, ErasureRecord, OutcomeRecord
from service.registry import Registry
from tests.unit.training.conftest import write_log
from training.experiments import experiments
from training.guard import Seen, guard, judge_canary
from training.learning_rules import GateRules, GuardRules
from training.live_log import write_segment
from training.promotion import promote_without_evidence, stage_canary
from training.sealing import seal

SHARE = 0.5


def seen(customers: int = 5000, *, rate: float = 0.1, fallback: float = 0.01, seed: int = 1, **changes) -> Seen:
    """Two decisions of each customer."""
    chance = np.random.default_rng(seed)
    two = np.full(customers, 2.0)
    found = Seen(two, chance.binomial(2, fallback, customers) * 1.0, two, chance.binomial(2, rate, customers) * 1.0)
    return found._replace(**{"scoring_ms": 1.0, **changes})


def broken(canary: Seen, champion: Seen | None = None, **rules) -> list[str]:
    judged = judge_canary(canary, champion or seen(seed=2), GuardRules(**rules))
    assert (judged.verdict == "back") == any(not rail.holds for rail in judged.rails)
    return [rail.name for rail in judged.rails if not rail.holds]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"failed": 5}, []),
        ({"failed": 101}, ["errors"]),
        ({"fallback": 0.1}, ["fallbacks"]),
        ({"scoring_ms": 4.1}, ["latency"]),
        ({"scoring_ms": 10.1}, ["latency"]),
        ({"rate": 0.05}, ["reward"]),
        ({"rate": 0.2}, []),
        ({"rate": 0.01, "fallback": 0.3, "failed": 5000, "scoring_ms": 50.0}, ["errors", "fallbacks", "latency", "reward"]),
    ],
)
def test_each_guard_rail_breaks_for_its_own_reason(changes, expected):
    """Failures of its model, fallbacks instead of offers, slow scoring, and outcomes that stay away."""
    assert broken(seen(**changes)) == expected


def test_what_a_guard_rail_says_can_be_understood():
    """Found and allowed, in figures."""
    judged = judge_canary(seen(failed=150, scoring_ms=4.1), seen(seed=2))
    assert judged.broken == (
        "errors: its model failed in 150 of 10,000 decisions, 1.0% may be; "
        "latency: a request is scored in 4.100 ms, 4.1 times the champion's; 4 times may be"
    )


def test_a_model_that_fails_breaks_the_rail_before_there_are_customers_to_compare():
    """Six failures in ten decisions; a loss is not looked for among so few."""
    few = seen(5, failed=6, rate=0.0)
    judged = judge_canary(few, seen(seed=2))
    assert [rail.name for rail in judged.rails if not rail.holds] == ["errors"]
    assert "too few customers so far, 100 of each are needed" in judged.rails[3].told


def plain(customers: int, *, successes: int = 0, fallbacks: int = 0) -> Seen:
    """One decision of each customer."""
    one, place = np.ones(customers), np.arange(customers)
    return Seen(one, (place < fallbacks) * 1.0, one, (place < successes) * 1.0, scoring_ms=1.0)


def test_a_canary_without_an_outcome_stays_where_hardly_any_had_to_be_expected():
    """None of 100 where one in a hundred succeeds: so it is for 37 of 100 canaries that are as good."""
    judged = judge_canary(plain(100), plain(9_900, successes=99))
    assert (judged.verdict, judged.broken) == ("watch", "")
    few = "too few of them so far, 5 customers of each must have one or be expected to"
    assert f"outcomes per decision: {few}" in judged.rails[3].told
    assert f"share of decisions with a fallback: {few}" in judged.rails[1].told


def test_fallbacks_break_their_rail_at_once_where_the_champion_has_none():
    """30 of 100 against none of 9,900."""
    judged = judge_canary(plain(100, fallbacks=30, successes=1), plain(9_900, successes=99))
    assert [rail.name for rail in judged.rails if not rail.holds] == ["fallbacks"]


def test_a_canary_of_which_nothing_came_is_not_proven():
    """Nor is the champion: neither side has a success."""
    assert judge_canary(plain(5000), plain(5000)).verdict == "watch"


def test_nothing_is_proven_where_nothing_was_seen():
    """No decision so far: every rail holds, and no figure is made up."""
    nothing = np.zeros(0)
    judged = judge_canary(Seen(nothing, nothing, nothing, nothing), seen())
    assert (judged.verdict, judged.broken) == ("watch", "")
    assert judged.rails[2].told == "not measured: no decision so far"


def test_a_canary_that_is_as_good_is_proven_once_there_are_enough_customers():
    """The interval excludes a loss of a twentieth."""
    assert judge_canary(seen(2000), seen(2000, seed=2)).verdict == "watch"
    assert judge_canary(seen(200_000), seen(200_000, seed=2)).verdict == "proven"


def test_the_bounds_are_those_of_the_rules():
    """`learning.toml` moves each."""
    canary = seen(failed=150, fallback=0.1, scoring_ms=9.0, rate=0.05)
    easy = GuardRules(most_failed=0.02, more_fallbacks=0.2, less_reward=0.9)
    assert judge_canary(canary, seen(seed=2), easy, GateRules(most_times=20.0)).broken == ""


def test_a_harmless_canary_that_is_asked_about_daily_is_hardly_ever_taken_back():
    """Of 200 canaries that are the champion's twin, looked at 20 times each, at most 5 % lose their place."""
    lost = 0
    for run in range(200):
        canary, champion = seen(4000, seed=2 * run + 10), seen(4000, seed=2 * run + 11)
        looks = (judge_canary(_first(canary, n), _first(champion, n), GuardRules(less_reward=0.0)) for n in range(200, 4001, 200))
        lost += any(judged.verdict == "back" for judged in looks)
    assert lost <= 10


def _first(arm: Seen, customers: int) -> Seen:
    return arm._replace(**{name: getattr(arm, name)[:customers] for name in ("decisions", "fallbacks", "matured", "outcomes")})


@pytest.fixture
def climbing(own_home):
    """A home whose champion has a twin as canary."""
    registry = Registry(own_home / "registry")
    [name] = registry.bundles()
    twin = own_home / "twin"
    manifest = json.loads((registry.bundle_folder(name) / "manifest.json").read_text())
    twin.mkdir()
    for path in registry.bundle_folder(name).iterdir():
        (twin / path.name).write_bytes(path.read_bytes())
    (twin / "manifest.json").write_text(json.dumps({**manifest, "bundle_id": "twin"}))
    registry.add_bundle(twin, "twin")
    promote_without_evidence(own_home, name, "for tests")
    stage_canary(own_home, "twin", SHARE)
    return own_home


def decided(home, shop, after: float = 1.0) -> list[DecisionRecord]:
    """1,500 decisions as the service makes them, within a minute, so many seconds from now."""
    source = EngineSource(Registry(home / "registry"), home_contract(home), lambda _engine, _problem: None)
    source.refresh()
    now = time.time()
    requests = [shop.request(m, f"g{n}") for n, m in enumerate(shop.moments(1500, now + after, now + after + 60, seed=3))]
    return decide(source.engine, requests)


def outcomes(records, rate_of) -> list[OutcomeRecord]:
    chance = np.random.default_rng(0)
    return [
        OutcomeRecord(f"{r.decision_id}-click", r.decision_id, "click", r.at + 1, r.at + 1)
        for r in records if chance.random() < rate_of(r)
    ]  # fmt: skip


def test_a_canary_that_loses_outcomes_is_taken_back_and_the_history_says_why(climbing, shop, capsys):
    """Exit code 3; the champion is who it was."""
    records = decided(climbing, shop)
    arms = {r.experiment.arm for r in records if r.experiment and r.experiment.id == CANARY}
    assert arms == {"twin"}
    canary = Canary("twin", SHARE)
    write_log(climbing, records, outcomes(records, lambda r: 0.02 if canary.takes(r.customer_id) else 0.5))
    before = Registry(climbing / "registry").current()
    assert main(["--home", str(climbing), "guard"]) == 3
    told = capsys.readouterr().out
    assert "reward     BROKEN  outcomes per decision: -0." in told
    assert f"taken back: {before.champion} decides for its customers again" in told
    after = Registry(climbing / "registry").current()
    assert (after.champion, after.challengers) == (before.champion, ())
    last = json.loads((climbing / "registry" / "history.jsonl").read_text().splitlines()[-1])
    assert last["why"].startswith("off twin: guard: reward: outcomes per decision: -0.")
    assert main(["--home", str(climbing), "guard", "--every", "60"]) == 0
    assert "no canary is staged" in capsys.readouterr().out


def test_a_canary_that_does_no_harm_goes_on(climbing, shop, capsys):
    """Exit code 0, every rail with its figure."""
    records = decided(climbing, shop)
    write_log(climbing, records, outcomes(records, lambda _: 0.2))
    assert main(["--home", str(climbing), "guard"]) == 0
    told = capsys.readouterr().out
    assert told.count("holds") == 4
    assert "nothing speaks against it" in told
    assert [one.bundle for one in Registry(climbing / "registry").current().challengers] == ["twin"]


def test_a_canary_is_not_judged_by_customers_who_were_erased(climbing, shop):
    """Of all of its failures those count whose customers are still known."""
    canary = Canary("twin", SHARE)
    records = [
        msgspec.structs.replace(r, degraded=("canary_failed:twin",)) if canary.takes(r.customer_id) else r
        for r in decided(climbing, shop)
    ]
    write_log(climbing, records)
    own = {r.customer_id for r in records if canary.takes(r.customer_id)}
    gone = {r.customer_id for r in records} - set(sorted(own)[:3])
    write_segment(climbing, "erasures", "test", [ErasureRecord(name, 1e11) for name in gone], 1e11)
    assert guard(climbing, time.time()).decisions == sum(r.customer_id in own - gone for r in records)


def test_customers_of_a_canary_that_failed_count_as_its_own(climbing, shop):
    """The champion decided for them, and that is the canary's failure."""
    canary = Canary("twin", SHARE)
    records = [
        msgspec.structs.replace(r, degraded=("canary_failed:twin",), experiment=None) if canary.takes(r.customer_id) else r
        for r in decided(climbing, shop)
    ]
    failed = sum("canary_failed:twin" in r.degraded for r in records)
    assert failed > 300
    write_log(climbing, records)
    report = guard(climbing, time.time())
    assert report.decisions >= failed
    assert report.judgement.broken.startswith(f"errors: its model failed in {failed} of {report.decisions} decisions")
    assert Registry(climbing / "registry").current().challengers == ()


def test_outcomes_count_within_their_window_and_decisions_once_it_is_over(climbing, shop):
    """Of decisions that are younger nobody knows yet: then there is nothing to compare."""
    (climbing / "learning.toml").write_text('[windows]\nclick = "1h"\n')
    records = decided(climbing, shop)
    canary = Canary("twin", SHARE)
    write_log(climbing, records, outcomes(records, lambda r: 0.0 if canary.takes(r.customer_id) else 0.9))
    young = guard(climbing, time.time() + 60)
    assert "too few customers" in young.judgement.rails[3].told
    old = guard(climbing, time.time() + 7200)
    assert old.judgement.broken.startswith("reward")


def test_outcomes_of_long_before_a_decision_do_not_count_for_it(climbing, shop):
    """Those of the canary are dated two hours earlier; beside another one that came in time, such a one takes nothing away."""
    (climbing / "learning.toml").write_text('[windows]\nclick = "1h"\n')
    records, canary = decided(climbing, shop), Canary("twin", SHARE)
    came = outcomes(records, lambda _: 0.5)
    early = [msgspec.structs.replace(one, outcome_id=f"{one.outcome_id}-early", at=one.at - 7200) for one in came]
    own = {r.decision_id for r in records if canary.takes(r.customer_id)}
    write_log(climbing, records, [*early, *(one for one in came if one.decision_id not in own)])
    assert guard(climbing, time.time() + 7200).judgement.broken.startswith("reward")


def test_what_was_decided_before_the_canary_does_not_count(climbing, shop):
    """Whether the segment grew since or not: other days, other customers."""
    write_log(climbing, decided(climbing, shop, after=-1000.0))
    [path] = (climbing / "log" / "decisions").iterdir()
    for grown in (time.time() - 900, time.time() + 10):
        os.utime(path, (grown, grown))
        assert guard(climbing, time.time()).decisions == 0


def test_what_was_sealed_meanwhile_counts_as_before(climbing, shop):
    """A canary may run for weeks."""
    write_log(climbing, decided(climbing, shop))
    before = guard(climbing, time.time())
    assert seal(climbing).records == 1500
    assert (before.decisions > 300, guard(climbing, time.time()).decisions) == (True, before.decisions)


def test_customers_of_a_canary_are_personalised_in_the_report_on_experiments(climbing, shop):
    """They are no arm of their own there: the shares of customers stay those of the plan."""
    records = decided(climbing, shop)
    write_log(climbing, records)
    [found] = experiments(climbing, "click")
    customers = {r.customer_id for r in records}
    assert found.id == "not_personalised"
    assert sum(arm.customers for arm in found.arms) == len(customers)
    assert found.mismatch > 0.001


def test_a_decision_that_two_workers_wrote_counts_once(climbing, shop):
    """A client that asked both: for the guard of a canary, and for experiments."""
    records = decided(climbing, shop)
    write_log(climbing, records)
    once = guard(climbing, time.time()).decisions
    write_log(climbing, records[:700])
    assert (once > 300, guard(climbing, time.time()).decisions) == (True, once)
    [found] = experiments(climbing, "click")
    assert sum(arm.decisions for arm in found.arms) == len(records)
