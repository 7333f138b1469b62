"""Short forms of the rows of `make accept AREA=faults`, each with the protection taken away once."""

import asyncio
import errno
import itertools
import random
import shutil
import time

import httpx
import pytest
import redis

from features.redis_server import resolve_redis
from service.registry import Registry
from tests.acceptance.flood import Flood
from tests.acceptance.open_loop import Answer
from tests.acceptance.redis_proxy import ProxyProcess
from tests.acceptance.row import Context
from tests.acceptance.rows import (
    conservation,
    corruption,
    crashes,
    described,
    disk_faults,
    front_door,
    hot_swaps,
    model_faults,
    overload,
    power_loss,
    redis_faults,
    repeats,
)
from tests.acceptance.rows.footprint import placement_of, serving
from tests.acceptance.rows.live_world import live_home
from training.learn import train
from training.promotion import promote_without_evidence
from training.replay import replay


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The steps of a server that writes, of a seal and of a removal; and a folder to lose power in."""
    folder = tmp_path_factory.mktemp("power")
    return power_loss.record_run(folder), folder


@pytest.fixture
def context(root_folder, tmp_path):
    return Context(root_folder, tmp_path, 3, lambda _message: None)


@pytest.fixture
def root_folder(request):
    return request.config.rootpath


def test_a_power_loss_at_any_moment_loses_nothing_that_was_acknowledged(recorded):
    """150 of the 2,000 cut points: everything promised is read once, and no file is there by half."""
    steps, folder = recorded
    wrong = [state for state in power_loss.states(steps, 150, 1) if power_loss.problems_after(steps, state, folder)]
    assert wrong == []


def test_a_sync_that_is_left_out_is_noticed(recorded):
    """Every tenth of those that make something certain; the acceptance row leaves out each of them."""
    steps, folder = recorded
    syncs = power_loss.needed_syncs(steps)[::10]
    assert len(syncs) > 8
    assert [sync for sync in syncs if not power_loss.is_missed(steps, sync, folder)] == []


def test_flipped_bits_and_cut_files_are_found_and_cost_no_other_record(tmp_path):
    """Some of the 1,200 kinds of damage; without checksums some of the same pass."""
    files, chance = corruption.make_home(tmp_path), random.Random(2)
    damages = [*corruption.flips(files, 120, chance), *corruption.cuts(files, 40, chance)]
    assert all(corruption.tried(tmp_path, damage, corruption.is_noticed) == (True, True) for damage in damages)
    assert not all(corruption.tried(tmp_path, damage, corruption.without_checksums).noticed for damage in damages)
    assert not corruption.is_noticed(tmp_path)


def test_killed_writers_lose_nothing_and_write_nothing_twice(tmp_path, root_folder):
    """Five of the hundred, at 500 a second, their clients sending again what nobody acknowledged."""
    found = crashes.kill_writers(tmp_path, root_folder, 5, seed=1)
    assert (found.lost, found.doubled) == (0, 0)
    assert len(found.acknowledged) > 80


def test_a_writer_that_acknowledges_before_the_sync_is_found_out(tmp_path, root_folder):
    """The protection taken away: the same check loses records."""
    assert crashes.kill_writers(tmp_path, root_folder, 8, 1, "--reckless").lost > 0


def test_a_killed_server_comes_back_with_everything_it_acknowledged(context):
    """Two of the fifteen, under load."""
    home = context.scratch / "home"
    live_home(home)
    with resolve_redis(None, home) as url:
        told, _ = crashes.kill_servers(home, context, 2, url)
        found = crashes.found_after(home, told, url)
    assert found[:3] == (0, 0, 0)
    assert min(len(told.decisions), len(told.outcomes), len(told.events)) > 10


@pytest.mark.parametrize("flags", [(), ("--lenient",)])
def test_a_bad_disk_makes_nobody_wait_and_acknowledges_nothing_that_is_not_there(context, flags):
    """Half a second of each fault; with failed syncs passed over, the same check finds false acknowledgements."""
    home = context.scratch / "home"
    tally = disk_faults.through_phases(home, context, *flags, phase_s=0.6)
    lies = tally.false_acknowledgements(home)
    assert (tally.share_answered >= disk_faults.ANSWERED, lies > 0) == (True, bool(flags))
    assert tally.acknowledged


def test_every_outcome_is_counted_once_as_exactly_one_thing():
    """60 of the 2,000 runs; a log that forgets its ids at a restart is found out."""
    assert conservation.first_violation(60, 1, conservation.segment_log) is None
    assert conservation.first_violation(300, 1, conservation.forgetful) is not None


def test_what_is_sent_again_and_again_across_kills_happens_once(context):
    """Twenty ids of each kind, ten times at once, three kills; the same ids with other content are refused."""
    found = repeats.run(context.scratch / "home", context, ids=20, times=10)
    assert (found.before.twice, found.after.exactly_once(20), found.differing) == (0, True, 0)
    assert found.statuses == {422: 2 * 3 * 20}


def test_every_route_answers_every_kind_of_key_as_it_should_and_hostile_bodies_at_once(context):
    """The whole row: it takes three seconds."""
    assert front_door.measure(context).holds


def test_the_service_is_as_its_document_describes_it(context):
    """A few hundred of the 10,000 cases."""
    cases, figure, holds = described.tried(context, 10)
    assert holds, figure
    assert cases > 300


@pytest.fixture
def serving_home(own_home):
    """A shop whose one bundle serves."""
    promote_without_evidence(own_home, Registry(own_home / "registry").bundles()[0], "for a test")
    return own_home


@pytest.mark.slow
def test_whatever_becomes_of_redis_everybody_is_answered(context, serving_home):
    """Three of nine faults, 60 requests a second: valid answers that say what is missing, and full service soon after."""
    with redis_faults.redis_with(serving_home, context) as server:
        proxy = ProxyProcess(server.port, context.root)
        try:
            with serving(serving_home, context, f"redis://127.0.0.1:{proxy.port}") as (_, url, _ready):
                setting = redis_faults.Setting(
                    serving_home, server, proxy, httpx.URL(url), 60.0, context, redis_faults.Spell(1.0, 2.0, 3.0)
                )
                faults = [redis_faults.FAULTS[name] for name in ("refused", "reset mid-reply", "READONLY")]
                found = [asyncio.run(redis_faults.suffered(setting, fault)) for fault in faults]
        finally:
            proxy.close()
    for bad, _late, named, _waited, back, _commands in found:
        assert bad.startswith("0 of ")
        assert not named.endswith("!")
        assert not back.endswith("!")


@pytest.mark.parametrize("name", ["NaN", "the wrong shape"])
def test_a_model_that_fails_costs_nobody_an_answer(context, serving_home, name):
    """The faults that take no time; it is given up after a few calls, and what serves then says so."""
    good = Registry(serving_home / "registry").current().champion
    with serving(serving_home, context) as (_, url, _ready):
        told, holds = model_faults.tried(serving_home, good, name, url, seconds=2.0)
    assert holds, told


def test_bundles_that_are_swapped_under_load_fail_nobody_and_can_be_told_again(context, serving_home):
    """Three of twenty swaps, at 60 requests a second."""
    began = time.time()
    bundles = [Registry(serving_home / "registry").current().champion, train(serving_home, "click", share=0.7)]
    with serving(serving_home, context) as (_, url, _ready):
        answers = asyncio.run(hot_swaps.swapped(url, serving_home, bundles, 60.0, swaps=3, every_s=1.0))
    assert {a.status for a in answers} == {200}
    assert {a.json()["versions"]["bundle"] for a in answers} >= set(bundles)
    report = replay(serving_home, began)
    assert report.holds
    assert report.identical == report.decisions >= len(answers)


def test_more_requests_than_can_be_served_are_turned_away_and_outcomes_are_not(context, serving_home):
    """Nobody is left without an answer; a moment later everybody is served again."""
    with serving(serving_home, context) as (_, url, _ready):
        address = httpx.URL(url)
        seen = asyncio.run(Flood(address.host, address.port).run(overload.mixture(placement_of(serving_home)), 20_000.0, 2.0))
        time.sleep(2.0)
        after = [
            httpx.post(f"{url}/recommend", json={"customer_id": "c1", "placement": placement_of(serving_home)}) for _ in range(5)
        ]
    by_path = {path: {s.status for s in group} for path, group in itertools.groupby(sorted(seen), key=lambda s: s.path)}
    assert by_path["/recommend"] == {200, 503}
    assert by_path["/outcomes"] == {202}
    assert {a.status_code for a in after} == {200}


def test_with_everything_down_at_once_a_started_worker_goes_on_from_what_it_has(context, serving_home):
    """No Redis, no log, no registry: decided from context with the model that was loaded, and the answer says so."""
    control = serving_home / "control"
    with resolve_redis(None, serving_home) as redis_url, disk_faults.faulty(serving_home, context, redis_url, control) as port:
        ask = {"customer_id": "c1", "placement": placement_of(serving_home), "context": {"channel": "web", "device": "mobile"}}
        url = f"http://127.0.0.1:{port}/recommend"
        before = httpx.post(url, json=ask).json()
        control.write_text(f"write {errno.ENOSPC}")
        shutil.rmtree(serving_home / "registry")
        with redis.Redis.from_url(redis_url) as client:
            client.shutdown(nosave=True)
        answers = [httpx.post(url, json=ask) for _ in range(20)]
        refused = httpx.post(f"http://127.0.0.1:{port}/outcomes", json={"outcomes": [OUTCOME]})
    assert {a.status_code for a in answers} == {200}
    last = answers[-1].json()
    assert (last["degraded"], last["logged"]) == (["no_customer_features", "not_logged"], False)
    assert last["versions"] == before["versions"]
    assert last["placements"][0]["items"]
    assert refused.status_code == 503


OUTCOME = {"outcome_id": "o1", "decision_id": "d1", "type": "click", "at": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(("due", "is_told"), [(1.0, True), (3.0, False)], ids=["before it was mended alone", "after it, too"])
def test_a_fault_after_whose_mending_nobody_asks_is_red(due, is_told):
    """Nothing is known then of how soon the service was whole again."""
    when = redis_faults.Moments(began=0.0, mending=1.0, mended=2.0)
    told = redis_faults.judged([Answer("/recommend", 200, b"", due, 0.01)], "no_customer_features", when, 0, 1.0)
    assert any(one.endswith("nobody asked any more!") for one in told) == is_told
