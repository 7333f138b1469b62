"""What an operator can set, read once at start: command line first, then environment, then these defaults."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from service.errors import BadRequest

PREFIX = "NEXTBEST_"
DAY = 86_400.0
# As browsers tell it: in lower case, no path.
ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://([a-z0-9_.*-]+|\[[0-9a-f:.]+\])(:([0-9]+|\*))?")

Count = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]  # 0: one that is free
Milliseconds = Annotated[float, msgspec.Meta(gt=0.0, le=3_600_000.0)]
Seconds = Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)]
Drain = Annotated[float, msgspec.Meta(ge=0.0, le=86_400.0)]  # seconds
Days = Annotated[float, msgspec.Meta(gt=0.0, le=3653.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every field can be set as `NEXTBEST_<FIELD>` in the environment."""

    home: str = ".nextbest"
    """Folder of log, lake, registry, features and the private Redis."""

    redis_url: str | None = None
    """Redis to use: `redis://host:6379/0`, `unix:///path`, or `redis+cluster://host:6379,host:6379`; without it a private one."""

    host: str = "127.0.0.1"
    """Address to listen on. Beyond this machine, only with keys: `nextbest keys make`."""

    port: Port = 8080
    """Port to listen on."""

    workers: Count = 1
    """Processes that answer requests; each is one event loop with its own log segments."""

    redis_timeout_ms: Milliseconds = 30.0
    """Longest wait for customer features, in milliseconds; then the answer does without them."""

    redis_intake_timeout_ms: Milliseconds = 2000.0
    """Longest wait for Redis to take events, outcomes and links, in milliseconds; then Redis lacks them until a rebuild."""

    coalesce_limit: Count = 64
    """Most requests decided in one batch."""

    batches_in_flight: Count = 2
    """Batches that may wait for Redis or the disk at the same time, per worker."""

    log_mode: Literal["fsync", "interval"] = "fsync"
    """When a record is acknowledged: `fsync`, once it is on disk; `interval`, once it is written, with a sync every interval."""

    log_interval_ms: Milliseconds = 100.0
    """In the mode `interval`: what a power loss may take of what was acknowledged, in milliseconds. `/status` says so."""

    attribution_days: Days = 30.0
    """How long after it happened an outcome counts, in days; ids of outcomes and events are known a day longer."""

    drain_s: Drain = 1.0
    """After SIGTERM, how long requests are still accepted while `/ready` says no, in seconds."""

    shadow_share: Share = 0.1
    """Part of the decisions, 0 to 1, that a staged shadow is asked about once they are answered; fewer where many come."""

    watch_interval_s: Seconds = 0.25
    """How often to look whether a new catalog or bundle was published, in seconds."""

    otlp_endpoint: str | None = None
    """Collector of traces, such as `http://localhost:4318`: needs the extra `tracing`. Without it nothing is traced."""

    trace_share: Share = 0.01
    """Part of the requests that is traced, 0 to 1, beside those whose caller sends `traceparent` and asks for it."""

    log_level: str = "info"
    """Least severe message that is logged: debug, info, warning or error."""

    allow_origins: str | None = None
    """Web pages that may read answers (CORS), with commas: `https://shop.example`; `*` for all. `/nextbest.js` needs it."""

    tls_certificate: str | None = None
    """File with the certificate (chain), PEM: then the service speaks HTTPS."""

    tls_key: str | None = None
    """File with the certificate's private key, PEM."""

    trusted_proxies: str | None = None
    """Addresses, with commas, whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed; nobody's without it."""

    body_limit: Count = 4_000_000
    """Largest accepted request body, in bytes."""

    @property
    def origins(self) -> list[str]:
        """The web pages that may read answers."""
        return [origin.strip() for origin in (self.allow_origins or "").split(",") if origin.strip()]

    @property
    def ids_kept_s(self) -> float:
        """How long ids are known: the attribution window and a day, for clients that retry and clocks that differ."""
        return (self.attribution_days + 1.0) * DAY

    @property
    def sync_interval_s(self) -> float | None:
        """Between two syncs of the log; None where each record waits for its own."""
        return self.log_interval_ms / 1000 if self.log_mode == "interval" else None

    @property
    def folder(self) -> Path:
        return Path(self.home)


def settings_from(environment: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Settings:
    """Settings from `NEXTBEST_*` variables, then from overrides that are not None. Raises BadRequest naming the setting."""
    given: dict[str, object] = {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environment.items()
        if key.startswith(PREFIX) and key.removeprefix(PREFIX).lower() in Settings.__struct_fields__
    }
    given |= {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        settings = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        name = str(error).rpartition("$.")[2].rstrip("`")
        raise BadRequest(f"Settings: {error}, set by `{PREFIX}{name.upper()}`") from error
    for origin in settings.origins:
        if not ORIGIN.fullmatch(origin):
            raise BadRequest(
                f"Settings: Expected `*`, or `scheme://host[:port]` in lower case and without a path, "
                f"got `{origin}` - at `$.allow_origins`, set by `{PREFIX}ALLOW_ORIGINS`"
            )
    return settings
