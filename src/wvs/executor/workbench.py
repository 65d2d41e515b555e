"""The tools of one executor, and one claimed task as its operation gets it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from msgspec import Struct, field

from wvs.application.write_path import WritePath
from wvs.domain.ids import WORKSPACE, format_id
from wvs.engines.base import Cancel
from wvs.engines.volume.names import tree_name
from wvs.engines.volume.volume import Volume
from wvs.eventlog.recorder import Hold
from wvs.executor.claim_watch import ClaimWatch
from wvs.queue.lanes import Claim
from wvs.settings import Settings
from wvs.signals.hints import Broadcast
from wvs.telemetry.metrics import Metrics

P = ParamSpec("P")
R = TypeVar("R")


class Workbench(Struct, frozen=True):
    """One executor's volume, write path, threads for the volume's blocking calls, settings and metrics.

    `hint_sessions` notifies the sessions of news; `freeze_answered` wakes when a session answered a freeze.
    `hint` notifies executors and waiting requests that a task may be claimable or done.
    `tidying` cancels, at shutdown, the removals that no task waits for: the sweeper finishes them later.
    """

    executor_id: str
    volume: Volume
    path: WritePath
    threads: ThreadPoolExecutor
    settings: Settings
    metrics: Metrics
    hint_sessions: Callable[[], None] = lambda: None
    freeze_answered: Broadcast = field(default_factory=Broadcast)
    hint: Callable[[], None] = lambda: None
    tidying: Cancel = field(default_factory=Cancel)

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs a blocking call in a thread; returns its result."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, lambda: call(*args, **kwargs))


class Job(Struct, frozen=True):
    """One claimed task, from its start to its end."""

    bench: Workbench
    claim: Claim
    watch: ClaimWatch

    @property
    def workspace(self) -> str:
        """The workspace's name on the volume."""
        return format_id(WORKSPACE, self.claim.workspace_id)

    @property
    def tree(self) -> str:
        """The name of the tree that this attempt makes. No other attempt has the same name."""
        return tree_name(self.claim.task_id, self.claim.fence)

    @property
    def hold(self) -> Hold:
        return Hold(self.claim.task_id, self.claim.fence)

    @property
    def cancel(self) -> Cancel:
        return self.watch.cancel
