"""Real data, which lies beside the checkout and is not part of it."""

import os
from pathlib import Path

from tests.acceptance.row import NotRun


def data_folder(root: Path, *needed: str) -> Path:
    """Where it lies: beside the checkout, unless told otherwise. Raises NotRun where something that is needed is absent."""
    folder = Path(os.environ.get("NEXTBEST_DATA") or root.parent / "shared" / "data")
    for name in needed:
        if not (folder / name).exists():
            raise NotRun(f"`{name}` is not here: set NEXTBEST_DATA to a folder that holds it")
    return folder
