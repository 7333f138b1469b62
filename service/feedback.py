"""What came of decisions: on disk first, then known to the next decision."""

from collections.abc import Sequence

from service.catalog.policies import Budget, counted_once
from service.decision.records import OutcomeRecord
from service.errors import DependencyFailed, NotReady
from service.pipeline import Parts
from service.ports import Acknowledgement


async def take_outcomes(parts: Parts, records: Sequence[OutcomeRecord]) -> Acknowledgement:
    """Write outcomes down and add them to their customers' contacts. Raises LogUnavailable, having acknowledged nothing.

    Late ones are written down only: whether one was added before, nobody knows any more.
    """
    done = await parts.log.append_outcomes(records)
    timely = [record for record in done.new if not record.late]
    if timely:
        try:
            await (parts.outcome_history or parts.history).record(timely, _budgets(parts))
        except DependencyFailed:
            parts.metrics.forgotten.inc(len(timely))
    return done


def _budgets(parts: Parts) -> tuple[Budget, ...]:
    """Those that impressions use up, of any arm; none before there is a catalog."""
    try:
        return counted_once(parts.engine().budgets)
    except NotReady:
        return ()
