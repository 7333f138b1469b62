import ast
import inspect
import re

import msgspec
import pytest

import service.errors
from service.errors import NextbestError
from service.metrics import Metrics
from service.settings import PREFIX, Settings

REASON = re.compile(r"[a-z]+(_[a-z]+)*:?")


def table_rows(page):
    """Lines of a page that are rows of a table, as lists of cells."""
    lines = [line.strip() for line in page.read_text().splitlines() if line.strip().startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def reason_codes(root):
    """Module constants of the decision and the pipeline that hold a reason code."""
    modules = [
        *sorted((root / "service" / "decision").glob("*.py")),
        root / "service" / "pipeline.py",
        root / "service" / "asks.py",
    ]
    constants = [
        node.value.value
        for module in modules
        for node in ast.parse(module.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    return [text for text in constants if REASON.fullmatch(text)]


def errors():
    found = [kind for _, kind in inspect.getmembers(service.errors, inspect.isclass)]
    return [kind for kind in found if issubclass(kind, NextbestError)]


@pytest.mark.parametrize("field", msgspec.structs.fields(Settings), ids=lambda field: field.name)
def test_every_setting_is_documented_with_its_default(root, field):
    """docs/settings.md has a row that names the environment variable and the default in force."""
    default = "none" if field.default is None else f"`{field.default}`"
    rows = table_rows(root / "docs" / "settings.md")
    assert [row[1] for row in rows if row[0] == f"`{PREFIX}{field.name.upper()}`"] == [default]


def test_no_setting_is_documented_that_does_not_exist(root):
    """A row of docs/settings.md for a setting that was removed is found."""
    names = {f"`{PREFIX}{name.upper()}`" for name in Settings.__struct_fields__}
    documented = {row[0] for row in table_rows(root / "docs" / "settings.md") if row[0].startswith(f"`{PREFIX}")}
    assert documented <= names


@pytest.mark.parametrize("kind", errors(), ids=lambda kind: kind.__name__)
def test_every_error_is_documented_with_its_status(root, kind):
    """docs/errors.md has a row that names the error and the status it is answered with."""
    rows = table_rows(root / "docs" / "errors.md")
    assert [row[1] for row in rows if row[0] == f"`{kind.__name__}`"] == [str(kind.status)]


def test_the_drawing_of_the_error_tree_shows_every_error_with_its_status():
    """The tree in the docstring of service/errors.py is complete."""
    drawn = dict(re.findall(r"(\w+) +(\d{3}) ", service.errors.__doc__))
    assert drawn == {kind.__name__: str(kind.status) for kind in errors() if kind is not NextbestError}


def test_every_reason_code_is_documented(root):
    """docs/reasons.md has a row for every reason that an answer or a record can carry."""
    codes = reason_codes(root)
    documented = {row[0].split("<")[0].strip("`") for row in table_rows(root / "docs" / "reasons.md")}
    assert codes
    assert set(codes) <= documented


def test_every_metric_is_documented(root):
    """docs/metrics.md has a row for every metric that /metrics can show."""
    documented = {row[0].strip("`") for row in table_rows(root / "docs" / "metrics.md")}
    assert {family.name for family in Metrics().registry.collect()} <= documented


def test_every_decision_worth_remembering_fits_a_screen_and_says_context_decision_consequences(root):
    """A page under docs/decisions has three parts, at most 60 lines, and a line in the list."""
    folder = root / "docs" / "decisions"
    listed = (folder / "README.md").read_text()
    pages = sorted(folder.glob("[0-9]*.md"))
    assert pages
    for page in pages:
        text = page.read_text()
        assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], page.name
        assert len(text.splitlines()) <= 60, page.name
        assert page.name in listed, page.name


def test_every_link_between_pages_leads_somewhere(root):
    """A relative link in a Markdown page names a file that exists."""
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md"), *(root / "features").glob("*.md")]
    missing = [
        f"{page.relative_to(root)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert missing == []
