"""`wvs api`, `wvs executor` and `wvs openapi`: the long-running processes, wired from settings."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Generator
from typing import Any

import msgspec
import uvloop
from prometheus_client import start_http_server

from wvs.cli.wvs.child_process import announce, end_with_parent
from wvs.cli.wvs.environment import database_url
from wvs.executor.worker import Executor
from wvs.http.server import listen, serve
from wvs.http.wiring import document, open_api
from wvs.settings import InvalidSetting, Settings
from wvs.telemetry.metrics import Metrics


def run_api(settings: Settings, *, allow_remote: bool) -> int:
    """Serves until it is drained; the URL goes to stdout, or to the file descriptor that `wvs up` named."""
    end_with_parent()
    url = database_url(settings)
    try:
        listener = listen(settings.host, settings.port, allow_remote=allow_remote)
    except OSError as error:
        raise InvalidSetting(f"WVS_HOST={settings.host} WVS_PORT={settings.port}: {error.strerror}") from error
    uvloop.run(_serve(settings, url, listener))
    return 0


def run_executor(settings: Settings) -> int:
    """Works until it is drained. What hangs on the volume then does not hold up the process: it ends with 1."""
    end_with_parent()
    metrics = Metrics()
    executor = Executor(settings, database_url(settings), metrics)
    with _metrics_server(settings, metrics):
        uvloop.run(_execute(executor))
    if executor.stuck:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not an exit: Python would first wait for its threads, and one of them hangs.
        os._exit(1)
    return 0


def print_openapi() -> int:
    """The document, formatted."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document())).decode() + "\n")
    return 0


async def _serve(settings: Settings, url: str, listener: socket.socket) -> None:
    with listener:
        async with open_api(settings, url) as api:
            await serve(api, listener, on_listening=announce)


async def _execute(executor: Executor) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, executor.stop)
    await executor.run()


@contextlib.contextmanager
def _metrics_server(settings: Settings, metrics: Metrics) -> Generator[None]:
    if settings.executor_metrics_port == 0:
        yield
        return
    try:
        started: Any = start_http_server(settings.executor_metrics_port, settings.host, metrics.registry)
    except OSError as error:
        raise InvalidSetting(
            f"WVS_EXECUTOR_METRICS_PORT={settings.executor_metrics_port}: {error.strerror}; "
            "choose another port, or 0 for none"
        ) from error
    server, thread = started
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
