"""What is written in C (`rows.c`), where it was built when the package was installed; without it Python does the work."""

from types import ModuleType

rows: ModuleType | None
try:
    from features import _rows  # type: ignore[attr-defined]  # C tells no types

    rows = _rows
except ImportError:
    rows = None
