"""Who was erased counts in no report: what-if, experiments and shadows say what they would without those rows."""

from collections import Counter

import pytest
import yaml

from service.decision.records import ErasureRecord, ShadowRecord
from service.errors import NotReady
from service.registry import Registry
from training.decision_log import read_decisions
from training.experiments import experiments
from training.live_log import write_segment
from training.shadowing import shadow_report
from training.whatif import Draft, what_if

LATER = 1e11


@pytest.fixture
def records(own_busy_home):
    return [logged.record for logged in read_decisions(own_busy_home)]


def erase(home, records, every: int) -> list:
    """One customer of so many; the decisions that are left."""
    gone = set(sorted({r.customer_id for r in records})[::every])
    write_segment(home, "erasures", "test", [ErasureRecord(name, LATER) for name in gone], LATER)
    return [r for r in records if r.customer_id not in gone]


def test_a_what_if_counts_the_others(own_busy_home, records):
    """In one process and in two."""
    document = yaml.safe_load((own_busy_home / "busy.yaml").read_text())
    draft = Draft(document, Registry(own_busy_home / "registry").current().champion)
    left = erase(own_busy_home, records, 2)
    assert 0 < len(left) < len(records)
    assert [what_if(own_busy_home, draft, "click", processes=n).decisions for n in (1, 2)] == [len(left)] * 2


def test_an_experiment_has_the_others_in_its_arms(own_busy_home, records):
    """Decisions of each arm, and nobody at all once all are gone."""
    left = erase(own_busy_home, records, 3)
    expected = Counter(r.experiment.arm for r in left if r.experiment is not None)
    told = {arm.arm: arm.decisions for report in experiments(own_busy_home, "click") for arm in report.arms}
    assert {arm: told[arm] for arm in expected} == expected
    erase(own_busy_home, records, 1)
    with pytest.raises(NotReady):
        experiments(own_busy_home, "click")


def test_a_shadow_was_asked_about_the_others(own_busy_home, records):
    """Its own records name no customer: they follow the decision."""
    [bundle] = Registry(own_busy_home / "registry").bundles()
    shadows = [ShadowRecord(r.decision_id, bundle, r.at, 0.5) for r in records]
    write_segment(own_busy_home, "shadows", "test", shadows, LATER)
    left = erase(own_busy_home, records, 2)
    assert shadow_report(own_busy_home, bundle, LATER).decisions == len(left)
