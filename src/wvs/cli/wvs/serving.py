"""`wvs api`, `wvs executor` and `wvs openapi`: builds the API and the executor from the settings and runs them."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Generator
from typing import Any

import msgspec
import uvloop
from prometheus_client import start_http_server

from wvs.cli.wvs.child_process import announce_ready, end_with_parent
from wvs.cli.wvs.environment import database_url
from wvs.executor.worker import Executor
from wvs.http.server import listen, serve
from wvs.http.wiring import document, open_api
from wvs.settings import InvalidSetting, Settings
from wvs.telemetry.metrics import Metrics


def run_api(settings: Settings, *, allow_remote: bool) -> int:
    """Serves until it is drained. Reports the URL on stdout, or to `wvs up` if that started this process."""
    end_with_parent()
    url = database_url(settings)
    try:
        listener = listen(settings.host, settings.port, allow_remote=allow_remote)
    except OSError as error:
        other = "host" if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL else "port"
        raise InvalidSetting(
            f"cannot listen on WVS_HOST={settings.host} WVS_PORT={settings.port}: {error.strerror}; "
            f"choose another {other}"
        ) from error
    uvloop.run(_serve(settings, url, listener))
    return 0


def run_executor(settings: Settings) -> int:
    """Runs tasks until it is drained. If a thread then hangs on the volume, the process ends with 1 without waiting."""
    end_with_parent()
    metrics = Metrics()
    executor = Executor(settings, database_url(settings), metrics)
    with _metrics_server(settings, metrics):
        uvloop.run(_execute(executor))
    if executor.stuck:
        sys.stdout.flush()
        sys.stderr.flush()
        # sys.exit would wait for all threads, and one of them hangs.
        os._exit(1)
    return 0


def print_openapi() -> int:
    """Prints the formatted OpenAPI document."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document())).decode() + "\n")
    return 0


async def _serve(settings: Settings, url: str, listener: socket.socket) -> None:
    with listener:
        async with open_api(settings, url) as api:
            await serve(api, listener, on_listening=announce_ready)


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
            f"cannot listen on WVS_EXECUTOR_METRICS_PORT={settings.executor_metrics_port}: {error.strerror}; "
            "choose another port, or 0 to turn /metrics off"
        ) from error
    server, thread = started
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
