"""`nextbest`: finds the room that owns a command and lets it work. Loads nothing that the command does not need."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from features.contract import ContractError
from service.errors import NextbestError, nearest


class Command(NamedTuple):
    """Where a command lives: `module.main(argv, home=..., redis_url=...) -> exit code`."""

    module: str
    purpose: str


COMMANDS = {
    "demo": Command("training.demo.commands", "the whole loop: import, train, serve, learn, swap (--once, --data PATH)"),
    "serve": Command("service.server", "answer /recommend and take /outcomes"),
    "keys": Command("service.key_commands", "make, list and revoke API keys"),
    "catalog": Command("service.catalog.commands", "check, publish and list catalogs"),
    "features": Command("training.event_commands", "apply, materialize and check features"),
    "ingest": Command("training.ingest_commands", "take in a history of events"),
    "alerts": Command("training.alert_commands", "who has to be looked after: list, acknowledge, close, report, sweep, check"),
    "journey": Command("training.journey_commands", "where customers go, where they turn in circles, where they leave"),
    "predictions": Command("training.predictions.commands", "train, score and list predictions that are kept as features"),
    "unlink": Command("training.event_commands", "an alias is a customer of its own again"),
    "erase": Command("training.erasing_commands", "forget a customer: out of Redis, and out of all that learns"),
    "log": Command("training.log_commands", "verify, seal and tail what was written down"),
    "rebuild": Command("training.event_commands", "put everything into Redis again, from log, lake and offline tables"),
    "import": Command("training.import_commands", "take in a table of logged decisions"),
    "simulate": Command("training.import_commands", "write a small world with known truth, ready to import"),
    "apprentice": Command("training.ladder_commands", "how far the existing system's choices can be foretold"),
    "train": Command("training.commands", "learn a bundle from the log"),
    "retrain": Command("training.retrain_commands", "train, evaluate and promote if proven, once or every so often"),
    "evaluate": Command("training.commands", "what policies are worth, on rows no model saw"),
    "explain": Command("training.decision_commands", "why a decision was made, and what would have made another"),
    "replay": Command("training.decision_commands", "make logged decisions again, and compare byte for byte"),
    "whatif": Command("training.decision_commands", "what a draft would have made of the logged decisions"),
    "decide": Command("training.batch_commands", "decide for every customer of a table"),
    "experiments": Command("training.decision_commands", "what the arms of experiments brought, and whether they differ"),
    "report": Command("training.report_commands", "value, calibration, experiments, drift and exploration on one page"),
    "drift": Command("training.report_commands", "whether rows since training look like those learned from (exit code 2: no)"),
    "promote": Command("training.commands", "let a proven bundle serve"),
    "stage": Command("training.ladder_commands", "a bundle is scored beside the champion, or decides for some customers"),
    "guard": Command("training.ladder_commands", "judge the canary, and take it back where it does harm"),
    "rollback": Command("training.bundle_commands", "return to the bundle before this one"),
    "models": Command("training.bundle_commands", "list bundles"),
}

BROKEN_PIPE = 141  # as shells tell of a process that SIGPIPE ended
EXTRAS = {"mlflow": "mlflow", "optuna": "tuning"}  # by package; all others come with `training`


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 an error to mend, 2 wrong usage."""
    options, rest = _parser().parse_known_args(arguments)
    command = COMMANDS.get(options.command)
    if options.command is None:
        _parser().print_help()
        return 0
    if command is None:
        near = nearest(options.command, list(COMMANDS))
        print(f"error: Expected a command, got `{options.command}`{near}; `nextbest` lists them", file=sys.stderr)
        return 2
    return _run(command, options, rest)


def _run(command: Command, options: argparse.Namespace, rest: Sequence[str]) -> int:
    try:
        run = importlib.import_module(command.module).main
        code: int = run([options.command, *rest], home=Path(options.home), redis_url=options.redis_url)
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(error.name or "", "training")
        print(f"error: `nextbest {options.command}` needs `{error.name}`: pip install 'nextbest[{extra}]'", file=sys.stderr)
        return 1
    except (NextbestError, ContractError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads has enough: what Python still holds back for them goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        where = f" - at `{error.filename}`" if error.filename else ""
        print(f"error: Expected files and connections that work, got: {error.strerror or error}{where}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:12} {command.purpose}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="nextbest",
        description="Real-time personalisation and next-best-action.",
        epilog=f"commands:\n{listing}\n\n`nextbest COMMAND --help` says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("--home", default=os.environ.get("NEXTBEST_HOME", ".nextbest"), help="folder of everything kept")
    parser.add_argument("--redis-url", default=os.environ.get("NEXTBEST_REDIS_URL"), help="a Redis; else a private one")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="what to do")
    return parser


if __name__ == "__main__":
    sys.exit(main())
