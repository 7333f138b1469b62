"""What we use of Feast, imported without checks of its arguments' types at run time; mypy checks ours.

Feast decorates its classes with typeguard's `typechecked`, which parses and compiles a whole module again for each method in it.
`import feast` takes 5.4 s of a processor with that and 1.6 s without, in turn on a busy machine. Whoever imported Feast before
keeps the checks, and so does everybody else who uses typeguard.
"""

import typeguard


def _unchecked(target: type) -> type:
    return target


_checked, typeguard.typechecked = typeguard.typechecked, _unchecked  # type: ignore[assignment]  # as Feast calls it
try:
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, String
finally:
    typeguard.typechecked = _checked

__all__ = [
    "Entity", "FeatureService", "FeatureStore", "FeatureView", "Field", "FileSource", "Float64", "RepoConfig", "String",
    "ValueType",
]  # fmt: skip
