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

        A link that was known is written down, too, unless it was lately: whoever made it may not have come so far. It is written
        as it was made, from the alias to whom it leads: said the other way round, it would make a circle in the log. A new one
        always is: it may have been taken back since.
        """
        answers = [await self.store.link(alias, customer) for alias, customer in links]
        new: dict[tuple[str, str], tuple[str, str]] = {}  # as it was sent: as it is written
        for link, answer in zip(links, answers, strict=True):
            if answer == LINKED:
                new[link] = link
            elif answer == KNOWN and link not in self._written and link not in new:
                alias, owner = link[0], await self.store.owner(link[0])
                if alias != owner:
                    new[link] = alias, owner
        if new:
            now = self.clock()
            records = [IdentityRecord(alias, customer, now) for alias, customer in dict.fromkeys(new.values())]
            await self.log.append_identities(records)
        self._written |= dict.fromkeys(new)
        while len(self._written) > REMEMBERED:
            self._written.popitem(last=False)
        taken = [n for n, answer in enumerate(answers) if answer == TAKEN]
        return Linked(answers.count(LINKED), answers.count(KNOWN), taken)
