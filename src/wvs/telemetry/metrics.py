"""Every metric of WVS, in its own registry. Units are base units; no label carries an id, a name or a path."""

import platform
from enum import StrEnum
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from wvs import __version__

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_FREEZE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 45, 90)
_WORK_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


class Program(StrEnum):
    """The programs that export metrics."""

    API = "api"
    EXECUTOR = "executor"


_API: Final = frozenset({Program.API})
_EXECUTOR: Final = frozenset({Program.EXECUTOR})
_BOTH: Final = _API | _EXECUTOR

_UNKNOWN: Final = float("nan")
"""The value of a gauge before the first look: a zero would be a false alarm."""


class Metrics:
    """The metrics of one process. Create one and pass it on, so that tests do not share counts.

    `program` exports only its own metrics; the others count unseen. None exports all.
    """

    def __init__(self, program: Program | None = None) -> None:
        disable_created_metrics()  # it would double the series of every counter, unread
        self._program = program
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        self._describe_build()
        self._describe_http()
        self._describe_tasks()
        self._describe_freezes()
        self._describe_clones()
        self._describe_log()
        self._describe_resources()

    def render(self) -> bytes:
        """The Prometheus text format, of type `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _describe_build(self) -> None:
        build_info = self._gauge(
            _BOTH, "wvs_build_info", "Always 1; the labels name the version of WVS and of Python.", "version", "python"
        )
        build_info.labels(version=__version__, python=platform.python_version()).set(1)

    def _describe_http(self) -> None:
        self.http_requests = self._counter(
            _API, "wvs_http_requests_total", "Requests answered, by route template.", "route", "method", "status"
        )
        self.http_request_duration_seconds = self._histogram(
            _API, "wvs_http_request_duration_seconds", "Time to answer a request.", _REQUEST_BUCKETS, "route", "method"
        )
        self.refusals = self._counter(
            _API, "wvs_refusals_total", "Requests answered with a problem, by error code.", "code"
        )

    def _describe_tasks(self) -> None:
        self.tasks = self._gauge(_API, "wvs_tasks", "Tasks that are queued, running or failed.", "kind", "state")
        self.task_oldest_pending_age_seconds = self._gauge(
            _API,
            "wvs_task_oldest_pending_age_seconds",
            "Age of the oldest queued task; 0 if no task is queued.",
            "kind",
        )
        self.task_duration_seconds = self._histogram(
            _EXECUTOR,
            "wvs_task_duration_seconds",
            "Time from the acceptance of a task to its final state.",
            _WORK_BUCKETS,
            "kind",
            "outcome",
        )
        self.task_attempts = self._counter(
            _EXECUTOR, "wvs_task_attempts_total", "Attempts that ended.", "kind", "outcome"
        )
        self.executors = self._gauge(_API, "wvs_executors", "Executors that can run tasks; without any, tasks wait.")
        self.executors.set(_UNKNOWN)
        self.fence_rejections = self._counter(
            _EXECUTOR,
            "wvs_fence_rejections_total",
            "Renewals, progress reports and results refused because a newer claim exists.",
        )
        self.lease_lost = self._counter(
            _EXECUTOR, "wvs_lease_lost_total", "Leases that expired or were taken from a holder."
        )

    def _describe_freezes(self) -> None:
        self.quiesce_duration_seconds = self._histogram(
            _EXECUTOR,
            "wvs_quiesce_duration_seconds",
            "Time from opening a freeze to its proof or failure.",
            _FREEZE_BUCKETS,
            "outcome",
        )
        self.freeze_seconds = self._histogram(
            _EXECUTOR,
            "wvs_freeze_seconds",
            "Time for which all agents of a freeze were frozen together.",
            _FREEZE_BUCKETS,
        )
        self.bystanders = self._counter(
            _EXECUTOR,
            "wvs_bystanders_total",
            "Processes outside every session that held a live tree when it was cloned or replaced.",
        )
        self.sessions = self._gauge(_API, "wvs_sessions", "Sessions that have not ended.", "state")

    def _describe_clones(self) -> None:
        self.clone_duration_seconds = self._histogram(
            _EXECUTOR, "wvs_clone_duration_seconds", "Time to clone one tree.", _WORK_BUCKETS, "engine", "kind"
        )
        self.clone_bytes = self._counter(_EXECUTOR, "wvs_clone_bytes_total", "Bytes of the files in finished clones.")
        self.clone_files = self._counter(_EXECUTOR, "wvs_clone_files_total", "Entries in finished clones.")
        self.sweeper_trees = self._counter(
            _EXECUTOR,
            "wvs_sweeper_trees_total",
            "What the sweeper did or found, by action as in its log; stopped: the database may be from a backup.",
            "action",
        )

    def _describe_log(self) -> None:
        self.event_append = self._counter(_BOTH, "wvs_event_append_total", "Events committed to the log.")
        self.event_conflicts = self._counter(
            _BOTH, "wvs_event_conflicts_total", "Commands decided again because another command was committed first."
        )
        self.follower_lag_events = self._gauge(
            _API,
            "wvs_follower_lag_events",
            "Positions between the last event of the log and the last one that this process has read.",
        )
        self.watermark_age_seconds = self._gauge(
            _API,
            "wvs_watermark_age_seconds",
            "Time for which the same transaction has kept readers from the newest events; 0 without one.",
        )
        self.watermark_holder_age_seconds = self._gauge(
            _API,
            "wvs_watermark_holder_age_seconds",
            "The same time, with the database session that readers wait for; absent unless it is stuck.",
            "application",
            "pid",
        )
        self.event_streams = self._gauge(_API, "wvs_event_streams", "Open live streams of events.")
        self.event_stream_ends = self._counter(
            _API,
            "wvs_event_stream_ends_total",
            "Streams that ended: the client left, read nothing for too long (stalled), or the service stopped.",
            "reason",
        )

    def _describe_resources(self) -> None:
        self.volume_brake = self._gauge(
            _BOTH,
            "wvs_volume_brake",
            "1 while so many trees are lost or unknown that a person has to decide; else 0.",
        )
        self.volume_free_bytes = self._gauge(_EXECUTOR, "wvs_volume_free_bytes", "Free bytes on the volume.")
        self.volume_free_bytes.set(_UNKNOWN)
        self.volume_stuck_trees = self._gauge(
            _EXECUTOR,
            "wvs_volume_stuck_trees",
            "Trees in the trash that could not be removed; `wvs volume check` says why.",
        )
        self.volume_stuck_trees.set(_UNKNOWN)
        self.disk_used_ratio = self._gauge(
            _EXECUTOR,
            "wvs_disk_used_ratio",
            "Used share of a disk: of the volume, and of an embedded PostgreSQL.",
            "disk",
        )
        self.pg_pool_in_use = self._gauge(_API, "wvs_pg_pool_in_use", "Pooled database connections in use.")
        self.ignored_failures = self._counter(
            _BOTH,
            "wvs_ignored_failures_total",
            "Failures that were logged and survived, by the place in the code.",
            "where",
        )

    # `of`: the programs that measure it, and therefore export it. The API knows no free space, for example.

    def _counter(self, of: frozenset[Program], name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry_of(of))

    def _gauge(self, of: frozenset[Program], name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry_of(of))

    def _histogram(
        self, of: frozenset[Program], name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self._registry_of(of))

    def _registry_of(self, of: frozenset[Program]) -> CollectorRegistry | None:
        return self.registry if self._program is None or self._program in of else None
