"""A table of customers on its way through a batch: cut into parts, decided part by part, joined again.

Everything lies in a folder beside the result until that is whole, so that what was interrupted can go on where it was.
"""

import contextlib
import fcntl
import itertools
import shutil
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.contract import Feature
from service.catalog.entities import Scalar
from service.decision.entities import PlacementRequest
from service.errors import ImportInvalid, NotReady
from service.files import DISK, locked, put_file
from service.ids import RANDOM_BYTES, customer_key
from training.lake import parquet
from training.tables import Columns, read_table

CUSTOMER_ID = "customer_id"
LOCK, PARTS_LOCK = "lock", "parts.lock"
PART_ROWS = 4096  # customers: what is in memory for each process, and what an interruption has to do again
ROW_GROUP = 131_072  # rows of the result
COLUMNS = pa.schema([
    ("decision_id", pa.string()), ("customer_id", pa.string()), ("placement", pa.string()), ("rank", pa.int32()),
    ("action_id", pa.string()), ("treatment_id", pa.string()), ("kind", pa.string()), ("fallback", pa.bool_()),
    ("predicted_rate", pa.float64()), ("utility", pa.float64()), ("choice_probability", pa.float64()), ("explored", pa.bool_()),
])  # fmt: skip


class Campaign(NamedTuple):
    """What is asked for every customer. The same campaign decides the same again for the same table."""

    name: str
    placements: tuple[PlacementRequest, ...]
    context: dict[str, Scalar]
    dry_run: bool = False


class Plan(msgspec.Struct, frozen=True):
    """What a batch is to do: noted when it begins, so that whoever takes it up does the same, with the same versions.

    `table` is known by its name, its size in bytes and when it was last changed, in nanoseconds. `seed`, with the row, makes the
    decision ids; of a batch that was begun before there were any, the campaign's name does.
    """

    campaign: Campaign
    table: tuple[str, int, int]
    catalog: int
    champion: str | None
    others: dict[str, str] = {}
    seed: str = ""

    def decision_id(self, customer_id: str, row: int) -> str:
        """That of a row of the table, counted from 0."""
        seeded = f"{self.seed or self.campaign.name}\x1f{row}"
        return blake2b(seeded.encode(), digest_size=RANDOM_BYTES).hexdigest() + customer_key(customer_id)


def seed_of(campaign: Campaign, table: tuple[str, int, int]) -> str:
    """What tells one campaign for one table from all others: another placement, or another table, is another decision."""
    told = msgspec.json.encode((campaign.name, campaign.placements, campaign.context, table), order="sorted")
    return blake2b(told, digest_size=RANDOM_BYTES).hexdigest()


class Part(NamedTuple):
    """Some rows of the table, from `start` on."""

    number: int
    start: int
    rows: int


