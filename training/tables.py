"""Reading foreign tables: CSV or Parquet, compressed or not, into columns of the wanted type."""

import datetime as dt
import math
from collections.abc import Collection, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from service.catalog.checking import LONGEST_ID
from service.errors import ImportInvalid
from service.ids import LONGEST_CUSTOMER, personal

SHOWN = 3  # rows that a problem names
MISSING = ["", "NA", "NULL", "nan", "NaN"]
IDENTIFIER = rf"^[^\p{{Cc}}]{{1,{LONGEST_ID}}}$"  # what a catalog takes
EXACT = 2.0**53  # from here on a float says no longer which whole number it was
WIDEST_ZONE = dt.timedelta(hours=14)  # ahead of UTC: a local time whose zone nobody wrote down may be as much
LAST = 253_402_300_800.0  # seconds since 1970, the year 10000: what looks later is in milliseconds
LAST_SLOT = 2.0**31 - 1  # int32


def read_table(path: Path, texts: Collection[str] = ()) -> pa.Table:
    """Columns of a CSV get the type they look like, those of `texts` stay as written. Raises ImportInvalid: it is no table."""
    if not path.is_file():
        raise ImportInvalid([f"Expected a table, found none - at `{path}`"])
    try:
        if path.name.endswith((".parquet", ".pq")):
            return pq.read_table(path)
        with pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None) as stream:
            types = dict.fromkeys(texts, pa.string())
            options = pyarrow.csv.ConvertOptions(strings_can_be_null=True, null_values=MISSING, column_types=types)
            single = pyarrow.csv.ReadOptions(use_threads=False)  # several threads do not know the row of a mistake
            return pyarrow.csv.read_csv(stream, read_options=single, convert_options=options)
    except (pa.ArrowInvalid, OSError) as error:
        raise ImportInvalid([f"{path.name}: Expected a table (.csv, .csv.gz, .parquet), got something else: {error}"]) from error


def absent_columns(table: pa.Table, wanted: Mapping[str, str], where: str) -> list[str]:
    """Problems of `wanted` columns (what for, by name) that a table does not have, or has twice."""
    try:
        names = table.column_names
    except UnicodeDecodeError as error:
        raise ImportInvalid([f"{where}: Expected names of columns in UTF-8, got something else: {error}"]) from error
    known = ", ".join(names)
    return [
        f"Expected a column of `{where}` ({known}), got `{name}`{' twice' * (name in names)} - at `{place}`"
        for name, place in wanted.items() if names.count(name) != 1
    ]  # fmt: skip


