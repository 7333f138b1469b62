"""Progress bars on standard error: for people; a pipe or a log file gets none."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

Tell = Callable[[int, int], None]  # (done, of so many; 0: nobody knows)


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Tell]:
    """A bar while the block runs; call what you get with (done, of so many)."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of or None)
