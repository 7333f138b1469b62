"""Looking up one decision in the log: a search through its segments, newest first, outside of the hot path."""

from pathlib import Path

from service.decision import records
from service.decision.records import DecisionRecord
from service.stores.segments import segment_paths


def find_decision(folder: Path, decision_id: str) -> DecisionRecord | None:
    """The decision of this id; None where no segment holds it."""
    found = (records.find_decision(path.read_bytes(), decision_id) for path in reversed(segment_paths(folder)))
    return next((record for record in found if record is not None), None)
