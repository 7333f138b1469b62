"""`nextbest predictions train | score | list`."""

import argparse
import datetime as dt
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from features.redis_server import resolve_redis
from service.errors import NotReady
from training.event_history import moment
from training.fit import FitSettings
from training.predictions.learning import Trained, train_all
from training.predictions.models import predictions_registry, read_manifest
from training.predictions.scoring import score
from training.progress import progress_bar
from training.spreading import add_workers, workers_of

RATE = "AUC {auc:.3f}, log loss {loss:.4f} against {loss_of_mean:.4f} of the base rate, calibration error {calibration_error:.4f}"
VALUE = (
    "deviance {loss:.4f} against {loss_of_mean:.4f} of the mean{lifetime}, MAE {mae:.3f}, R2 {r2:.3f}, "
    "{mean_predicted:.3f} expected and {mean:.3f} come"
)


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:
    """Exit code: 0 done, 1 where a prediction was refused. Errors are raised for the command line to tell."""
    options = _parser().parse_args(argv[1:])
    run: Callable[[argparse.Namespace, Path, str | None], int] = options.run
    return run(options, home, redis_url)


def _train(options: argparse.Namespace, home: Path, redis_url: str | None) -> int:  # noqa: ARG001  # every verb is called alike
    with progress_bar("Training") as tell:
        settings = FitSettings(seed=options.seed, threads=options.threads)
        found = train_all(home, options.names, options.at or time.time(), settings, force=options.force, progress=tell)
    for one in found:
        print(told(one))
    if not found:
        raise NotReady(f"Expected predictions to train, found none - at `{home / 'features' / 'predictions.yaml'}`")
    return 0 if all(one.model_id for one in found) else 1


def told(one: Trained) -> str:
    """What became of a prediction, in a few lines."""
    lines = [f"`{one.name}`: {f'`{one.model_id}` is used from now on' if one.model_id else 'refused, `--force` overrides'}"]
    if one.figures:
        held = dt.datetime.fromtimestamp(one.cuts[-1], dt.UTC)
        lines.append(
            f"  learned from {one.rows:,} rows at {len(one.cuts) - 1} moments, "
            f"judged by {one.figures['rows']:,.0f} at {held:%Y-%m-%d}"
        )
        lines.append(f"  {figures_line(one.figures)}")
    return "\n".join([*lines, *(f"  {reason}" for reason in one.reasons)])


def figures_line(figures: dict[str, float]) -> str:
    """The figures that people compare."""
    other = figures.get("loss_of_lifetime_model")
    lifetime = "" if other is None else f" and {other:.4f} of the lifetime model"
    return (RATE if "auc" in figures else VALUE).format(**figures, lifetime=lifetime)


def _score(options: argparse.Namespace, home: Path, redis_url: str | None) -> int:
    with resolve_redis(redis_url, home) as url:
        found = score(home, url, options.at or time.time(), workers_of(options))
    for name, count in found.customers.items():
        print(f"`{name}` of {count} customers is in Redis")
    for name in found.untrained:
        print(f"`{name}` is not trained yet: its feature is missing")
    return 0


def _list(options: argparse.Namespace, home: Path, redis_url: str | None) -> int:  # noqa: ARG001  # every verb is called alike
    registry = predictions_registry(home)
    manifests = [read_manifest(registry.bundle_folder(name)) for name in registry.bundles()]
    if not manifests:
        raise NotReady("Expected a kept prediction, found none: run `nextbest predictions train`")
    used = set(registry.current().others.values())
    for one in sorted(manifests, key=lambda m: (m.prediction.name, m.created_at)):
        marks = [mark for mark, is_so in (("used", one.model_id in used), ("forced", bool(one.forced))) if is_so]
        print(f"{one.model_id}  {', '.join(marks) or '-'}\n  {figures_line(one.figures)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nextbest predictions", description="Predictions as features: learn, score, list.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("train", help="learn what customers will do; kept where it beats what needs no model")
    training.set_defaults(run=_train)
    training.add_argument("names", nargs="*", metavar="NAME", help="of predictions.yaml (default: all)")
    training.add_argument("--force", action="store_true", help="keep it all the same; its manifest says so")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--threads", type=int, default=2)
    scoring = verbs.add_parser("score", help="write what the kept models say of everybody, with its moment, and copy it to Redis")
    scoring.set_defaults(run=_score)
    add_workers(scoring)
    for verb in (training, scoring):
        verb.add_argument("--at", type=_moment, metavar="MOMENT", help="as of when, RFC 3339 (default now)")
    verbs.add_parser("list", help="kept models, with their figures").set_defaults(run=_list)
    return parser


def _moment(text: str) -> float:
    try:
        return moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"Expected a moment such as `2026-01-31T09:00:00Z`, got `{text}`") from error
