"""`nextbest serve`: start Redis where none was given, then answer requests until told to stop."""

import argparse
import gc
import os
import ssl
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from uvicorn.supervisors import Multiprocess

from features.redis_server import resolve_redis
from service.api.admission import AdmittingProtocol
from service.app import COLLECT, KEYS_ASKED, SWITCH_S, check_documents, create_from_settings, with_door
from service.draining import drained
from service.errors import BadRequest
from service.keys import read_keys
from service.listening import dealt_out
from service.logs import configure_logging, logger
from service.settings import PREFIX, Settings, settings_from

LOOPBACK = ("127.0.0.1", "::1", "localhost")
PATIENCE_S = 10  # after SIGTERM, for what is under way: whoever sends half a body is not waited for without end


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:
    """The command. Settings come from the command line, then the environment."""
    settings = settings_from(os.environ, {"home": str(home), "redis_url": redis_url, **_options(argv)})
    configure_logging(settings.log_level)
    check_door(settings)
    with resolve_redis(settings.redis_url, settings.folder) as url:
        serve(settings_from(os.environ, {**_given(settings), "redis_url": url}))
    return 0


def check_door(settings: Settings) -> None:
    """Raises BadRequest where the service would be open to others without asking for keys, or where TLS cannot be spoken."""
    if settings.host not in LOOPBACK and not read_keys(settings.folder):
        raise BadRequest(
            f"Expected keys (`nextbest keys make NAME`) or a host of this machine ({', '.join(LOOPBACK)}), found no key and host "
            f"`{settings.host}`"
        )
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise BadRequest("Expected `tls_certificate` and `tls_key` together, got one of them")
    if settings.tls_certificate is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_certificate, settings.tls_key)
        except OSError as error:
            where = f"`{settings.tls_certificate}`, `{settings.tls_key}`"
            raise BadRequest(f"Expected a certificate and its key, got something else: {error} - at {where}") from error


def _options(argv: Sequence[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="nextbest serve", description="Answer /recommend and take /outcomes.")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8080)")
    parser.add_argument("--workers", type=int, help="processes that answer (default 1)")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    return vars(parser.parse_args(argv[1:]))


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT: then say so, stop accepting, answer what was asked, and close the log."""
    logger.info("serving", extra={"fields": {"host": settings.host, "port": settings.port, "workers": settings.workers}})
    common = {
        "host": settings.host,
        "port": settings.port,
        "log_config": None,
        "access_log": False,
        "loop": "uvloop",
        "http": AdmittingProtocol,
        "proxy_headers": settings.trusted_proxies is not None,
        "forwarded_allow_ips": settings.trusted_proxies,
        "ssl_certfile": settings.tls_certificate,
        "ssl_keyfile": settings.tls_key,
        "timeout_graceful_shutdown": PATIENCE_S,
    }
    if settings.workers == 1:
        sys.setswitchinterval(SWITCH_S)
        gc.set_threshold(*COLLECT)
        uvicorn.run(with_door(drained(create_from_settings(settings), settings.drain_s)), **common)  # type: ignore[arg-type]  # the values fit their parameters
        return
    check_documents(settings)  # a worker that cannot start is started again, without end
    with tempfile.TemporaryDirectory(prefix="nextbest-metrics-") as shared:
        asked = {KEYS_ASKED: "1"} if read_keys(settings.folder) else {}
        os.environ.update(_environment(settings), PROMETHEUS_MULTIPROC_DIR=shared, **asked)
        config = uvicorn.Config("service.app:create_from_environment", factory=True, workers=settings.workers, **common)  # type: ignore[arg-type]  # as above
        Multiprocess(config, sockets=[dealt_out(config.bind_socket())]).run()


def _environment(settings: Settings) -> dict[str, str]:
    return {PREFIX + key.upper(): str(value) for key, value in _given(settings).items()}


def _given(settings: Settings) -> dict[str, object]:
    values = {key: getattr(settings, key) for key in settings.__struct_fields__}
    return {key: value for key, value in values.items() if value is not None}
