"""What was decided, as columns."""

import subprocess
import sys

import pyarrow as pa
import pytest

from service.errors import NotReady
from training.batch_commands import main
from training.batch_parts import COLUMNS, columns_of

ROWS = [
    ("d1", "anna", "hero", 1, "gold", "card", "offer", False, 0.25, 2.5, 1.0, True),
    ("d2", "Zoë 東京", "hero", 2, "", "", "content", True, -0.0, 1e300, 5e-324, False),
    ("d3", "", "a", 3, "gold", "é", "offer", True, 0.1, 0.2, 0.3, False),
]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 27])
def test_rows_become_the_columns_that_pyarrow_makes_of_them(count):
    """Of texts in any script, and of more truths than go into a byte."""
    rows = (ROWS * 9)[:count]
    found = columns_of(rows)
    found.validate(full=True)
    columns = [[row[place] for row in rows] for place in range(len(COLUMNS))]
    made = [pa.array(column, kind) for column, kind in zip(columns, COLUMNS.types, strict=True)]
    assert found.equals(pa.table(made, schema=COLUMNS))


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    """What was decided was perhaps sent; where it was only tried, the error says what to look for."""
    out = tmp_path / "campaign.parquet"
    out.write_bytes(b"decided")
    with pytest.raises(NotReady, match=r"Expected a new file: .* perhaps of a dry run - at `.*campaign.parquet`"):
        main(["decide", "customers.csv", "--placement", "hero", "--out", str(out)], home=tmp_path, redis_url=None)
    assert out.read_bytes() == b"decided"


def test_pandas_is_not_loaded_for_it(request):
    """It takes longer to import than a thousand decisions."""
    code = f"import sys; from training.batch_parts import columns_of; columns_of({ROWS!r}); print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=request.config.rootpath, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
