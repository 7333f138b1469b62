"""Reading foreign tables: CSV or Parquet, compressed or not, into columns of the wanted type."""

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from service.errors import ImportInvalid

SHOWN = 3  # rows that a problem names


def read_table(path: Path) -> pa.Table:
    """Raises ImportInvalid where it is no table."""
    if not path.is_file():
        raise ImportInvalid([f"Expected a table, found none - at `{path}`"])
    try:
        if path.name.endswith((".parquet", ".pq")):
            return pq.read_table(path)
        with pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None) as stream:
            options = pyarrow.csv.ConvertOptions(strings_can_be_null=True, null_values=["", "NA", "NULL", "nan", "NaN"])
            return pyarrow.csv.read_csv(stream, convert_options=options)
    except (pa.ArrowInvalid, OSError) as error:
        raise ImportInvalid([f"{path.name}: Expected a table (.csv, .csv.gz, .parquet), got something else: {error}"]) from error


class Columns:
    """Columns of a table by name, each converted; what does not fit is collected with its row, counted from 1."""

    def __init__(self, table: pa.Table, where: str) -> None:
        self.table = table
        self.problems: list[str] = []
        self._where = where

    def number(self, name: str) -> pa.Array:
        """float64; null is missing. A value that is no finite number is a problem."""
        column = self.table[name].combine_chunks()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            return self._parsed(name, column)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)):
            if pa.types.is_null(column.type):
                return pa.nulls(len(column), pa.float64())
            self.problems.append(f"{self._where}: Expected numbers, got {column.type} - in column `{name}`")
            return pa.nulls(len(column), pa.float64())
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        values = column.cast(pa.float64(), safe=False)
        self._refuse(name, "a finite number", pc.invert(pc.is_finite(values)), values)
        return values

    def _parsed(self, name: str, column: pa.Array) -> pa.Array:
        values = [_to_float(text) for text in column.to_pylist()]
        bad = pa.array([text is not None and value is None for text, value in zip(column.to_pylist(), values, strict=True)])
        self._refuse(name, "a finite number", bad, column)
        return pa.array(values, pa.float64())

    def text(self, name: str, *, required: bool = False) -> pa.Array:
        """string; null is missing, which is a problem where a value is required."""
        column = self.table[name].combine_chunks()
        if pa.types.is_floating(column.type):
            column = _whole(column)
        values = column.cast(pa.string())
        if required:
            self._refuse(name, "a value", pc.is_null(values), values)
        return values

    def probability(self, name: str) -> pa.Array:
        """float64 above 0 and at most 1."""
        values = self.number(name)
        right = pc.and_(pc.greater(values, 0.0), pc.less_equal(values, 1.0))
        self._refuse(name, "a probability above 0 and at most 1", pc.invert(pc.fill_null(right, fill_value=False)), values)
        return values

    def moment(self, name: str) -> pa.Array:
        """timestamp, microseconds, UTC. Text without a zone is UTC; numbers are seconds since 1970."""
        column = self.table[name].combine_chunks()
        wanted = pa.timestamp("us", tz="UTC")
        try:
            if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
                values = pc.multiply(column.cast(pa.float64()), 1e6).cast(pa.int64(), safe=False).cast(wanted)
            elif pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
                values = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
                values = values.cast(wanted) if values.type.tz else pc.assume_timezone(values, "UTC")
            else:
                values = column.cast(wanted)
        except pa.ArrowInvalid as error:
            self.problems.append(f"{self._where}: Expected times such as `2026-01-31T09:00:00Z`: {error} - in column `{name}`")
            return pa.array([0] * len(column), wanted)
        self._refuse(name, "a time", pc.is_null(values), values)
        return pc.fill_null(values, pa.scalar(0, wanted))

    def _refuse(self, name: str, expected: str, wrong: pa.Array, values: pa.Array) -> None:
        rows = [i for i, is_wrong in enumerate(pc.fill_null(wrong, fill_value=False).to_pylist()) if is_wrong]
        for row in rows[:SHOWN]:
            self.problems.append(
                f"{self._where}: row {row + 1}: Expected {expected}, got `{values[row].as_py()}` - in column `{name}`"
            )
        if len(rows) > SHOWN:
            self.problems.append(f"{self._where}: ... and {len(rows) - SHOWN} more such rows in column `{name}`")


def _to_float(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and math.isfinite(value) else None


def _whole(column: pa.Array) -> pa.Array:
    """Whole numbers that a missing value turned into floats: `7.0` is the category `7`."""
    whole = pc.equal(column, pc.floor(column))
    return column.cast(pa.int64()) if pc.all(pc.fill_null(whole, fill_value=True)).as_py() else column
