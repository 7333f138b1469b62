"""What a shadow would have done is joined with what was decided and what came of it, by the decision's id."""

import shutil

import msgspec
import numpy as np
import pytest

from service.cli import main
from service.decision.records import OutcomeRecord, ShadowPlacement, ShadowRecord
from service.errors import NotReady
from service.registry import Registry
from training.decision_log import read_decisions
from training.learning_rules import FILE
from training.live_log import read_payloads, write_segment
from training.sealing import plain_columns, seal
from training.shadowing import shadow_report
from training.verifying import verify

LATER = 1e11


def shadowed(home, rate_of, *, agreed: bool = True, problem: str = "") -> str:
    """The log of a shadow that was asked about every decision of the busy shop; its id is that of the only bundle."""
    [bundle] = Registry(home / "registry").bundles()
    clicked = {o.decision_id for o in read_outcomes(home) if o.type == "click"}
    found = []
    for logged in read_decisions(home):
        record = logged.record
        if record.experiment is None:
            shown = tuple(
                ShadowPlacement(p.id, tuple(i.action_id for i in p.items), (), tuple(
                    rate_of(i.predicted_rate, record.decision_id in clicked) for i in p.items
                )) for p in record.placements
            )  # fmt: skip
            own = () if problem else shown
            found.append(ShadowRecord(record.decision_id, bundle, record.at, 0.5, agreed, own, problem))
    write_segment(home, "shadows", "test", found, found[0].at)
    return bundle


def read_outcomes(home) -> list[OutcomeRecord]:
    return [msgspec.json.decode(payload, type=OutcomeRecord) for payload in read_payloads(home, "outcomes")]


def test_a_shadow_that_knows_better_has_rates_that_are_nearer(own_busy_home, capsys):
    """It was told what came of it: less log loss than the champion's, and the report says so in words."""
    bundle = shadowed(own_busy_home, lambda rate, came: 0.9 * rate + 0.1 * came)
    report = shadow_report(own_busy_home, bundle, LATER)
    assert (report.decisions > 1000, report.failed, report.agreed.value, report.slowest_ms) == (True, 0, 1.0, 0.5)
    assert report.gain.ci[0] > 0.0
    assert main(["--home", str(own_busy_home), "stage", "report", bundle]) == 0
    told = capsys.readouterr().out
    assert f"was asked about {report.decisions:,} decisions, and failed in 0" in told
    assert "its rates are nearer: log loss +0." in told


def test_a_shadow_that_says_the_same_is_neither_nearer_nor_farther_and_a_worse_one_is_farther(own_busy_home):
    """The difference is nothing, to the last digit; or a loss."""
    bundle = shadowed(own_busy_home, lambda rate, _: rate)
    assert shadow_report(own_busy_home, bundle, LATER).gain.value == 0.0
    (own_busy_home / "log" / "shadows").rename(own_busy_home / "log" / "before")
    shadowed(own_busy_home, lambda rate, came: 0.9 * rate + 0.1 * (not came), agreed=False)
    report = shadow_report(own_busy_home, bundle, LATER)
    assert (report.gain.ci[1] < 0.0, report.agreed.value) == (True, 0.0)


