"""What is known of a segment that grows no more: length, checksum, and the ids in it, to be found without reading it.

The file beside a segment is a header of 56 bytes, then sorted 64-bit hashes of ids, little-endian. It can be made again.
"""

import struct
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import msgspec
import numpy as np
import numpy.typing as npt

from service.decision.records import decode_lines
from service.files import Files, put_file

Hashes = npt.NDArray[np.uint64]

MAGIC = b"nb-ids-1"
HEADER = struct.Struct("<8sQQQdIIQ")  # magic, bytes, records, ids, moment, checksums of segment, ids, and what is before it
CHECKED = HEADER.size - 8  # of the header: what its own checksum covers
INDEX_SUFFIX = ".ids"


def hash_id(name: str) -> int:
    """64 bits of an id: among 100 million, a new one is taken for a known one with odds of 1 in 10^11."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


class _FirstField(msgspec.Struct):
    decision_id: str = ""
    outcome_id: str = ""
    event_id: str = ""


_decoder = msgspec.json.Decoder(_FirstField)


def id_of(payload: bytes, field: str) -> str:
    """The id of a record, which is its first field. Reads no further where the id has no escape: 0.3 us against 4 us."""
    start = b'{"%b":"' % field.encode()
    if payload.startswith(start):
        raw, quote, _ = payload[len(start) :].partition(b'"')
        if quote and b"\\" not in raw:
            return raw.decode()
    name: str = getattr(_decoder.decode(payload), field)
    return name


class Index(NamedTuple):
    """Length in bytes, readable records and CRC32C of a segment; when it was last written to, seconds since 1970 UTC."""

    bytes: int
    records: int
    checksum: int
    last: float


def index_path(segment: Path) -> Path:
    """Beside the segment."""
    return segment.with_suffix(INDEX_SUFFIX)


def write_index(files: Files, segment: Path, index: Index, ids: Iterable[int], field: str) -> None:
    """Say how a segment ended. `field`: which id was hashed; without one there are none. Raises OSError."""
    hashes = np.unique(np.fromiter(ids, np.uint64)) if field else np.empty(0, np.uint64)
    body = hashes.tobytes()
    head = HEADER.pack(MAGIC, index.bytes, index.records, len(hashes), index.last, index.checksum, google_crc32c.value(body), 0)[
        :CHECKED
    ]
    put_file(files, index_path(segment), head + struct.pack("<Q", google_crc32c.value(head)) + body, keep_name=False)


def read_index(segment: Path) -> tuple[Index, Hashes] | None:
    """What was said of a segment, its ids mapped from the file; None where nothing readable was. The ids are not checked."""
    path = index_path(segment)
    try:
        with path.open("rb") as file:
            head = file.read(HEADER.size)
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    if len(head) < HEADER.size or struct.unpack_from("<Q", head, CHECKED)[0] != google_crc32c.value(head[:CHECKED]):
        return None
    magic, length, records, ids, last, checksum, _, _ = HEADER.unpack(head)
    if magic != MAGIC or size != HEADER.size + 8 * ids:
        return None
    hashes: Hashes = np.memmap(path, np.uint64, "r", HEADER.size, (ids,)) if ids else np.empty(0, np.uint64)
    return Index(length, records, checksum, last), hashes


def ids_hold(segment: Path) -> bool:
    """Whether the ids in an index are those that were written."""
    data = index_path(segment).read_bytes()
    expected: int = HEADER.unpack(data[: HEADER.size])[6]
    return bool(expected == google_crc32c.value(data[HEADER.size :]))


def make_index(files: Files, segment: Path, field: str) -> tuple[Index, Hashes]:
    """The index of a segment whose writer left none. Whatever of it is unreadable is no record, and its id is not known."""
    data = segment.read_bytes()
    payloads = [line.payload for line in decode_lines(data) if line.payload is not None]
    ids = [hash_id(id_of(payload, field)) for payload in payloads] if field else []
    index = Index(len(data), len(payloads), google_crc32c.value(data), segment.stat().st_mtime)
    write_index(files, segment, index, ids, field)
    return index, np.unique(np.array(ids, np.uint64))
