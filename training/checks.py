"""What is promised of a bundle, one by one."""

import msgspec


class Check(msgspec.Struct, frozen=True):
    """One promise of a bundle: whether it holds, and what was found, in words."""

    name: str
    holds: bool
    told: str
