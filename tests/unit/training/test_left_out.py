"""From whom nobody learns: who does not want to be known, and who was erased."""

import msgspec
import numpy as np
import pytest
import yaml

from features.homes import home_contract
from service.bundles.loading import read_manifest
from service.catalog.policies import DECISIONS, Budget
from service.cli import main
from service.decision.contacts import encode_contacts
from service.decision.records import ConsentRecord, ErasureRecord, IdentityRecord, OutcomeRecord, ShadowRecord
from service.errors import NotReady
from service.ids import customer_key, new_decision_id
from service.registry import Registry
from service.stores.contact_history import as_contact
from training.decision_log import read_decisions
from training.examples import Examples, Objective, load_examples
from training.experiments import experiments
from training.frames import load_decisions
from training.left_out import left_out
from training.live_log import write_segment
from training.rebuild import budget_counts, contacts_in
from training.shadowing import shadow_report
from training.whatif import Draft, what_if

CONSENT = {"profiling": {"needed_for": "profile", "unless_said": "given"}, "mail": {"needed_for": {"kinds": ["offer"]}}}
LONG_AGO, NOW = 1.0, 4e9  # before and after every decision


@pytest.fixture
def home(own_busy_home):
    """The busy shop, whose catalog has a purpose without which customers are not known."""
    document = {**yaml.safe_load((own_busy_home / "busy.yaml").read_text()), "consent": CONSENT}
    (own_busy_home / "consenting.yaml").write_text(yaml.safe_dump(document))
    assert main(["--home", str(own_busy_home), "catalog", "publish", str(own_busy_home / "consenting.yaml")]) == 0
    return own_busy_home


def examples(home) -> Examples:
    return load_examples(home, Objective("click"), home_contract(home))


def said(home, *words: tuple[str, bool, float], purpose: str = "profiling") -> None:
    write_segment(home, "consents", "tests", [ConsentRecord(name, purpose, given, at, at) for name, given, at in words], NOW)


def most_frequent(found: Examples) -> list[str]:
    names, counts = np.unique(found.customer_id, return_counts=True)
    return names[np.argsort(-counts, kind="stable")].tolist()


def test_the_last_word_on_being_known_counts(home):
    """A no leaves out all of a customer's rows, a yes after it none, and another purpose is about something else."""
    everybody = examples(home)
    first, second, third, fourth = most_frequent(everybody)[:4]
    said(home, (first, False, 5.0), (second, False, 5.0), (second, True, 6.0), (third, True, 7.0), (third, False, 7.0))
    assert left_out(home).denied == {first, third}
    write_segment(home, "consents", "mail", [ConsentRecord(fourth, "mail", given=False, at=9.0, received_at=9.0)], NOW)
    found = examples(home)
    gone = np.isin(everybody.customer_id, [first, third])
    assert (found.left_out, len(found)) == (gone.sum(), (~gone).sum())
    assert found.decision_id.to_pylist() == everybody.decision_id.filter(~gone).to_pylist()
    assert found.fingerprint != everybody.fingerprint


def test_every_id_of_a_customer_is_meant(home):
    """Whichever of them said it, and whichever stands in the log."""
    first, second, *_ = most_frequent(examples(home))
    write_segment(home, "identities", "tests", [IdentityRecord(first, second, 2.0), IdentityRecord("a-9", second, 2.0)], NOW)
    said(home, ("a-9", False, 5.0))
    assert left_out(home).denied == {first, second, "a-9"}
    assert not np.isin(examples(home).customer_id, [first, second]).any()


def test_without_such_a_purpose_nobody_is_asked(own_busy_home):
    """A word on something that the catalog does not have changes nothing."""
    before = len(examples(own_busy_home))
    said(own_busy_home, (most_frequent(examples(own_busy_home))[0], False, 5.0))
    assert len(examples(own_busy_home)) == before


def test_what_was_logged_until_an_erasure_is_left_out(home):
    """Later rows are of somebody new; so is what they said."""
    everybody = examples(home)
    name = most_frequent(everybody)[0]
    moments = np.sort(everybody.decided_at[everybody.customer_id == name])
    said(home, (name, False, 2.0))
    write_segment(home, "erasures", "tests", [ErasureRecord(name, LONG_AGO), ErasureRecord(name, float(moments[1]))], NOW)
    found = examples(home)
    assert found.left_out == 2
    assert np.sort(found.decided_at[found.customer_id == name]).tolist() == moments[2:].tolist()


def test_notebooks_see_what_the_training_sees(home):
    """`load_decisions()` leaves out the same rows, whole and in batches."""
    name = most_frequent(examples(home))[0]
    rows = load_decisions(home, as_="pandas")
    write_segment(home, "erasures", "tests", [ErasureRecord(name, NOW)], NOW)
    found = load_decisions(home, as_="pandas")
    assert set(rows["customer_id"]) - set(found["customer_id"]) == {name}
    assert len(found) == (rows["customer_id"] != name).sum()
    assert load_decisions(home).read_all().num_rows == len(found)


