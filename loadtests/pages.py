"""Tables that are measured, in pages that are written."""

from pathlib import Path


def put(page: Path, table: str, marks: tuple[str, str]) -> None:
    """The table between two marks of the page, in the place of what stands there. Raises SystemExit where a mark is missing."""
    begin, end = marks
    text = page.read_text()
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"error: Expected the marks `{begin}` and `{end}`, found none - at `{page}`")
    page.write_text(f"{before}{begin}\n{table}\n{end}{after}")
