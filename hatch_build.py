"""Builds what is written in C, where there is a compiler; without one the package is whole, and slower."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

LIMITED = ("Py_LIMITED_API", "0x030B0000")  # one build for Python 3.11 and all that follow
EXTENSIONS = {"service.bundles._leaves": "service/bundles/leaves.c", "features._rows": "features/rows.c"}


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg,misc]  # hatchling's, at build time alone
    """Called by hatchling before it packs a wheel, and before it installs this folder as it is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile beside the sources. `version` is `standard` or `editable`."""
        del version
        try:
            built = build(Path(self.root))
        except (BaseError, CCompilerError) as error:
            print(f"warning: Expected a C compiler, got: {error} - decisions take a fifth longer", file=sys.stderr)
            return
        build_data["artifacts"] += [str(path.relative_to(self.root)) for path in built]
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def build(root: Path) -> list[Path]:
    """The libraries, each beside its source. Raises setuptools' errors where it does not compile."""
    extensions = [
        Extension(name, [str(root / source)], define_macros=[LIMITED], py_limited_api=True, extra_compile_args=_optimised())
        for name, source in EXTENSIONS.items()
    ]
    command = build_ext(Distribution({"name": "nextbest", "ext_modules": extensions}))
    with tempfile.TemporaryDirectory() as scratch:
        command.build_lib, command.build_temp = str(root), scratch
        command.ensure_finalized()
        command.run()
    return [Path(command.get_ext_fullpath(name)) for name in EXTENSIONS]


def _optimised() -> list[str]:
    return ["/O2"] if sys.platform == "win32" else ["-O3"]
