"""The verbs of a command line, each with what runs it."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

Run = Callable[[argparse.Namespace, Path], int]


class Verbs:
    """`nextbest alerts list --json`; or, where commands are the verbs, `nextbest train --seed 3`."""

    def __init__(self, prog: str = "nextbest", description: str | None = None) -> None:
        self._parser = argparse.ArgumentParser(prog=prog, description=description)
        self._verbs = self._parser.add_subparsers(dest="verb", required=True)

    def add(self, name: str, run: Run, purpose: str) -> argparse.ArgumentParser:
        """A further verb, to be given its options. `run`: what it does with them and the home; it returns the exit code."""
        added = self._verbs.add_parser(name, help=purpose, description=purpose)
        added.set_defaults(run=run)
        return added

    def run(self, argv: Sequence[str], home: Path, **given: object) -> int:
        """The exit code of the verb that `argv` begins with. `given`: what its options hold besides."""
        options = self._parser.parse_args(argv, argparse.Namespace(**given))
        code: int = options.run(options, home)
        return code
