"""`create_app(settings, parts)`: the only module that knows every other one."""

import asyncio
import contextlib
import gc
import importlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import Any, NamedTuple

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from features.event_types import CLOCK_SKEW_S, home_event_types
from features.homes import home_contract
from service.alerts import AlertDesk, by_type
from service.api.admission import Limiter
from service.api.browser import browser_script
from service.api.consents import consents, consents_of
from service.api.decisions import decision
from service.api.door import Door
from service.api.events import events
from service.api.guarding import Guard, check_routes
from service.api.identities import identities
from service.api.openapi import SpeltFigures, openapi_config
from service.api.operations import live, metrics, ready
from service.api.outcomes import outcomes
from service.api.problems import from_framework, from_nextbest, from_unexpected
from service.api.recommend import recommend
from service.api.status import Standing, status
from service.api.traced import TracedRequests
from service.bundles.archive import EngineArchive
from service.bundles.engines import EngineSource, watch
from service.catalog.alerting import home_alerts
from service.consents import ConsentIntake, purposes_of
from service.decision.engine import Engine
from service.draining import drained, stop_with_parent
from service.errors import BadRequest, DependencyFailed, NextbestError
from service.events import EventIntake
from service.explaining import Explainer
from service.files import DISK, Files
from service.identities import IdentityIntake
from service.keys import KeyRing, Rates, WatchedKeys
from service.logs import configure_logging, logger
from service.metrics import Metrics
from service.past import LoggedPast
from service.pipeline import Limits, Parts, Pipeline
from service.registry import Registry
from service.settings import Settings, settings_from
from service.shadows import ShadowDesk
from service.stores.alert_stream import RedisAlerts
from service.stores.completeness import nothing_written
from service.stores.consents import RedisConsents
from service.stores.contact_history import RedisContactHistory
from service.stores.customer_reader import RedisCustomerReader
from service.stores.decisions import find_decision
from service.stores.identities import RedisIdentities
from service.stores.links import open_link
from service.stores.live_features import RedisLiveFeatures
from service.stores.outages import tell_outages
from service.stores.segment_log import DECISIONS, SegmentLog
from service.tracing import NoTracer, Tracer

COLLECT = 50_000, 20, 100  # a decision makes 400 containers and no cycles: Python's own 700 would have them walked with each one
KEYS_ASKED = "_NEXTBEST_KEYS_ASKED"  # in the environment of workers: when their service started, it asked for keys
SWITCH_S = 0.0005  # how soon a thread that loads or explains gives way to the one that answers; Python's own 5 ms are a turn


class Desks(NamedTuple):
    """What stands beside the pipeline: who explains decisions, who takes events, who links ids, and who takes consents."""

    explainer: Explainer
    events: EventIntake
    identities: IdentityIntake
    consents: ConsentIntake


def create_app(
    settings: Settings, parts: Parts, engines: EngineSource, desks: Desks, keys: Callable[[], KeyRing] = KeyRing
) -> Litestar:
    """The service, from parts that somebody built: the real ones, or their in-memory twins. Without `keys` it asks for none."""
    limiter, guard = Limiter(parts.metrics), Guard(keys, Rates(), settings.body_limit)
    standing = Standing(version("nextbest"), parts.clock)
    state = {
        "parts": parts,
        "engines": engines,
        "explainer": desks.explainer,
        "events": desks.events,
        "identities": desks.identities,
        "consents": desks.consents,
        "metrics": parts.metrics,
        "limiter": limiter,
        "guard": guard,
        "pipeline": Pipeline(parts),
        "status": {
            "process": standing.process,
            "versions": engines.standing,
            "degraded": parts.metrics.shares,
            "stages": parts.metrics.slowest,
            "store": parts.reader.status,
            "admission": limiter.status,
            "log": parts.log.status,
        },
        "draining": False,
    }
    app = Litestar(
        route_handlers=[
            recommend,
            outcomes,
            events,
            identities,
            consents,
            consents_of,
            decision,
            browser_script,
            live,
            ready,
            status,
            metrics,
        ],
        exception_handlers={NextbestError: from_nextbest, HTTPException: from_framework, Exception: from_unexpected},
        lifespan=[lambda app: _running(app, settings)],
        openapi_config=openapi_config(version("nextbest")),
        plugins=[SpeltFigures()],
        request_max_body_size=settings.body_limit,
        cors_config=_cross_origin(settings.origins) if settings.origins else None,
        state=State(state),
        middleware=[*([TracedRequests(parts.tracer)] if parts.tracer.is_on else []), guard],
        logging_config=None,
    )
    check_routes(app)
    return app


def _cross_origin(origins: list[str]) -> CORSConfig:
    """For the script of web pages, which waits as long as it is told to."""
    return CORSConfig(allow_origins=origins, allow_methods=["GET", "POST"], expose_headers=["Retry-After"])


@contextlib.asynccontextmanager
async def _running(app: Litestar, settings: Settings) -> AsyncIterator[None]:
    """First the newest engine, then requests; at the end, answer what was asked and close what is open."""
    state: Any = app.state
    await asyncio.to_thread(state.engines.refresh)
    with contextlib.suppress(DependencyFailed):
        if not await state.parts.reader.begin():
            logger.warning("Redis has lost what is on disk: caps count as reached, consents as denied until `nextbest rebuild`")
    watcher = asyncio.create_task(watch(state.engines, settings.watch_interval_s))
    telling = asyncio.create_task(tell_outages(state.parts.reader, settings.watch_interval_s))
    try:
        yield
    finally:
        watcher.cancel()
        telling.cancel()
        await asyncio.gather(watcher, telling, return_exceptions=True)
        await state.pipeline.close()
        await state.events.close()
        await state.parts.log.close()
        await state.parts.reader.close()
        await asyncio.to_thread(state.parts.tracer.close)


