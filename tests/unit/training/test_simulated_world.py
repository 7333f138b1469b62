"""The world whose truth is known: it must be what it says."""

import numpy as np
import pytest

from training.simulate import Moment, World, exploring_engine, history, probabilities

END = 1_790_000_000.0


@pytest.fixture(scope="module")
def logged(shop):
    return history(shop, 6000, END, seed=11)


def moments_of(table) -> list[Moment]:
    customers = [int(name[1:]) for name in table["customer_id"].to_pylist()]
    times = table["decided_at"].cast("int64").to_numpy() / 1e6
    places, devices = table["placement"].to_pylist(), table["device"].to_pylist()
    return [Moment(*row) for row in zip(customers, times, places, devices, strict=True)]


def test_the_same_seed_gives_the_same_world_and_another_seed_another(shop, logged):
    """A figure from a simulation can be found again."""
    assert history(World(1500, seed=4), 6000, END, seed=11).equals(logged)
    assert not history(shop, 6000, END, seed=12).equals(logged)


def test_customers_respond_at_their_true_rate(shop, logged):
    """Clicks against the rates they were drawn from, within three standard errors, in every fifth of the rates."""
    rates = shop.rates(moments_of(logged))
    positions = {action.id: position for position, action in enumerate(shop.actions)}
    shown = rates[np.arange(len(rates)), [positions[a] for a in logged["action_id"].to_pylist()]]
    clicks = logged["click"].to_numpy()
    for part in np.array_split(np.argsort(shown), 5):
        error = np.sqrt((shown[part] * (1 - shown[part])).sum()) / len(part)
        assert abs(clicks[part].mean() - shown[part].mean()) < 3 * error


def test_who_comes_does_not_tell_whether_they_respond(logged):
    """Among visits of one customer clicks vary as chance has it: the numbers that pick customers pick no clicks."""
    names, inverse = np.unique(logged["customer_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    clicks = logged["click"].to_numpy()
    counts, sums = np.bincount(inverse), np.bincount(inverse, clicks)
    often = counts >= 8
    expected = clicks.mean() * (1 - clicks.mean()) / counts[often]
    observed = (sums[often] / counts[often] - clicks.mean()) ** 2
    assert len(names) > 1000
    assert observed.mean() < 2.5 * expected.mean()  # customers do differ, but not between 0 and 1


def test_every_choice_of_the_system_before_was_equally_likely(shop, logged):
    """The probability on file is one over the number of actions that could be shown."""
    engine = exploring_engine(shop)
    requests = [shop.request(moment, f"t{row}") for row, moment in enumerate(moments_of(logged)[:500])]
    table = probabilities(engine, requests)
    positions = {action.id: position for position, action in enumerate(engine.actions)}
    claimed = logged["choice_probability"].to_numpy()[:500]
    shown = [positions[a] for a in logged["action_id"].to_pylist()[:500]]
    assert table[np.arange(500), shown].tolist() == pytest.approx(claimed.tolist())


def test_the_rules_of_the_shop_hold_in_its_history(shop, logged):
    """Nobody with an open complaint was sold to."""
    offers = {action.id for action in shop.actions if action.kind == "offer"}
    complaints = logged.filter(logged["open_complaint"].to_numpy() == 1.0)
    assert complaints.num_rows > 100
    assert offers.isdisjoint(complaints["action_id"].to_pylist())


def test_the_true_value_of_a_policy_is_what_it_earns(shop):
    """Playing a policy many times brings the rate that was said."""
    moments = shop.moments(8000, END, END + 60, seed=5)
    engine = exploring_engine(shop)
    table = probabilities(engine, [shop.request(moment, f"p{row}") for row, moment in enumerate(moments)])
    shown = np.array([np.random.default_rng(row).choice(len(p), p=p) for row, p in enumerate(table)])
    clicks, bought = shop.respond(moments, shown, seed=6)
    assert clicks.mean() == pytest.approx(shop.true_value(moments, table), abs=0.012)
    assert ((bought > 0) <= (clicks > 0)).all()