def test_drafts_and_shadows_are_not_judged_by_who_does_not_want_to_be_known(home):
    """A model would be asked about them, or was; in one process and in two."""
    records = [logged.record for logged in read_decisions(home)]
    [bundle] = Registry(home / "registry").bundles()
    write_segment(home, "shadows", "tests", [ShadowRecord(r.decision_id, bundle, r.at, 0.5) for r in records], NOW)
    gone = set(sorted({r.customer_id for r in records})[::2])
    said(home, *((name, False, 5.0) for name in gone))
    left = sum(r.customer_id not in gone for r in records)
    draft = Draft(yaml.safe_load((home / "busy.yaml").read_text()), bundle)
    assert 0 < left < len(records)
    assert [what_if(home, draft, "click", processes=n).decisions for n in (1, 2)] == [left] * 2
    assert shadow_report(home, bundle, NOW).decisions == left


def test_arms_that_chance_gave_keep_who_said_no_since(home):
    """An arm that drives customers to say no would look better without them."""
    before = experiments(home, "click")
    said(home, *((name, False, 5.0) for name in most_frequent(examples(home))[:20]))
    assert experiments(home, "click") == before


def test_contacts_of_before_an_erasure_are_not_rebuilt(home):
    """Neither what was served nor what came of a decision whose id leads to the customer; nobody else loses any."""
    name = most_frequent(examples(home))[0]
    decision_id = new_decision_id("erased-1")
    write_segment(home, "outcomes", "tests", [OutcomeRecord("o-1", decision_id, "click", 5.0, 5.0, "hero", "a")], NOW)
    before = contacts_in(home)
    assert {customer_key(name), customer_key("erased-1")} <= before.keys()
    write_segment(home, "erasures", "tests", [ErasureRecord(one, NOW) for one in (name, "erased-1")], NOW)
    assert before.keys() - contacts_in(home).keys() == {customer_key(name), customer_key("erased-1")}


def test_contacts_are_rebuilt_by_whom_a_decision_was_made_for(home):
    """Also where its client chose an id that looks like one of the service's, and leads to somebody else or nobody."""
    logged = next(logged.record for logged in read_decisions(home))
    decision = msgspec.structs.replace(logged, decision_id=new_decision_id("nobody"), customer_id="somebody")
    write_segment(home, "decisions", "tests", [decision], NOW)
    clicked = OutcomeRecord("o-1", decision.decision_id, "click", decision.at + 5.0, decision.at + 5.0, "hero", "a")
    write_segment(home, "outcomes", "tests", [clicked], NOW)
    found = contacts_in(home)
    assert customer_key("nobody") not in found
    assert found[customer_key("somebody")].endswith(encode_contacts([as_contact(clicked)]))


def test_what_an_erased_customer_took_of_a_budget_stays_taken(home):
    """It was spent; only whose it was is forgotten."""
    record = next(logged.record for logged in read_decisions(home) if not logged.record.placements[0].fallback)
    name, served = record.customer_id, record.placements[0].items[0].action_id
    budgets = [Budget("gifts", served, at_most=10_000, per_day=False, count=DECISIONS)]
    before = budget_counts(home, budgets)
    write_segment(home, "erasures", "tests", [ErasureRecord(name, NOW)], NOW)
    assert name not in {logged.record.customer_id for logged in read_decisions(home)}
    assert budget_counts(home, budgets) == before


def test_where_nobody_is_left_there_is_nothing_to_learn_from(home):
    """And the error says why."""
    names = set(examples(home).customer_id.tolist())
    write_segment(home, "erasures", "tests", [ErasureRecord(name, NOW) for name in names], NOW)
    with pytest.raises(NotReady, match="only those of customers who were erased or do not want to be known"):
        examples(home)


def test_the_card_says_how_many_rows_were_left_out(home, capsys):
    """On the command line and in the manifest; without any it says nothing."""
    name = most_frequent(examples(home))[0]
    rows = int((examples(home).customer_id == name).sum())
    write_segment(home, "erasures", "tests", [ErasureRecord(name, NOW)], NOW)
    before = set(Registry(home / "registry").bundles())
    assert main(["--home", str(home), "train", "--objective", "click"]) == 0
    assert f"left out: {rows:,} rows of customers who were erased or do not want to be known" in capsys.readouterr().out
    [trained] = set(Registry(home / "registry").bundles()) - before
    assert read_manifest(Registry(home / "registry").bundle_folder(trained)).metrics["left_out"] == rows
    assert all("left_out" not in read_manifest(Registry(home / "registry").bundle_folder(one)).metrics for one in before)
