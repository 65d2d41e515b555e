"""What every operation of one executor works with."""

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

    `hint_sessions` tells the sessions that there is something new for them; `freeze_answered` tells when one answered.
    `hint` tells everybody, soon, that there may be a task to claim, or that one that was waited for is done.
    `tidying` ends, at shutdown, removals that nobody waits for: the sweeper does the rest later.
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
        """The answer of a blocking call, made in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, lambda: call(*args, **kwargs))


class Job(Struct, frozen=True):
    """One claimed task on the bench, from its start to its end."""

    bench: Workbench
    claim: Claim
    watch: ClaimWatch

    @property
    def workspace(self) -> str:
        """The workspace's name on the volume."""
        return format_id(WORKSPACE, self.claim.workspace_id)

    @property
    def tree(self) -> str:
        """The name of the tree that this attempt makes: no other attempt ever has it."""
        return tree_name(self.claim.task_id, self.claim.fence)

    @property
    def hold(self) -> Hold:
        return Hold(self.claim.task_id, self.claim.fence)

    @property
    def cancel(self) -> Cancel:
        return self.watch.cancel
