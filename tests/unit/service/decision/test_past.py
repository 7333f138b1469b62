"""Histories in terms of a catalog: C says what numpy says, entry by entry, and refuses what does not fit."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.catalog.policies import Cap, Selector
from service.decision.contacts import CANCELLED, IMPRESSION, SERVED, Contact, encode_contacts, type_code
from service.decision.entities import CustomerState
from service.decision.limits import ScopeMaker
from service.decision.past import IS_BUILT, Reader, _contacts

NOW, DAY, RESERVATION = 1_790_000_000.0, 86_400.0, 900.0
IDS = ("gold", "silver", "loan")
PLACES = ("hero", "side")
TYPES = (SERVED, CANCELLED, IMPRESSION, type_code("click"), type_code("unsubscribe"))

contacts = st.lists(
    st.builds(
        Contact,
        at=st.sampled_from([NOW - age for age in (0, 1, RESERVATION - 1, RESERVATION, DAY - 1, DAY, 8 * DAY)]),
        action_id=st.sampled_from([*IDS, "gone"]), decision_id=st.sampled_from(["d1", "d2"]),
        placement=st.sampled_from([*PLACES, "closed"]), type=st.sampled_from(TYPES),
    ),
    max_size=12,
)  # fmt: skip
histories = st.lists(st.none() | st.tuples(contacts, st.integers(0, 15)), min_size=1, max_size=4)


def catalog_of(tiny):
    """Three actions, and two placements on two channels."""
    actions = [tiny.action(name, group="cards" if name != "loan" else "loans") for name in IDS]
    return actions, [tiny.placement(), tiny.placement("side", channel="email")]


def batch(tiny, found):
    """Requests of customers with these histories, a cut-off entry at the end of each."""
    states = [None if told is None else encode_contacts(told[0]) + told[1] * b"x" for told in found]
    return [tiny.request(f"d{n}", at=NOW + n, state=CustomerState({}, contacts=state)) for n, state in enumerate(states)]


@pytest.mark.skipif(not IS_BUILT, reason="without a compiler there is nothing to compare")
@pytest.mark.parametrize("reads_placements", [True, False])
@given(found=histories)
def test_c_and_numpy_read_the_same(tiny, reads_placements, found):
    """Whatever was served, taken back, shown, at the edges of windows, of actions and placements that are gone."""
    actions, placements = catalog_of(tiny)
    readers = [Reader(actions, placements if reads_placements else None, RESERVATION, native=native) for native in (True, False)]
    in_c, in_numpy = (reader.past(batch(tiny, found)) for reader in readers)
    for name, mine, theirs in zip(in_c._fields, in_c, in_numpy, strict=True):
        assert mine.tolist() == theirs.tolist(), name
    assert [one.dtype for one in in_c] == [one.dtype for one in in_numpy]


@pytest.mark.skipif(not IS_BUILT, reason="without a compiler there is nothing to compare")
@pytest.mark.parametrize("count", ["decisions", "impressions", "clicks", "outcomes", "unsubscribe"])
@given(
    found=histories,
    per=st.sampled_from(["action", "group", "channel", "everything"]),
    where=st.sampled_from([Selector(), Selector(actions=("gold",)), Selector(placements=("side",))]),
)
def test_c_and_numpy_leave_the_same(tiny, count, found, per, where):
    """Of each unit, for each customer."""
    actions, placements = catalog_of(tiny)
    cap, scope = Cap("cap", 2, per, DAY, count, where), ScopeMaker(actions, placements).scope(where, per)
    left = []
    for native in (True, False):
        reader, asked = Reader(actions, placements, RESERVATION, native=native), batch(tiny, found)
        left.append(reader.limit(cap, scope, reader.past(asked), len(asked)))
    assert left[0]._left.tolist() == left[1]._left.tolist()
    assert left[0].is_reached == bool((left[1]._left <= 0).any())


def test_where_there_is_a_compiler_it_was_built():
    """Else nobody would notice that decisions take longer."""
    assert IS_BUILT or not (shutil.which("cc") or shutil.which("gcc"))


def reading(entries: int = 1, **changed):
    """What C is given for one customer with one contact."""
    given = {
        "histories": [16 * b"x"], "ats": np.array([NOW]), "actions": np.array([1, 2]), "places": np.array([0, 1]),
        "starts": np.array([0, 2]), "placements": np.array([1]), "places too": np.array([0]), "starts too": np.array([0, 1]),
        "reservation": RESERVATION, "row": np.empty(entries, np.intp), "age": np.empty(entries),
        "action": np.empty(entries, np.intp), "placement": np.empty(entries, np.intp), "type": np.empty(entries, np.uint16),
        "pending": np.empty(entries, np.bool_), "served": np.empty(entries, np.bool_),
    }  # fmt: skip
    return tuple((given | changed).values())


@pytest.mark.skipif(not IS_BUILT, reason="without a compiler there is nothing to call")
@pytest.mark.parametrize(
    "changed",
    [
        {"histories": []}, {"histories": [32 * b"x"]}, {"histories": [b""]}, {"histories": ["x"]}, {"ats": np.zeros(2)},
        {"row": np.empty(0, np.intp)}, {"age": np.empty(0)}, {"action": np.empty(0, np.intp)}, {"type": np.empty(0, np.uint16)},
        {"placement": np.empty(2, np.intp)}, {"served": np.empty(0, np.bool_)}, {"actions": np.empty(0, np.int64)},
        {"places": np.empty(0, np.intp)}, {"starts": np.array([0, 2, 2])},
        {"starts": np.empty(0, np.intp)}, {"starts": np.array([0])},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changed):
    """Before anything is written beyond an end."""
    _contacts.read(*reading())
    with pytest.raises((ValueError, TypeError)):
        _contacts.read(*reading(**changed))


def counting(**changed):
    given = {
        "what": 0, "type": 3, "window": DAY, "row": np.zeros(1, np.intp), "age": np.zeros(1), "unit": np.zeros(1, np.intp),
        "types": np.ones(1, np.uint16), "pending": np.ones(1, np.bool_), "served": np.ones(1, np.bool_), "units": 2,
        "left": np.full((1, 2), 3, np.int64),
    }  # fmt: skip
    return tuple((given | changed).values())


@pytest.mark.skipif(not IS_BUILT, reason="without a compiler there is nothing to call")
def test_starts_that_lie_outside_lead_nowhere():
    """Nothing is read beyond an end."""
    for outside in (-1, 3, 2**40):
        given = reading(starts=np.array([outside, outside]))
        _contacts.read(*given)
        assert given[11].tolist() == [2]


@pytest.mark.skipif(not IS_BUILT, reason="without a compiler there is nothing to call")
@pytest.mark.parametrize(
    "changed",
    [
        {"row": np.ones(1, np.intp)}, {"row": np.full(1, -1, np.intp)}, {"unit": np.full(1, 2, np.intp)},
        {"unit": np.full(1, -2, np.intp)}, {"units": 0}, {"age": np.zeros(2)}, {"types": np.ones(2, np.uint16)},
        {"served": np.ones(2, np.bool_)}, {"left": np.zeros(0, np.int64)}, {"row": np.zeros(2, np.intp)},
    ],
)  # fmt: skip
def test_what_counts_nowhere_is_refused(changed):
    """Before anything is counted elsewhere."""
    given = counting()
    _contacts.count(*given)
    assert given[-1].tolist() == [[2, 3]]
    with pytest.raises(ValueError, match="Expected as much of each entry"):
        _contacts.count(*counting(**changed))