class Columns:
    """Columns of a table by name, each converted; what does not fit is collected with its row, counted from 1."""

    def __init__(self, table: pa.Table, where: str, first: int = 1) -> None:
        """`first`: which row of the file the table begins with, where it is a part of it."""
        self.table = table
        self.problems: list[str] = []
        self._where = where
        self._first = first

    def number(self, name: str) -> pa.Array:
        """float64; null is missing. A value that is no finite number is a problem."""
        column = self._column(name)
        if _is_text(column.type):
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
        bad = [text is not None and value is None for text, value in zip(column.to_pylist(), values, strict=True)]
        self._refuse(name, "a finite number", pa.array(bad, pa.bool_()), column)
        return pa.array(values, pa.float64())

    def text(self, name: str, *, required: bool = False) -> pa.Array:
        """string; null is missing, which is a problem where a value is required."""
        column = self._column(name)
        if pa.types.is_floating(column.type):
            self._refuse(name, "a value", pc.invert(pc.is_finite(column)), column)
            column = _whole(column)
        try:
            values = column.cast(pa.string())
            values.validate(full=True)  # a file may say of any bytes that they are text
        except pa.ArrowException as error:
            self.problems.append(f"{self._where}: Expected texts, got {column.type}: {error} - in column `{name}`")
            return pa.repeat("?", len(column))
        if required:
            self._refuse(name, "a value", pc.or_kleene(pc.is_null(values), pc.equal(values, "")), values)
        return values

    def identifier(self, name: str, *, required: bool = True) -> pa.Array:
        """string, as a catalog takes it; null is missing, which is a problem where a value is required."""
        values = self.text(name)
        wrong = pc.fill_null(pc.invert(pc.match_substring_regex(values, IDENTIFIER)), fill_value=required)
        self._refuse(name, f"a text of 1 to {LONGEST_ID} characters, none a control character", wrong, values)
        return values

    def customer(self, name: str) -> pa.Array:
        """string: ids as the service takes them, nobody's personal data; null is missing."""
        if pa.types.is_boolean(self._column(name).type):
            self.problems.append(f"{self._where}: Expected ids, got bool - in column `{name}`")
        values = self.text(name)
        wrong = pc.invert(pc.match_substring_regex(values, rf"(?s)^.{{1,{LONGEST_CUSTOMER}}}$"))
        self._refuse(name, f"a text of 1 to {LONGEST_CUSTOMER} characters", wrong, values)
        for row in pc.indices_nonzero(pc.match_substring_regex(values, r"@|^[+(]")).to_pylist():  # nulls are left out
            if (advice := personal(values[row].as_py())) is not None:
                self.problems.append(f"{self._where}: row {self._first + row}: {advice} - in column `{name}`")
                break  # as a rule all of them are
        return values

    def binary(self, name: str) -> pa.Array:
        """float64, 0 or 1; null is missing."""
        values = self.number(name)
        self._refuse(name, "0 or 1 for a binary outcome", pc.invert(pc.is_in(values, pa.array([0.0, 1.0, None]))), values)
        return values

    def slot(self, name: str) -> pa.Array:
        """int32, counted from 1."""
        values = self.number(name)
        counted = pc.and_(pc.greater_equal(values, 1.0), pc.less_equal(values, LAST_SLOT))
        right = pc.and_(counted, pc.equal(values, pc.floor(values)))
        self._refuse(name, "a slot, counted from 1", pc.invert(pc.fill_null(right, fill_value=False)), values)
        return values.cast(pa.int32(), safe=False)

    def probability(self, name: str) -> pa.Array:
        """float64 above 0 and at most 1."""
        values = self.number(name)
        right = pc.and_(pc.greater(values, 0.0), pc.less_equal(values, 1.0))
        self._refuse(name, "a probability above 0 and at most 1", pc.invert(pc.fill_null(right, fill_value=False)), values)
        return values

    def moment(self, name: str, now: dt.datetime | None = None) -> pa.Array:
        """timestamp, microseconds, UTC. Text without a zone is UTC; numbers are seconds since 1970.

        `now`: what lies after it, by more than zones differ, is refused.
        """
        column = self._column(name)
        wanted = pa.timestamp("us", tz="UTC")
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            seconds = column.cast(pa.float64(), safe=False)
            seconds = pc.if_else(pc.and_(pc.greater_equal(seconds, 0.0), pc.less(seconds, LAST)), seconds, None)
            values = pc.multiply(seconds, 1e6).cast(pa.int64(), safe=False).cast(wanted)
        elif pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            values = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
            values = values.cast(wanted) if values.type.tz else pc.assume_timezone(values, "UTC")
        elif _is_text(column.type) or pa.types.is_null(column.type):
            values = pa.array([_to_moment(text) for text in column.to_pylist()], wanted)
        else:
            self.problems.append(f"{self._where}: Expected times, got {column.type} - in column `{name}`")
            return pa.array([0] * len(column), wanted)
        self._refuse(name, "a time such as `2026-01-31T09:00:00Z`, or seconds since 1970", pc.is_null(values), column)
        if now is not None:
            self._refuse(name, "a time that has come", pc.greater(values, pa.scalar(now + WIDEST_ZONE, wanted)), column)
        return pc.fill_null(values, pa.scalar(0, wanted))

    def _column(self, name: str) -> pa.Array:
        column = self.table[name].combine_chunks()
        return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column

    def _refuse(self, name: str, expected: str, wrong: pa.Array, values: pa.Array) -> None:
        rows = pc.indices_nonzero(wrong).to_pylist()  # no nulls
        for row in rows[:SHOWN]:
            self.problems.append(
                f"{self._where}: row {self._first + row}: Expected {expected}, got `{values[row].as_py()}` - in column `{name}`"
            )
        if len(rows) > SHOWN:
            self.problems.append(f"{self._where}: ... and {len(rows) - SHOWN} more such rows in column `{name}`")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _to_moment(text: str | None) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(text) if text is not None else None
    except ValueError:
        return None
    return moment.replace(tzinfo=dt.UTC) if moment is not None and moment.tzinfo is None else moment


def _to_float(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and math.isfinite(value) else None


def _whole(column: pa.Array) -> pa.Array:
    """Whole numbers that a missing value turned into floats: `7.0` is the category `7`."""
    whole = pc.and_(pc.equal(column, pc.floor(column)), pc.less(pc.abs(column), EXACT))
    return column.cast(pa.int64()) if pc.all(pc.fill_null(whole, fill_value=True)).as_py() else column
