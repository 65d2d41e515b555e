"""Failures that do not end the work that met them: each is counted in a metric and logged."""

from typing import Any

import structlog

from wvs.telemetry.metrics import Metrics


def survived(
    metrics: Metrics, where: str, error: BaseException, event: str, *, crashed: bool = False, **fields: Any
) -> None:
    """Counts `error` in `wvs_ignored_failures_total{where}` and logs it as `event`, with `fields`.

    A failure that was foreseen (an outage, a full volume) is a warning without a traceback. `crashed` says that it was
    not foreseen: it is logged as an error, with the traceback.
    """
    metrics.ignored_failures.labels(where).inc()
    log = structlog.get_logger("wvs")
    if crashed:
        log.error(event, where=where, exc_info=error, **fields)
    else:
        log.warning(event, where=where, error=f"{type(error).__name__}: {error}", **fields)
