"""Rates and utilities of all candidates, spelt out for the log: most of a record, and what nobody reads while it is made.

With C (`figures.c`) in one pass over a batch, else by msgspec, row by row; both write the same bytes.
"""

import math

import msgspec
import numpy as np
import numpy.typing as npt

from features import native

INTERFACE = 1  # of `figures.c`: changes with what its functions take
EMPTY = b"[]"
LOWEST, HIGHEST = -292, 324  # powers of ten that a double may have to be scaled by

Spelt = msgspec.Raw | msgspec.UnsetType  # a JSON array of numbers; unset where there are none

_figures = native.built("service.decision._figures", INTERFACE)
IS_BUILT = _figures is not None
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(tuple[float | None, ...])


def spelt(values: npt.NDArray[np.float64], ends: npt.NDArray[np.int64], *, in_c: bool = IS_BUILT) -> list[Spelt]:
    """Float64 values up to the first end, from there to the second, and so on, row by row."""
    if in_c:
        return [msgspec.UNSET if text == EMPTY else msgspec.Raw(text) for text in _figures.spelt(values, ends, POWERS)]
    rows = np.split(values, ends)[: len(ends)]
    return [msgspec.Raw(_encoder.encode(row.tolist())) if len(row) else msgspec.UNSET for row in rows]


def figures(text: Spelt) -> tuple[float, ...]:
    """The numbers that were spelt out. What is none was infinite, or no number: records of before may have it."""
    found = () if text is msgspec.UNSET else _decoder.decode(text)
    return tuple([math.nan if one is None else one for one in found])


def _powers() -> bytes:
    """The first 128 bits of each power of ten, rounded up: two uint64 each, the higher first (Giulietti 2020)."""
    found: list[int] = []
    for exponent in range(LOWEST, HIGHEST + 1):
        over, under = 10 ** max(exponent, 0), 10 ** max(-exponent, 0)
        shift = 127 - (over.bit_length() - 1 if exponent >= 0 else -under.bit_length())
        first = -(-(over << max(shift, 0)) // (under << max(-shift, 0)))
        found += divmod(first, 1 << 64)
    return np.array(found, np.uint64).tobytes()


POWERS = _powers()
