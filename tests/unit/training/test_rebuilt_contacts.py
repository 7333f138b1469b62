"""What the log says of contacts, joined with what Redis holds."""

import msgspec

from service.catalog.policies import DECISIONS, Budget
from service.decision.contacts import CANCELLED, IMPRESSION, KEPT_BYTES, SERVED, SIZE, TYPES, Contact, compacted, encode_contacts
from service.decision.records import DecisionRecord, OutcomeRecord, PlacementRecord, ServedItem, Versions
from training.decision_log import read_decisions
from training.live_log import write_segment
from training.rebuild import budget_counts, contacts_in, joined, logged_contacts


def entries(*contacts: tuple[float, int]) -> bytes:
    return encode_contacts(Contact(1e9 + at, "gold", "d1", "hero", kind) for at, kind in contacts)


def test_a_decision_that_was_claimed_at_one_moment_and_logged_at_another_counts_once():
    """Its process died in between, and it was made again; what came of it is joined by moment."""
    assert joined(entries((5, SERVED)), entries((1, SERVED), (9, IMPRESSION))) == entries((1, SERVED), (9, IMPRESSION))
    assert joined(entries((5, SERVED), (9, IMPRESSION)), b"") == entries((5, SERVED), (9, IMPRESSION))


def test_what_was_taken_back_and_then_logged_counts():
    """Younger than what took it back, in the same second too."""
    before = entries((1, SERVED), (1, CANCELLED))
    assert joined(entries((1, SERVED)), before) == before + entries((2, SERVED))
    assert joined(entries((7, SERVED)), before) == before + entries((7, SERVED))


def test_a_decision_that_two_workers_wrote_counts_once(own_busy_home):
    """Told of its id at the same moment, they both write it: it was shown once, a second later or not, and took a budget once."""
    first = next(logged.record for logged in read_decisions(own_busy_home) if not logged.record.placements[0].fallback)
    budgets = [Budget("gifts", first.placements[0].items[0].action_id, at_most=10_000, per_day=False, count=DECISIONS)]
    before = budget_counts(own_busy_home, budgets), logged_contacts(own_busy_home)
    write_segment(own_busy_home, "decisions", "other", [msgspec.structs.replace(first, at=first.at + 1.0)], 1e11)
    assert (budget_counts(own_busy_home, budgets), logged_contacts(own_busy_home)) == before


def test_two_outcomes_of_one_second_stay_two():
    """They look alike: a cool-down after two dismissals counts both. Which of the two histories has them does not matter."""
    dismissed = 9, TYPES["dismiss"]
    both = entries((5, SERVED), dismissed, dismissed)
    for rebuilt, added in ((both, b""), (b"", both), (both, both), (both, entries((5, SERVED), dismissed))):
        assert joined(rebuilt, added) == both
    assert joined(entries((5, SERVED), dismissed), both) == both


def test_a_rebuild_keeps_what_a_history_keeps(tmp_path):
    """A dismissal outlives what was shown after it, in what the log says and in what is joined."""
    items = tuple(ServedItem(n, f"a{n}", "", "offer", 0.1, 1.0, 0.1, explored=False) for n in range(1, 51))
    placements = (PlacementRecord("hero", 50, items, fallback=False),)
    pages = [DecisionRecord(f"d{n}", "c1", 1e9 + 60 * n, {}, {}, placements, Versions(1, None, "x")) for n in range(12)]
    write_segment(tmp_path, "decisions", "tests", pages, 1e9)
    write_segment(tmp_path, "outcomes", "tests", [OutcomeRecord("o1", "d0", "dismiss", 1e9, 1e9, "hero", "a1")], 1e9)
    [logged] = contacts_in(tmp_path).values()
    assert logged[:SIZE] == encode_contacts([Contact(1e9, "a1", "d0", "hero", TYPES["dismiss"])])
    assert len(logged) == SIZE + KEPT_BYTES
    dismissal = entries((1, TYPES["dismiss"]))
    shown = b"".join(encode_contacts([Contact(1e9 + at, "gold", f"d{at}", "hero", SERVED)]) for at in range(2, 500))
    kept = compacted(dismissal + shown)
    assert kept == dismissal + shown[-KEPT_BYTES:]
    assert joined(dismissal + shown, kept) == kept