class PartsFolder(NamedTuple):
    """Where the parts of one batch lie, the customers and what was decided for them."""

    path: Path

    @classmethod
    def beside(cls, out: Path) -> "PartsFolder":
        """That of a result."""
        return cls(out.with_name(f".{out.name}.parts"))

    @property
    def _plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def _customers(self) -> Path:
        return self.path / "customers.parquet"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else works on this batch meanwhile. Raises NotReady where somebody does."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise NotReady(f"Expected to be alone, found another run at work - at `{self.path}`") from error
            with locked(self.path / PARTS_LOCK):
                pass  # a run that was killed may have left processes behind: they come to the end of what they have begun
            yield

    @contextlib.contextmanager
    def shared(self) -> Iterator[bool]:
        """For a process of the run that holds the folder: whether that is still there; if so, the next run waits for this."""
        parent = parent_process()
        if parent is not None and not parent.is_alive():
            yield False
            return
        with locked(self.path / PARTS_LOCK, shared=True):
            yield parent is None or parent.is_alive()

    def begin(self, plan: Plan, table: Path, features: Sequence[Feature]) -> Plan:
        """Cut the table up, unless that was done before: then the plan of that time holds.

        Raises ImportInvalid where the table cannot be used, and NotReady where the folder belongs to another batch.
        """
        begun = self.begun()
        if begun is not None:
            if (begun.campaign, begun.table) != (plan.campaign, plan.table):
                raise NotReady(
                    f"Expected to go on with campaign `{begun.campaign.name}` for `{begun.table[0]}`, got another campaign or "
                    f"another table: ask for the same, or take the folder away - at `{self.path}`"
                )
            return begun
        self._clear()
        try:
            _cut(table, features, self._customers)
        except ImportInvalid:
            self.give_up()
            raise
        put_file(DISK, self._plan, msgspec.json.encode(plan))
        return plan

    def _clear(self) -> None:
        """Take away what a batch left that has no plan: it was cut up in part, or joined, and its parts not all taken away."""
        for path in self.path.iterdir():
            if path.name not in (LOCK, PARTS_LOCK):
                path.unlink()

    def give_up(self) -> None:
        """Nothing was decided, and nobody is to go on."""
        shutil.rmtree(self.path)

    def begun(self) -> Plan | None:
        """What was begun here; None where nothing was."""
        return msgspec.json.decode(self._plan.read_bytes(), type=Plan) if self._plan.exists() else None

    def parts(self) -> list[Part]:
        """All of them, in the order of the table."""
        found, start, metadata = list[Part](), 0, pq.read_metadata(self._customers)
        for number in range(metadata.num_row_groups):
            found.append(Part(number, start, metadata.row_group(number).num_rows))
            start += found[-1].rows
        return found

    def customers(self, part: Part) -> pa.Table:
        """The part's `customer_id`, and columns named like features."""
        with pq.ParquetFile(self._customers) as file:
            return file.read_row_group(part.number)

    def is_done(self, part: Part) -> bool:
        return self._decided(part).exists()

    def is_begun(self, part: Part) -> bool:
        """Whether somebody has begun to decide for it: the log may hold some of it."""
        return self._mark(part).exists()

    def mark(self, part: Part) -> None:
        """Note that it is being decided; durable when this returns."""
        put_file(DISK, self._mark(part), b"")

    def put(self, part: Part, decided: pa.Table) -> None:
        """What was decided for the part, all of it or nothing; durable when this returns."""
        put_file(DISK, self._decided(part), parquet(decided))

    def _mark(self, part: Part) -> Path:
        return self._decided(part).with_suffix(".begun")

    def _decided(self, part: Part) -> Path:
        return self.path / f"{part.number:06d}.parquet"

    def join(self, out: Path) -> int:
        """One file of all parts, which go once it is on disk; how many customers got a fallback at one placement or more."""
        fallbacks, unfinished = 0, out.with_name(f".{out.name}.unfinished")
        with unfinished.open("wb") as sink:
            with pq.ParquetWriter(sink, COLUMNS, compression="zstd") as writer:
                for table in self._together():
                    fell = table.filter(table["fallback"])
                    fallbacks += len(fell["decision_id"].unique())
                    writer.write_table(table)
            sink.flush()
            DISK.sync(sink.fileno())
        DISK.rename(unfinished, out)
        DISK.sync_folder(out.parent)
        DISK.unlink(self._plan)  # first: parts without a plan belong to no batch
        DISK.sync_folder(self.path)
        shutil.rmtree(self.path)
        return fallbacks

    def _together(self) -> Iterator[pa.Table]:
        """The parts in order, so many at a time that the result has few row groups. No decision lies in two of them."""
        gathered: list[pa.Table] = []
        for part in self.parts():
            with pq.ParquetFile(self._decided(part)) as file:  # read_table would import pandas, as below
                gathered.append(file.read())
            if sum(table.num_rows for table in gathered) >= ROW_GROUP:
                yield pa.concat_tables(gathered)
                gathered = []
        if gathered:
            yield pa.concat_tables(gathered)


