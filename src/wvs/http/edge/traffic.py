"""Records every request: one line in the access log and one increment of each metric."""

from typing import Final

import structlog
from prometheus_client import Counter, Histogram

from wvs.domain.errors import ErrorCode
from wvs.http.wire.context import RequestContext
from wvs.telemetry.metrics import Metrics

UNROUTED: Final = "unrouted"
# The parser understood no request line, so there is no method to count under.
UNPARSED: Final = "unparsed"
# A kubelet, HAProxy and Prometheus name a pod's address in Host, or send HTTP/1.0 without one. The answers have no ids,
# names or paths, so a web page that reads them by DNS rebinding learns nothing of a workspace.
PROBE_PATHS: Final = frozenset({"/livez", "/readyz", "/metrics"})

_MAX_LOGGED_KEY: Final = 255

_log = structlog.get_logger("wvs.http")


class Traffic:
    """Counts and logs requests under their route templates, never under paths, because paths contain ids."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # Looking up a labelled child takes a lock and several dicts. All labels have finite values, so this is bounded.
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def record_answer(
        self,
        *,
        context: RequestContext,
        route: str,
        method: str,
        status: int,
        duration_s: float,
        refusal: ErrorCode | None,
    ) -> None:
        """Records one finished request. The log context already has the request id and the trace."""
        requests, durations = self._of(route, method, status)
        requests.inc()
        durations.observe(duration_s)
        if refusal is not None:
            self._metrics.refusals.labels(refusal.value).inc()
        key = context.idempotency_key
        (_log.debug if route in PROBE_PATHS else _log.info)(
            "http.request",
            route=route,
            method=method,
            status=status,
            duration_ms=round(duration_s * 1000, 3),
            code=refusal,
            idempotency_key=key and key[:_MAX_LOGGED_KEY],
        )

    def record_unparsed(self, context: RequestContext, status: int, refusal: ErrorCode, detail: str) -> None:
        """Records a connection that was closed because its bytes were not a valid request."""
        self._metrics.http_requests.labels(UNROUTED, UNPARSED, str(status)).inc()
        self._metrics.refusals.labels(refusal.value).inc()
        _log.info("http.connection_refused", request_id=context.request_id, status=status, code=refusal, detail=detail)

    def _of(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        found = self._series.get((route, method, status))
        if found is None:
            found = self._series[route, method, status] = (
                self._metrics.http_requests.labels(route, method, str(status)),
                self._metrics.http_request_duration_seconds.labels(route, method),
            )
        return found
