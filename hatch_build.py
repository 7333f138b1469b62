"""Builds what is written in C, where there is a compiler; without one the package is whole, and slower."""

import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

LIMITED = ("Py_LIMITED_API", "0x030B0000")  # one build for Python 3.11 and all that follow
PLATFORM = sysconfig.get_platform().replace("-", "_").replace(".", "_")
EXTENSIONS = {
    "service.bundles._leaves": "service/bundles/leaves.c",
    "service.decision._contacts": "service/decision/contacts.c",
    "service.decision._figures": "service/decision/figures.c",
    "features._rows": "features/rows.c",
}


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg,misc]  # hatchling's, at build time alone
    """Called by hatchling before it packs a wheel, and before it installs this folder as it is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile beside the sources. `version` is `standard` or `editable`."""
        del version
        root = Path(self.root)
        for name, source in EXTENSIONS.items():
            try:
                built = build(root, name, source)
            except (BaseError, CCompilerError) as error:
                print(f"warning: Expected `{source}` to compile, got: {error} - decisions take longer", file=sys.stderr)
                continue
            build_data["artifacts"].append(built.relative_to(root).as_posix())
            build_data["tag"] = f"cp311-abi3-{PLATFORM}"
            build_data["pure_python"] = False


def build(root: Path, name: str, source: str) -> Path:
    """The library, beside its source; none of before is left. Raises setuptools' errors where it does not compile."""
    extension = Extension(
        name, [str(root / source)], define_macros=[LIMITED], py_limited_api=True, extra_compile_args=_optimised()
    )
    command = build_ext(Distribution({"name": "nextbest", "ext_modules": [extension]}))
    with tempfile.TemporaryDirectory() as scratch:
        command.build_lib, command.build_temp, command.force = str(root), scratch, True
        command.ensure_finalized()
        library = Path(command.get_ext_fullpath(name))
        library.unlink(missing_ok=True)
        command.run()
    return library


def _optimised() -> list[str]:
    return ["/O2"] if sys.platform == "win32" else ["-O3"]
