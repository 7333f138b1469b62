"""Which ids are the same customer: for every decision and event to come, and on disk before it is acknowledged."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from service.decision.records import IdentityRecord
from service.ports import KNOWN, LINKED, TAKEN, DecisionLog, Identities

REMEMBERED = 10_000  # links that were written down lately


class Linked(NamedTuple):
    """What became of links: how many are new, how many were known; aliases of somebody else, by their place in the call."""

    linked: int
    known: int
    taken: list[int]


@dataclass(slots=True)
class IdentityIntake:
    """Takes links. `clock` tells seconds since 1970 UTC."""

    log: DecisionLog
    store: Identities
    clock: Callable[[], float]
    _written: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)

    async def take(self, links: Sequence[tuple[str, str]]) -> Linked:
        """(alias, customer) each. Raises LogUnavailable, and DependencyFailed; sending them again is harmless.

        A link that was known is written down, too, unless it was lately: whoever made it may not have come so far. A new
        one always is: it may have been taken back since.
        """
        answers = [await self.store.link(alias, customer) for alias, customer in links]
        valid = [(link, answer) for link, answer in zip(links, answers, strict=True) if answer != TAKEN]
        new = list(dict.fromkeys(link for link, answer in valid if answer == LINKED or link not in self._written))
        if new:
            now = self.clock()
            await self.log.append_identities([IdentityRecord(alias, customer, now) for alias, customer in new])
        self._written |= dict.fromkeys(new)
        while len(self._written) > REMEMBERED:
            self._written.popitem(last=False)
        taken = [n for n, answer in enumerate(answers) if answer == TAKEN]
        return Linked(answers.count(LINKED), answers.count(KNOWN), taken)
