"""What customers consent to: on disk first, then obeyed by the next decision of any worker."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from service.decision.engine import Engine
from service.decision.records import ConsentRecord
from service.ports import Consent, Consents, DecisionLog


def purposes_of(engine: Engine) -> tuple[str, ...]:
    """The purposes that the catalog and the catalogs of its arms know."""
    catalogs = (engine.catalog, *(arm.catalog for arm in engine.arms.values()))
    return tuple(dict.fromkeys(purpose.name for catalog in catalogs for purpose in catalog.purposes))


@dataclass(frozen=True, slots=True)
class ConsentIntake:
    """Takes consents and their withdrawals. `purposes` names those of the catalog; `clock` tells seconds since 1970 UTC."""

    log: DecisionLog
    store: Consents
    purposes: Callable[[], Sequence[str]]
    clock: Callable[[], float]

    async def take(self, consents: Sequence[ConsentRecord]) -> None:
        """Write down, then let them hold. Raises LogUnavailable, and DependencyFailed: then they must be sent again.

        What was written down holds after a rebuild in any case.
        """
        if consents:
            await self.log.append_consents(consents)
            await self.store.record(consents)

    async def known(self, customer_id: str) -> Mapping[str, Consent]:
        """What a customer said. Raises DependencyFailed."""
        return await self.store.known(customer_id)