def test_of_two_placements_the_one_that_was_seen_counts_with_what_came_of_it(own_busy_home):
    """As in training: an outcome speaks of the placement that it names, and one that names none speaks of all."""
    [bundle] = Registry(own_busy_home / "registry").bundles()
    shown = (one.record for one in read_decisions(own_busy_home) if not one.record.placements[0].fallback)
    record = next(one for one in shown if one.experiment is None)
    shutil.rmtree(own_busy_home / "log")
    even = msgspec.structs.replace(record.placements[0].items[0], predicted_rate=0.5)
    both = tuple(msgspec.structs.replace(record.placements[0], id=name, items=(even,)) for name in ("hero", "card"))
    decided = [msgspec.structs.replace(record, decision_id=name, placements=both) for name in ("d1", "d2")]
    sure = ShadowPlacement("hero", (), (), (0.99,)), ShadowPlacement("card", (), (), (0.01,))
    write_segment(own_busy_home, "decisions", "test", decided, record.at)
    write_segment(
        own_busy_home, "shadows", "test", [ShadowRecord(name, bundle, 0.0, 0.5, placements=sure) for name in ("d1", "d2")], 0.0
    )
    right, wrong = np.log(0.99 / 0.5), np.log(0.01 / 0.5)
    for told, rows, gain in (
        ([("d1", "impression", "hero"), ("d1", "click", "hero")], 1, right),
        ([("d1", "impression", "card")], 2, right),
        ([("d2", "click", None)], 4, (3 * right + wrong) / 4),
    ):
        outcomes = [OutcomeRecord(f"{d}-{kind}-{p}", d, kind, record.at, record.at, p, None) for d, kind, p in told]
        write_segment(own_busy_home, "outcomes", f"{rows}", outcomes, record.at)
        report = shadow_report(own_busy_home, bundle, LATER)
        assert (report.rows, report.gain.value) == (rows, pytest.approx(gain))


def test_a_click_that_is_dated_long_before_its_decision_did_not_come_of_it(own_busy_home):
    """Within a window, as in training: a shadow that expects none of those clicks is nearer to what came."""
    bundle = shadowed(own_busy_home, lambda rate, came: 0.5 * rate if came else rate)
    early = [
        msgspec.structs.replace(one, at=one.at - 30 * 86_400.0) for one in read_outcomes(own_busy_home) if one.type == "click"
    ]
    seen = [one for one in read_outcomes(own_busy_home) if one.type != "click"]
    shutil.rmtree(own_busy_home / "log" / "outcomes")
    write_segment(own_busy_home, "outcomes", "test", [*seen, *early], LATER)
    assert shadow_report(own_busy_home, bundle, LATER).gain.value < 0.0
    (own_busy_home / FILE).write_text('[windows]\nclick = "7d"\n')
    assert shadow_report(own_busy_home, bundle, LATER).gain.value > 0.0


def test_where_nothing_can_be_compared_no_figure_is_made_up(own_busy_home):
    """It always failed, or its window is not over; or nobody asked it."""
    [bundle] = Registry(own_busy_home / "registry").bundles()
    with pytest.raises(NotReady, match=f"nextbest stage shadow {bundle}"):
        shadow_report(own_busy_home, bundle, LATER)
    shadowed(own_busy_home, lambda rate, _: rate, problem="Expected finite rates, got nan")
    report = shadow_report(own_busy_home, bundle, LATER)
    assert (report.failed, report.rows, report.gain) == (report.decisions, 0, None)
    (own_busy_home / FILE).write_text('[windows]\nclick = "7d"\n')
    assert shadow_report(own_busy_home, bundle, 0.0).gain is None


def test_the_log_of_shadows_is_verified_sealed_and_tailed_as_any_other(own_busy_home, capsys):
    """The same records before and after, with decision and bundle as columns for whoever asks with SQL."""
    bundle = shadowed(own_busy_home, lambda rate, _: rate)
    before = sorted(read_payloads(own_busy_home, "shadows"))
    assert main(["--home", str(own_busy_home), "log", "tail", "shadows", "-n", "1"]) == 0
    assert 'shadows\t{"decision_id":"busy-' in capsys.readouterr().out
    assert seal(own_busy_home).records > len(before)
    assert sorted(read_payloads(own_busy_home, "shadows")) == before
    assert [found for found in verify(own_busy_home).findings if "/shadows/" in found.file] == []
    assert {"decision_id", "bundle", "took_ms", "agreed", "problem"} <= plain_columns("shadows").keys()
    assert shadow_report(own_busy_home, bundle, LATER).decisions == len(before)
    assert np.isfinite(shadow_report(own_busy_home, bundle, LATER).slowest_ms)
