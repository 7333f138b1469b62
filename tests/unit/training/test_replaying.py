"""Logged decisions are made again from record, catalog and bundle, and every difference is found."""

import shutil

import msgspec
import pytest
import yaml

from service.cli import main
from service.decision.again import encode_record
from service.decision.experiments import Assigned
from service.decision.records import DecisionRecord, decode_lines, encode_line
from service.errors import UnknownDecision
from service.registry import Registry
from training.decision_log import find_decision, read_decisions, read_decisions_of
from training.fit import FitSettings
from training.learn import train
from training.live_log import segments
from training.promotion import promote_without_evidence
from training.replay import replay


def rewrite(home, change) -> str:
    """Change the first decision with an offer by `change(record)`, checksum and all; its id."""
    [path] = segments(home, "decisions")
    payloads = [line.payload for line in decode_lines(path.read_bytes())]
    for number, payload in enumerate(payloads):
        record = msgspec.json.decode(payload, type=DecisionRecord)
        if not record.placements[0].fallback:
            payloads[number] = encode_record(change(record))
            path.write_bytes(b"".join(map(encode_line, payloads)))
            return record.decision_id
    raise AssertionError


def test_every_decision_is_the_same_after_catalog_and_bundle_have_moved_on(own_busy_home):
    """The versions that made them are still there, and those are what is used."""
    document = yaml.safe_load((own_busy_home / "busy.yaml").read_text())
    document["groups"][0]["lever"] = 3
    (own_busy_home / "next.yaml").write_text(yaml.safe_dump(document))
    assert main(["--home", str(own_busy_home), "catalog", "publish", str(own_busy_home / "next.yaml")]) == 0
    promote_without_evidence(own_busy_home, train(own_busy_home, "click", settings=FitSettings(seed=5)), "another")
    report = replay(own_busy_home)
    assert (report.decisions, report.identical, report.different, report.impossible) == (3000, 3000, 0, 0)
    assert report.holds


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: {"customer": {**r.customer, "visits_30d": r.customer.get("visits_30d", 0.0) + 1e-6}}, "seal"),
        (lambda r: {"customer": {k: v for k, v in r.customer.items() if k != "age"}}, "placements"),
        (lambda r: {"context": {**r.context, "device": "a fridge"}}, None),
        (lambda r: {"at": r.at + 1.0}, "seal"),
        (lambda _: {"experiment": Assigned("levels", "no such customer")}, None),
        (lambda r: {"exclude_actions": (r.placements[0].items[0].action_id,)}, "placements"),
        (lambda r: {"placements": (msgspec.structs.replace(r.placements[0], utilities_spelt=msgspec.UNSET),)}, "placements"),
    ],
    ids=["a feature, a little", "a feature, gone", "context", "moment", "arm", "request", "utilities"],
)
def test_a_record_that_somebody_changed_is_found(own_busy_home, change, field):
    """Also where the decision does not depend on it: the record is sealed. Only that one is different."""
    changed = rewrite(own_busy_home, lambda record: msgspec.structs.replace(record, **change(record)))
    report = replay(own_busy_home)
    assert (report.identical, report.different) == (2999, 1)
    [found] = report.mismatches
    assert found.decision_id == changed
    assert field in (None, found.field)


def test_only_the_decisions_of_the_span_are_made_again(busy_home):
    """`start` is in it, `end` is not."""
    moments = sorted(logged.record.at for logged in read_decisions(busy_home))
    report = replay(busy_home, moments[100], moments[400])
    assert (report.decisions, report.identical) == (300, 300)


def test_a_bundle_that_is_gone_makes_a_replay_impossible_and_says_so(own_busy_home):
    """Not identical, not different: nobody can tell."""
    [bundle] = Registry(own_busy_home / "registry").bundles()
    shutil.rmtree(own_busy_home / "registry" / "bundles" / bundle)
    report = replay(own_busy_home)
    assert (report.impossible, report.identical, report.holds) == (3000, 0, False)
    assert any(bundle in reason for reason in report.reasons)


def test_nothing_logged_holds_nothing(trained_home):
    """An empty log proves nothing."""
    assert not replay(trained_home).holds


def test_a_decision_is_found_by_its_id_or_named_as_unknown(busy_home):
    """Whole ids only: `busy-1` is not `busy-12`."""
    assert find_decision(busy_home, "busy-1").decision_id == "busy-1"
    with pytest.raises(UnknownDecision, match="`busy-`"):
        find_decision(busy_home, "busy-")


def test_a_line_that_is_no_decision_is_passed_over_where_ids_are_looked_for(own_busy_home):
    """Its checksum holds, and it says something else: a batch that was interrupted goes on all the same."""
    [path] = segments(own_busy_home, "decisions")
    path.write_bytes(b"".join(map(encode_line, (b"[1]", b'{"decision_id":7}', b"{}"))) + path.read_bytes())
    assert [record.decision_id for record in read_decisions_of(own_busy_home, {"busy-3", "nobody"})] == ["busy-3"]


def test_damaged_lines_are_passed_over(own_busy_home):
    """One bit: one decision fewer, and the others are read."""
    [path] = segments(own_busy_home, "decisions")
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(bytes(data))
    assert len(list(read_decisions(own_busy_home))) == 2999
