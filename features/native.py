"""What is written in C, where it was built when the package was installed; without it Python does the work."""

import importlib
import warnings
from typing import Any

INTERFACE = 1  # of `rows.c`: changes with what its functions take


def built(name: str, interface: int) -> Any:  # noqa: ANN401  # C tells no types
    """The module in C; None where it was not built, or from other sources than these, of which a warning tells."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    found = getattr(module, "INTERFACE", 0)
    if found != interface:
        warnings.warn(f"Expected `{name}` with interface {interface}, found {found}: install again", RuntimeWarning, stacklevel=2)
        return None
    return module


rows = built("features._rows", INTERFACE)
