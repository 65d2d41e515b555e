"""A failure that is survived is counted and logged."""

import structlog

from wvs.telemetry.failures import survived
from wvs.telemetry.metrics import Metrics


def counted(metrics: Metrics, where: str) -> float:
    return metrics.registry.get_sample_value("wvs_ignored_failures_total", {"where": where}) or 0.0


def test_a_foreseen_failure_is_a_warning_without_a_traceback() -> None:
    metrics = Metrics()
    with structlog.testing.capture_logs() as lines:
        survived(metrics, "sweep", OSError(5, "Input/output error"), "sweep_failed", workspace_id="ws_1")
    assert lines == [
        {
            "event": "sweep_failed",
            "log_level": "warning",
            "where": "sweep",
            "error": "OSError: [Errno 5] Input/output error",
            "workspace_id": "ws_1",
        }
    ]
    assert counted(metrics, "sweep") == 1


def test_an_unforeseen_failure_is_an_error_with_its_traceback() -> None:
    metrics = Metrics()
    error = KeyError("x")
    with structlog.testing.capture_logs() as lines:
        survived(metrics, "slot", error, "slot_crashed", crashed=True)
    assert lines == [{"event": "slot_crashed", "log_level": "error", "where": "slot", "exc_info": error}]
    assert counted(metrics, "slot") == 1
