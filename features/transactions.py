"""Batch features from transactions: recency, frequency, monetary value, segments, and what is expected of a customer.

Several transactions of one customer on one day (UTC) are one purchase, as the models have it. At a moment, with days and years
counted back from it:

| measure | what |
|---|---|
| `recency_days`, `tenure_days` | since the last transaction, and since the first |
| `frequency` | purchases but for the first |
| `monetary_value` | mean amount of a purchase |
| `purchases_12m`, `spend_12m` | purchases, and amounts, of the last 365 days |
| `recency_score`, `frequency_score`, `monetary_score` | fifths of the customers, 5 is best |
| `rfm_segment` | see `features/segments.py` |
| `p_alive` | the chance that there will be another purchase at all: BG/NBD |
| `expected_purchases` | within the horizon: BG/NBD |
| `expected_spend` | amount of a purchase to come: gamma-gamma |
| `lifetime_value` | margin x spend x purchases within the horizon, discounted by steps of 30 days |

Who has bought nothing by then has no values.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.contract import Contract, FromTransactions
from features.ledger import DAY, Ledger, Places
from features.lifetime import (
    Amounts,
    Purchases,
    TooLittleHistory,
    chance_alive,
    expected_amount,
    expected_purchases,
    fit_amounts,
    fit_purchases,
)  # fmt: skip
from features.segments import fifths, segments

Values = npt.NDArray[np.float64]
Column = Values | list[str]

YEAR = 365 * DAY
WEEK_DAYS = 7.0
STEP_WEEKS = 30 / 7  # of discounting
SCORES = ("recency_score", "frequency_score", "monetary_score", "rfm_segment")
MODELLED = ("p_alive", "expected_purchases", "expected_spend", "lifetime_value")


class Bought(NamedTuple):
    """What customers had bought by a moment: arrays of one length. `age` and `last` in days after the first purchase."""

    recency_days: Values
    tenure_days: Values
    days: Values
    last: Values
    age: Values
    spend: Values
    purchases_12m: Values
    spend_12m: Values

    @property
    def frequency(self) -> Values:
        """Purchases but for the first."""
        return self.days - 1

    @property
    def monetary_value(self) -> Values:
        """Mean amount of a purchase."""
        return self.spend / self.days


class Measured(NamedTuple):
    """Features of the rows asked for, null where missing; and what could not be worked out, in words."""

    table: pa.Table
    problems: tuple[str, ...]


def transaction_values(contract: Contract, ledger: Ledger, asked: pa.Table) -> Measured:
    """The features of each row of `asked` (`customer_id`, `at` in seconds), in its order, from nothing after its moment.

    What compares customers, or fits a model to them, is worked out once for each different moment, over all who bought by then.
    """
    sources = sources_of(contract)
    codes, moments = ledger.codes(asked["customer_id"]), asked["at"].to_numpy()
    found: dict[str, list[Column]] = {name: [] for name in sources}
    order: list[npt.NDArray[np.intp]] = []
    problems: dict[str, None] = {}
    for moment in np.unique(moments):
        rows = np.flatnonzero(moments == moment)
        crowd = _Crowd(ledger, float(moment))
        mine = crowd.places(codes[rows])
        order.append(rows[mine >= 0])
        for name, source in sources.items():
            found[name].append(_taken(crowd.measure(source), mine[mine >= 0]))
        problems |= dict.fromkeys(crowd.problems)
    columns = {name: _column(parts, order, asked.num_rows) for name, parts in found.items()}
    return Measured(pa.table({"customer_id": asked["customer_id"], "at": asked["at"], **columns}), tuple(problems))


def buyers(ledger: Ledger, moment: float) -> pa.Array:
    """Who has bought by a moment."""
    return ledger.customers.take(pa.array(_Crowd(ledger, moment).codes))


def _taken(column: Column, places: Places) -> Column:
    return [column[place] for place in places.tolist()] if isinstance(column, list) else column[places]


def _column(parts: Iterable[Column], order: list[npt.NDArray[np.intp]], rows: int) -> pa.Array:
    """Parts put where they belong; null elsewhere, and where a number is not finite."""
    texts: list[str | None] = [None] * rows
    numbers = np.full(rows, np.nan)
    is_text = False
    for part, places in zip(parts, order, strict=True):
        if isinstance(part, list):
            is_text = True
            for place, text in zip(places.tolist(), part, strict=True):
                texts[place] = text
        else:
            numbers[places] = part
    return pa.array(texts, pa.string()) if is_text else pa.array(numbers, pa.float64(), mask=~np.isfinite(numbers))


class _Crowd:
    """Everybody who had bought by a moment."""

    def __init__(self, ledger: Ledger, moment: float) -> None:
        everybody = np.arange(len(ledger.customers))
        begin, end = ledger.starts[:-1], ledger.until(everybody, np.full(len(everybody), moment))
        self.codes: Places = np.flatnonzero(begin < end)
        self.bought = _bought(ledger, begin[self.codes], end[self.codes], self.codes, moment)
        self.problems: list[str] = []
        self._purchases: Purchases | None = None
        self._amounts: Amounts | None = None
        self._tried = False
        self._place = np.full(len(ledger.customers) + 1, -1)  # the last one is for customers that nobody knows
        self._place[self.codes] = np.arange(len(self.codes))

    def places(self, codes: Places) -> Places:
        """Where each of some customers stands here; -1 for who had bought nothing."""
        found: Places = self._place[codes]
        return found

    def measure(self, source: FromTransactions) -> Column:
        """One measure of everybody; NaN where there is too little to tell."""
        if source.measure in SCORES:
            return self._scored(source.measure)
        if source.measure in MODELLED:
            return self._modelled(source)
        found: Values = getattr(self.bought, source.measure)
        return found

    def _scored(self, measure: str) -> Column:
        recency, frequency = fifths(-self.bought.recency_days), fifths(self.bought.frequency)
        monetary = fifths(self.bought.monetary_value)
        if measure == "rfm_segment":
            return segments(recency, frequency, monetary, self.bought.frequency)
        return dict(zip(SCORES, (recency, frequency, monetary), strict=False))[measure]

    def _modelled(self, source: FromTransactions) -> Values:
        self._fit()
        x, t_x, age = self.bought.frequency, self.bought.last / WEEK_DAYS, self.bought.age / WEEK_DAYS
        nothing = np.full(len(x), np.nan)
        if source.measure == "p_alive":
            return nothing if self._purchases is None else chance_alive(self._purchases, x, t_x, age)
        amounts = self._amounts
        spend = (
            nothing
            if amounts is None
            else expected_amount(amounts, self.bought.days, np.maximum(self.bought.monetary_value, 0.0))
        )
        if source.measure == "expected_spend":
            return spend
        model = self._purchases
        if model is None:
            return nothing

        def purchases(ahead: float) -> Values:
            return expected_purchases(model, x, t_x, age, ahead)

        horizon = source.horizon / DAY / WEEK_DAYS
        return purchases(horizon) if source.measure == "expected_purchases" else spend * _worth(purchases, horizon, source)

    def _fit(self) -> None:
        """Both models, once."""
        if self._tried:
            return
        self._tried = True
        bought = self.bought
        try:
            self._purchases = fit_purchases(bought.frequency, bought.last / WEEK_DAYS, bought.age / WEEK_DAYS)
        except TooLittleHistory as error:
            self.problems.append(f"no p_alive, expected_purchases, lifetime_value: {error}")
        try:
            self._amounts = fit_amounts(bought.days, bought.monetary_value)
        except TooLittleHistory as error:
            self.problems.append(f"no expected_spend, lifetime_value: {error}")


def _bought(ledger: Ledger, begin: Places, end: Places, codes: Places, moment: float) -> Bought:
    first, last = ledger.at[begin], ledger.at[end - 1]
    born = np.floor(first / DAY)
    year = ledger.until(codes, np.full(len(codes), np.nextafter(moment - YEAR, -np.inf)))
    return Bought(
        recency_days=(moment - last) / DAY, tenure_days=(moment - first) / DAY, days=ledger.days(begin, end),
        last=np.floor(last / DAY) - born, age=np.floor(moment / DAY) - born, spend=ledger.total(begin, end),
        purchases_12m=ledger.days(year, end), spend_12m=ledger.total(year, end),
    )  # fmt: skip


def _worth(purchases: Callable[[float], Values], horizon: float, source: FromTransactions) -> Values:
    """Purchases within the horizon in today's money, per unit of spend: each step discounted to its middle."""
    if source.discount == 0.0:
        return source.margin * purchases(horizon)
    ends = [*np.arange(STEP_WEEKS, horizon, STEP_WEEKS).tolist(), horizon]
    so_far = [purchases(end) for end in ends]
    worth = np.zeros_like(so_far[0])
    for begin, end, before, after in zip([0.0, *ends], ends, [np.zeros_like(worth), *so_far], so_far, strict=False):
        years = (begin + end) / 2 * WEEK_DAYS * DAY / YEAR
        worth += (after - before) * (1 + source.discount) ** -years
    return source.margin * worth


def sources_of(contract: Contract) -> Mapping[str, FromTransactions]:
    """The features that transactions feed, by name."""
    return {f.name: f.transactions for f in contract.features if f.transactions is not None}
