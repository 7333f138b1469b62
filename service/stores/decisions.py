"""Looking up one decision in the log: a search through its segments, newest first, outside of the hot path."""

from pathlib import Path

import numpy as np

from service.decision import records
from service.decision.records import DecisionRecord
from service.files import Files
from service.stores.id_index import hash_id, read_index
from service.stores.segments import segment_paths


def find_decision(folder: Path, decision_id: str, files: Files | None = None) -> DecisionRecord | None:
    """The decision of this id; None where no segment holds it. With `files` it is on disk when this returns. Raises OSError."""
    newest_first = segment_paths(folder)[::-1]
    likely = [path for path in newest_first if _may_hold(path, decision_id)]
    unlikely = [path for path in newest_first if path not in likely]
    found = (_find_in(path, decision_id, files) for path in (*likely, *unlikely))
    return next((record for record in found if record is not None), None)


def _find_in(path: Path, decision_id: str, files: Files | None) -> DecisionRecord | None:
    try:
        found = records.find_decision(path.read_bytes(), decision_id)
        if found is None or files is None or read_index(path) is not None:
            return found
        files.sync_path(path)  # its writer may still wait for that; where it was refused, it has taken the decision back
        return records.find_decision(path.read_bytes(), decision_id)
    except FileNotFoundError:  # sealed and removed since it was listed
        return None


def _may_hold(path: Path, decision_id: str) -> bool:
    """Its index says so, or it has none. An index may be damaged: those that say no are read last."""
    found = read_index(path)
    if found is None:
        return True
    hashes, hashed = found[1].hashes, np.uint64(hash_id(decision_id))
    at = int(np.searchsorted(hashes, hashed))
    return at < len(hashes) and hashes[at] == hashed
