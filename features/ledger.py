"""What happened to customers, sorted so that questions about any moment are answered for a whole batch at once.

A ledger never looks past the moment that it is asked about.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

DAY = 86_400.0  # seconds

Values = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


class Ledger(NamedTuple):
    """Entries by customer, and by moment within a customer.

    `customers`: their ids, sorted. `starts`: where each one's entries begin, and where the last one's end: (customers + 1,).
    `at`: seconds since 1970 UTC; `amount`: zero where an entry has none: (entries,). `first_of_day`: no entry of the same
    customer on the same day (UTC) comes before.
    """

    customers: pa.Array
    starts: Places
    at: Values
    amount: Values
    first_of_day: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, customers: pa.Array | pa.ChunkedArray, at: Values, amount: Values) -> Self:
        """From entries in any order. A million of them take 0.9 s."""
        names = pc.unique(customers).sort()
        codes = pc.index_in(customers, names).to_numpy()
        order = np.lexsort((at, codes))
        codes, at = codes[order], at[order]
        days = np.floor(at / DAY)
        same = (codes[1:] == codes[:-1]) & (days[1:] == days[:-1])
        starts = np.searchsorted(codes, np.arange(len(names) + 1))
        money = np.nan_to_num(amount[order], nan=0.0, posinf=0.0, neginf=0.0)
        return cls(names, starts, at, money, np.concatenate([np.ones(min(1, len(at)), np.bool_), ~same]))

    def codes(self, customers: Sequence[str] | pa.Array | pa.ChunkedArray) -> Places:
        """The place of each customer among `customers`; -1 where nothing is known of one: (asked,)."""
        asked = customers if isinstance(customers, pa.Array | pa.ChunkedArray) else pa.array(customers, pa.string())
        found: Places = pc.fill_null(pc.index_in(asked, self.customers), -1).to_numpy().astype(np.int64)
        return found

    def until(self, codes: Places, moments: Values) -> Places:
        """How far each one's entries go by a moment, that moment included: the place after the last, (asked,).

        Bisection for all at once: 20 steps where a customer has a million entries.
        """
        low, high = self.starts[codes], np.where(codes < 0, self.starts[codes], self.starts[codes + 1])
        low, high = low.copy(), np.maximum(high, low)
        while (open_ := np.flatnonzero(low < high)).size:
            middle = (low[open_] + high[open_]) // 2
            passed = self.at[middle] <= moments[open_]
            low[open_[passed]] = middle[passed] + 1
            high[open_[~passed]] = middle[~passed]
        return low

    def days(self, begin: Places, end: Places) -> Values:
        """Different days with entries in each span of places: (asked,)."""
        counted = np.concatenate([[0], np.cumsum(self.first_of_day)])
        inside = begin < end
        cut = inside & ~self.first_of_day[np.minimum(begin, max(len(self.at) - 1, 0))] if len(self.at) else inside
        days: Values = np.where(inside, counted[end] - counted[begin] + cut, 0).astype(np.float64)
        return days

    def total(self, begin: Places, end: Places) -> Values:
        """The sum of the amounts in each span of places: (asked,)."""
        padded = np.append(self.amount, 0.0)
        sums = np.add.reduceat(padded, np.stack([begin, end], axis=1).reshape(-1))[::2] if len(begin) else np.zeros(0)
        totals: Values = np.where(begin < end, sums, 0.0)  # reduceat gives an element for an empty span
        return totals