def columns_of(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Rows of the result, as values of COLUMNS in their order.

    `pa.array` would import pandas for its first list, which takes 0.13 s.
    """
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    return pa.table([_array(column, kind) for column, kind in zip(columns, COLUMNS.types, strict=True)], schema=COLUMNS)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if kind == pa.string():
        text = "".join(values)
        lengths = map(len, values) if text.isascii() else (len(value.encode()) for value in values)
        ends = np.fromiter(itertools.accumulate(lengths, initial=0), np.int32, len(values) + 1)
        return pa.StringArray.from_buffers(len(values), pa.py_buffer(ends), pa.py_buffer(text.encode()))
    if kind == pa.bool_():
        data = np.packbits(np.array(values, np.bool_), bitorder="little")
    else:
        data = np.array(values, kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(data)])


def _cut(table: Path, features: Sequence[Feature], out: Path) -> None:
    """A row group for each part. Parquet is read bit by bit, CSV at once."""
    problems, first, empty = list[str](), 1, 0
    with out.open("wb") as sink:
        writer: pq.ParquetWriter | None = None
        for rows in _rows(table, features):
            columns = Columns(rows, table.name, first)
            wanted = _wanted(columns, features)
            writer = writer or pq.ParquetWriter(sink, wanted.schema, compression="zstd")
            writer.write_table(wanted)
            first, empty = first + rows.num_rows, empty + wanted[CUSTOMER_ID].null_count
            if columns.problems:  # as a rule every part has the same
                problems = columns.problems
                break
        if writer is None:
            writer = pq.ParquetWriter(sink, pa.schema([(CUSTOMER_ID, pa.string())]))
        writer.close()
        sink.flush()
        DISK.sync(sink.fileno())  # before there is a plan
    if empty:
        problems = [f"{table.name}: Expected a value in every row, found {empty} nulls", *problems]
    if problems:
        raise ImportInvalid(problems)


def _wanted(columns: Columns, features: Sequence[Feature]) -> pa.Table:
    """`customer_id`, and columns named like features in the types that those have."""
    names = columns.table.column_names
    values = {f.name: columns.number(f.name) if f.type == "number" else columns.text(f.name) for f in features if f.name in names}
    return pa.table({CUSTOMER_ID: columns.customer(CUSTOMER_ID), **values})


def _rows(table: Path, features: Sequence[Feature]) -> Iterator[pa.Table]:
    """Up to PART_ROWS rows at a time; categories of a CSV as written. Raises ImportInvalid without `customer_id`."""
    names = [feature.name for feature in features]
    texts = [feature.name for feature in features if feature.type == "category"]
    if not table.name.endswith((".parquet", ".pq")):
        whole = read_table(table, (CUSTOMER_ID, *texts))
        _check(table, whole.schema.names, names)
        yield from (whole.slice(start, PART_ROWS) for start in range(0, whole.num_rows, PART_ROWS))
        return
    if not table.is_file():
        raise ImportInvalid([f"Expected a table, found none - at `{table}`"])
    try:
        with pq.ParquetFile(table) as file:
            _check(table, file.schema_arrow.names, names)
            yield from (pa.Table.from_batches([batch]) for batch in file.iter_batches(PART_ROWS))
    except (pa.ArrowInvalid, OSError) as error:
        raise ImportInvalid([f"{table.name}: Expected a table (.csv, .csv.gz, .parquet), got something else: {error}"]) from error


def _check(table: Path, found: Sequence[str], features: Sequence[str]) -> None:
    if CUSTOMER_ID not in found:
        raise ImportInvalid([f"{table.name}: Expected a column `{CUSTOMER_ID}`, found {', '.join(found)}"])
    twice = [name for name in (CUSTOMER_ID, *features) if found.count(name) > 1]
    if twice:
        raise ImportInvalid(
            [f"{table.name}: Expected each column once, found `{name}` {found.count(name)} times" for name in twice]
        )
