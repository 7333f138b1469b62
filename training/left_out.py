"""Whom nobody learns from: customers who were erased, and those who said that they do not want to be known."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.catalog.consenting import profile_purposes
from service.decision.records import ConsentRecord
from service.registry import Registry
from training.event_history import is_erased, read_aliases, read_erasures
from training.live_log import read_log

NEVER = float("-inf")


class LeftOut(NamedTuple):
    """`denied`: ids whose customers do not want to be known; `erased`: by id, until when nothing counts, seconds since 1970."""

    denied: frozenset[str]
    erased: Mapping[str, float]

    def has(self, customer_id: str, at: float) -> bool:
        """Whether what was decided then does not count."""
        return customer_id in self.denied or is_erased(self.erased, customer_id, at)

    def mask(self, customer_id: npt.NDArray[np.str_], at: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """The rows that do not count: (rows,). `at`: when each was decided, seconds since 1970 UTC."""
        out = np.isin(customer_id, list(self.denied)) if self.denied else np.zeros(len(customer_id), np.bool_)
        if self.erased:
            rows = np.flatnonzero(np.isin(customer_id, list(self.erased)))
            out[rows] |= at[rows] <= [self.erased[name] for name in customer_id[rows].tolist()]
        return out

    def without(self, table: pa.Table) -> pa.Table:
        """Logged decisions, those that do not count left out. Columns `customer_id` and `decided_at`."""
        if not (self.denied or self.erased) or not table.num_rows:
            return table
        at = table["decided_at"].cast(pa.int64()).to_numpy() / 1e6
        return table.filter(pa.array(~self.mask(np.array(table["customer_id"].to_pylist(), np.str_), at)))


def left_out(home: Path) -> LeftOut:
    """As log and current catalog have it now: all ids of a customer are meant, whichever of them said it."""
    aliases, erased, purposes = read_aliases(home), read_erasures(home), _profile_purposes(home)
    said = (r for r in read_log(home, "consents", ConsentRecord) if not is_erased(erased, r.customer_id, r.at))
    denied = set(_denied((r for r in said if r.purpose in purposes), aliases)) if purposes else set()
    ids = {alias for alias, customer in aliases.items() if customer in denied}
    return LeftOut(frozenset(denied | ids), erased)


def _profile_purposes(home: Path) -> frozenset[str]:
    registry = Registry(home / "registry")
    revision = registry.current().catalog
    return frozenset() if revision is None else profile_purposes(registry.catalog(revision).document)


def _denied(said: Iterable[ConsentRecord], aliases: Mapping[str, str]) -> Iterable[str]:
    """Customers whose last word on one of the purposes was no; of a yes and a no at one moment, the no."""
    latest: dict[tuple[str, str], tuple[float, bool]] = {}
    for record in said:
        key = aliases.get(record.customer_id, record.customer_id), record.purpose
        latest[key] = max(latest.get(key, (NEVER, False)), (record.at, not record.given))
    return (customer for (customer, _), (_, is_denied) in latest.items() if is_denied)
