"""What a call is told of ids that stood for something else before."""

from collections.abc import Sequence

from service.api.wire import Rejection
from service.errors import IdReused, id_reused


def all_rejected(
    rejected: Sequence[Rejection], reused: Sequence[int], ids: Sequence[str], field: str, *, alone: bool = True
) -> tuple[Rejection, ...]:
    """Every rejection of a call, by index. `ids`: of those that were taken, in order; `reused` counts among them.

    Raises IdReused where the call holds nothing else, unless something beside it has to be answered: then it is not `alone`.
    """
    refused = {rejection.index for rejection in rejected}
    positions = [index for index in range(len(ids) + len(refused)) if index not in refused]
    added = [Rejection(positions[index], id_reused(field, ids[index])) for index in reused]
    if alone and added and len(added) == len(ids) and not refused:
        raise IdReused([rejection.error for rejection in added])
    return tuple(sorted([*rejected, *added], key=lambda rejection: rejection.index))
