"""`wvs executor`: builds the executor from the settings and runs it. It must not import the web framework: after all
executors have died, the start of a new one is time in which no task runs.
"""

import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Generator
from typing import Any

import structlog
import uvloop
from prometheus_client import start_http_server

from wvs.background import background
from wvs.cli.wvs.child_process import announce_ready, end_with_parent
from wvs.cli.wvs.environment import database_url
from wvs.executor.worker import Executor
from wvs.settings import InvalidSetting, Settings
from wvs.telemetry.metrics import Metrics, Program

log = structlog.get_logger(__name__)


def run_executor(settings: Settings) -> int:
    """Runs tasks until it is drained. If a thread then hangs on the volume, the process ends with 1 without waiting.

    Reports that tasks run on stdout, or to `wvs up` if that started this process.
    """
    end_with_parent()
    metrics = Metrics(Program.EXECUTOR)
    executor = Executor(settings, database_url(settings), metrics)
    with _metrics_server(settings, metrics) as metrics_url:
        uvloop.run(_execute(executor, ("executor", str(settings.volume_path), metrics_url or "")))
    if executor.stuck:
        sys.stdout.flush()
        sys.stderr.flush()
        # sys.exit would wait for all threads, and one of them hangs.
        os._exit(1)
    return 0


async def _execute(executor: Executor, ready: tuple[str, ...]) -> None:
    async def announce() -> None:
        await executor.serving.wait()
        announce_ready(*ready)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, executor.stop)
    async with background(announce()):
        await executor.run()


@contextlib.contextmanager
def _metrics_server(settings: Settings, metrics: Metrics) -> Generator[str | None]:
    """Serves the metrics during the block; yields their URL if the port is another one than the setting names.

    A port that is taken, mostly by another executor on the host, is no reason not to run tasks.
    """
    if settings.executor_metrics_port == 0:
        yield None
        return
    try:
        moved = False
        server, thread = _listen(settings, settings.executor_metrics_port, metrics)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise InvalidSetting(
                f"cannot listen on WVS_HOST={settings.host} "
                f"WVS_EXECUTOR_METRICS_PORT={settings.executor_metrics_port}: {error.strerror}; "
                "choose another port, or 0 to turn /metrics off"
            ) from error
        moved = True
        server, thread = _listen(settings, 0, metrics)
    host, port = server.server_address[:2]
    url = f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"
    if moved:
        log.warning("metrics_port_taken", wanted=settings.executor_metrics_port, url=url)
    try:
        yield url if moved else None
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _listen(settings: Settings, port: int, metrics: Metrics) -> Any:
    return start_http_server(port, settings.host, metrics.registry)
