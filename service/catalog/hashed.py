"""Names as a contact keeps them: it outlives the catalog it was made with, and a new rule applies to the past at once."""

from functools import lru_cache
from hashlib import blake2b


@lru_cache(maxsize=65_536)  # actions are few; a decision's id is hashed two or three times
def hash32(name: str) -> int:
    """32 bits of a name; 0 for no name, and for nothing else."""
    return (int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "little") or 1) if name else 0


@lru_cache(maxsize=4096)
def hash16(name: str) -> int:
    """16 bits of a name; 0 for no name, and for nothing else."""
    return (int.from_bytes(blake2b(name.encode(), digest_size=2).digest(), "little") or 1) if name else 0
