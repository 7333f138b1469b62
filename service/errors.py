"""What can go wrong, as one tree. Each class is something a caller can do something about, and knows its HTTP status.

NextbestError
├── BadRequest              400  the request does not fit the wire format
│   ├── UnknownPlacement    404  no such placement in the catalog
│   ├── UnknownDecision     404  no such decision in the log
│   ├── TooLarge            413  the body is longer than it may be
│   ├── UnknownAlert        404  no such alert in the log
│   └── IdReused            422  the same id with other content
├── Unauthorized            401  no active key
├── Forbidden               403  a key for something else
├── TooManyRequests         429  more than a key allows
├── NotReady                503  nothing to answer with yet, or the log cannot take more
│   └── LogUnavailable      503  the disk refused a record: nothing was acknowledged
├── DependencyFailed        503  a store did not answer; caught where the answer degrades
│   ├── DependencyDown      503  it is known not to answer, and was not asked
│   ├── DependencyRefused   503  it answered that it will not
│   └── DependencyTimedOut  503  it was waited for as long as the settings allow
├── ModelFailed             503  a model gave no sensible rates; caught where the answer degrades
├── CatalogInvalid          422  every mistake of a catalog, each with its line
├── AlertsInvalid           422  every mistake of alerts.yaml, each with its line
├── AlertSettled            409  somebody has already acknowledged or closed the alert
├── ImportInvalid           422  every mistake of a table or its mapping, each with its line or row
├── BundleRefused           422  checksum, contract fingerprint or parity does not hold
├── PromotionRefused        409  a bundle's evaluation does not carry a promotion
└── RegistryError           409  a version does not exist, or already does
"""

import difflib
from collections.abc import Sequence


class NextbestError(Exception):
    """Base of every error that this project raises on purpose."""

    status = 500
    title = "Internal error"


class BadRequest(NextbestError):
    """The request does not fit the wire format."""

    status = 400
    title = "Bad request"


class UnknownPlacement(BadRequest):
    """The catalog has no such placement."""

    status = 404
    title = "Unknown placement"

    def __init__(self, placement: str, known: Sequence[str], where: str) -> None:
        names = ", ".join(f"`{name}`" for name in known) or "none"
        super().__init__(f"Expected a known placement ({names}), got `{placement}` - at `{where}`")


class UnknownDecision(BadRequest):
    """The log holds no such decision."""

    status = 404
    title = "Unknown decision"

    def __init__(self, decision_id: str) -> None:
        super().__init__(f"Expected the id of a logged decision, got `{decision_id}`")


class TooLarge(BadRequest):
    """The body is longer than it may be; it was not read."""

    status = 413
    title = "Body too large"


class UnknownAlert(BadRequest):
    """The log holds no such alert."""

    status = 404
    title = "Unknown alert"

    def __init__(self, alert_id: str) -> None:
        super().__init__(f"Expected the id of an alert that was raised, got `{alert_id}`")


class IdReused(BadRequest):
    """An id that a client chose names one request, outcome or event for good."""

    status = 422
    title = "Id reused"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def id_reused(field: str, name: str) -> str:
    """What is said of it."""
    return f"Expected what was sent with this `{field}` before, got something else: `{name}`"


class Unauthorized(NextbestError):
    """There is no active key with the request."""

    status = 401
    title = "Unauthorized"


class Forbidden(NextbestError):
    """The key is for something else."""

    status = 403
    title = "Forbidden"


class TooManyRequests(NextbestError):
    """The key has had its share of this second: come back."""

    status = 429
    title = "Too many requests"


class NotReady(NextbestError):
    """There is nothing to answer with yet."""

    status = 503
    title = "Not ready"


class LogUnavailable(NotReady):
    """The log could not be written: nothing was acknowledged, try again."""

    title = "Log unavailable"


class DependencyFailed(NextbestError):
    """A store did not answer in time, or not sensibly."""

    status = 503
    title = "Dependency failed"


class DependencyDown(DependencyFailed):
    """A store is known not to answer, and was not asked."""

    title = "Dependency down"


class DependencyRefused(DependencyFailed):
    """A store answered with an error, and did nothing of what was asked: read-only, or out of memory."""

    title = "Dependency refused"


class DependencyTimedOut(DependencyFailed):
    """A store was waited for as long as the settings allow."""

    title = "Dependency timed out"


def no_answer(error: DependencyFailed) -> bool:
    """Whether the store was asked, and nobody knows what it did."""
    return not isinstance(error, DependencyDown | DependencyRefused)


class ModelFailed(NextbestError):
    """A model gave no sensible rates: the answer does without it."""

    status = 503
    title = "Model failed"


class CatalogInvalid(NextbestError):
    """A catalog with mistakes: all of them, none published."""

    status = 422
    title = "Catalog invalid"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class AlertsInvalid(NextbestError):
    """A document of alerts with mistakes: all of them, none in force."""

    status = 422
    title = "Alerts invalid"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class AlertSettled(NextbestError):
    """Somebody was faster: the message says who, and when."""

    status = 409
    title = "Alert settled"


class BundleRefused(NextbestError):
    """A bundle that must not serve; the message says which promise it breaks."""

    status = 422
    title = "Bundle refused"


class PromotionRefused(NextbestError):
    """The evidence does not carry it; the message gives the verdict and its reasons."""

    status = 409
    title = "Promotion refused"

    def __init__(self, bundle: str, verdict: str, reasons: Sequence[str]) -> None:
        listed = "; ".join(reasons)
        super().__init__(
            f"Expected the verdict `promote` for bundle `{bundle}`, got `{verdict}`: {listed} (`--force --why` overrides)"
        )


class RegistryError(NextbestError):
    """A version that does not exist, or already does."""

    status = 409
    title = "Registry conflict"


class ImportInvalid(NextbestError):
    """A table or its mapping with mistakes: all of them, nothing imported."""

    status = 422
    title = "Import invalid"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def nearest(name: str, known: Sequence[str]) -> str:
    """` (did you mean ...?)`, or what is known where nothing is near."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f" (did you mean `{close[0]}`?)"
    return f" ({', '.join(f'`{k}`' for k in sorted(known)[:12])})" if known else ""
