"""`python -m loadtests.run`: a real server, Locust's customers, and an exit code that scripts can trust."""

import pytest

from loadtests.run import main
from loadtests.world import build

BUDGET = """
[calm]
arrivals = "Steady"
rate = 100
seconds = 12
p50_ms = 1000
p99_ms = 5000
failed = 0.0

[hasty]
arrivals = "Steady"
rate = 100
seconds = 12
p50_ms = 0.001
p99_ms = 5000
failed = 0.0
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The shop with a small model."""
    folder = tmp_path_factory.mktemp("shop")
    build(folder / "home", trees=3)
    return folder


def test_a_figure_over_its_budget_is_an_exit_code(shop, tmp_path, capsys):
    """And the table says which; what keeps to its budget is 0."""
    (tmp_path / "budget.toml").write_text(BUDGET)
    options = ["--budget", str(tmp_path / "budget.toml"), "--shop", str(shop)]
    assert main(["calm", *options]) == 0
    assert main(["calm", "hasty", *options]) == 1
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| calm |", "| hasty |"))]
    assert [row.rpartition("| ")[2] for row in rows] == ["holds |", "holds |", "OVER |"]