def with_door(app: Litestar) -> Door | Litestar:
    """The service as it is served: where requests are traced, each goes through the framework."""
    parts: Parts = app.state.parts
    return app if parts.tracer.is_on else Door(app)


def tracer_from(settings: Settings, module: str = "service.otlp") -> Tracer:
    """Raises BadRequest where a collector is set and what `module` needs to speak to it is not installed."""
    if settings.otlp_endpoint is None:
        return NoTracer()
    try:
        otlp = importlib.import_module(module)  # 40 MB and half a second that only those pay who trace
    except ModuleNotFoundError as error:
        raise BadRequest(
            f"Expected `pip install nextbest[tracing]`, found no `{error.name}` - at setting `otlp_endpoint`"
        ) from error
    tracer: Tracer = otlp.OtlpTracer(settings.otlp_endpoint, settings.trace_share, version("nextbest"))
    return tracer


def check_documents(settings: Settings) -> None:
    """Raises what `create_from_settings` would: ContractError, AlertsInvalid, BadRequest."""
    contract = home_contract(settings.folder)
    home_alerts(settings.folder, contract, home_event_types(settings.folder, contract))
    open_link(settings.redis_url or "", timeout_ms=settings.redis_timeout_ms)
    tracer_from(settings).close()


def create_from_settings(settings: Settings, files: Files = DISK, *, keys_asked: bool = False) -> Litestar:
    """The service with its real parts. `files`: what the log is written with; `keys_asked`: others of it ask for keys."""
    contract = home_contract(settings.folder)
    counted = Metrics(shared=settings.workers > 1)
    registry, log = Registry(settings.folder / "registry"), settings.folder / "log"
    with contextlib.suppress(OSError):  # a registry that may only be read: training can work out most contracts
        registry.keep_contract(contract.fingerprint, contract.canonical)
    engines = EngineSource(registry, contract, EngineEvents(counted))
    link = open_link(settings.redis_url or "", timeout_ms=settings.redis_timeout_ms)
    # a connection of its own: nobody has a deadline here, and decisions do not wait behind a thousand events
    patient = open_link(settings.redis_url or "", timeout_ms=settings.redis_intake_timeout_ms)
    archive = EngineArchive(registry, contract)
    kept = SegmentLog(log, kept_s=settings.ids_kept_s + CLOCK_SKEW_S, interval_s=settings.sync_interval_s, files=files)
    parts = Parts(
        reader=RedisCustomerReader(link, contract, lambda: nothing_written(settings.folder), in_parts=True),
        history=RedisContactHistory(link, settings.ids_kept_s),
        log=kept,
        engine=lambda: engines.engine,
        metrics=counted,
        limits=Limits(settings.coalesce_limit, settings.batches_in_flight),
        ids_kept_s=settings.ids_kept_s,
        past=LoggedPast(lambda name: find_decision(log / DECISIONS, name, files), archive),
        tracer=tracer_from(settings),
        shadows=ShadowDesk(engines.shadows, kept, counted, settings.shadow_share),
        outcome_history=RedisContactHistory(patient, settings.ids_kept_s),
    )
    explainer = Explainer(lambda name: find_decision(log / DECISIONS, name), archive)
    identities_store = RedisIdentities(patient, contract, lambda: nothing_written(settings.folder))
    linking = IdentityIntake(parts.log, identities_store, parts.clock)
    types = home_event_types(settings.folder, contract)
    rules = by_type(home_alerts(settings.folder, contract, types))
    reader = RedisCustomerReader(patient, contract, lambda: nothing_written(settings.folder), in_parts=True)
    alerts = AlertDesk(rules, reader, parts.log, RedisAlerts(patient), counted, parts.clock)
    intake = EventIntake(parts.log, RedisLiveFeatures(patient, contract), types, counted, parts.clock, alerts=alerts)
    consenting = ConsentIntake(parts.log, RedisConsents(patient), lambda: purposes_of(parts.engine()), parts.clock)
    keys = WatchedKeys(settings.folder, is_asked=keys_asked)
    return create_app(settings, parts, engines, Desks(explainer, intake, linking, consenting), keys)


def create_from_environment() -> Door | Litestar:
    """For several workers: each builds its own service from the environment its parent set."""
    settings = settings_from(os.environ)
    configure_logging(settings.log_level)
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(*COLLECT)
    service = create_from_settings(settings, keys_asked=KEYS_ASKED in os.environ)
    stop_with_parent()
    return with_door(drained(service, settings.drain_s))


class EngineEvents:
    """Counts and logs what became of a new version, and keeps garbage collection away from it."""

    def __init__(self, counted: Metrics) -> None:
        self._counted = counted

    def __call__(self, engine: Engine | None, problem: str | None) -> None:
        if engine is None:
            self._counted.refusals.inc()
            logger.error("version refused, the one before it goes on serving", extra={"fields": {"problem": problem}})
        else:
            gc.collect()
            gc.freeze()  # a collection that walks all modules and an engine of 100 actions stops every request for 65 ms
            self._counted.swaps.inc()
            self._counted.catalog.set(engine.versions.catalog)
            logger.info(
                "engine took over", extra={"fields": {"catalog": engine.versions.catalog, "bundle": engine.versions.bundle}}
            )
