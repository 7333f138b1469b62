"""Rows that nobody has written yet: they say so, and count as failed."""

from tests.acceptance.row import Context, Measured, NotRun, Row


def unwritten(number: int, name: str, bar: str) -> Row:
    """A promise without a measurement."""

    def measure(_context: Context) -> Measured:
        raise NotRun("not written yet: nothing measures it")

    return Row(number, name, bar, measure)
