"""Short forms of the rows of `make accept AREA=faults`, each with the protection taken away once."""

import random

import pytest

from features.redis_server import resolve_redis
from tests.acceptance.row import Context
from tests.acceptance.rows import conservation, corruption, crashes, described, disk_faults, front_door, power_loss, repeats
from tests.acceptance.rows.live_world import live_home


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
