"""A home that has been through the whole loop once: catalog, features, a bundle that serves."""

from pathlib import Path

from tests.acceptance.processes import clean_environment, nextbest, run_or_not
from tests.acceptance.row import Context


def prepared_home(context: Context) -> Path:
    """The home, made by the demo the first time a row asks for it. Raises NotRun where the demo fails."""
    home = context.scratch / "home"
    if not (home / "registry" / "current").exists():
        context.tell("preparing a home with `nextbest demo --once` ...")
        run_or_not(nextbest("--home", str(home), "demo", "--once"), context.root, clean_environment(), limit=300)
    return home
