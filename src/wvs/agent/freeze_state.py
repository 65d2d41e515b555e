"""The freeze of one agent: stopped and flushed, under a token, and bounded by a deadline (design §7)."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from wvs.agent.errors import AgentError, CannotFreeze
from wvs.agent.flushing import Flusher
from wvs.agent.hooks import Hooks
from wvs.agent.observing import observe
from wvs.agent.protocol import Tree
from wvs.agent.threads import in_daemon_thread
from wvs.domain.values import FrozenProcesses
from wvs.engines.holders import process_view

GRACE_S: Final = 5.0
"""An agent without contact to the service thaws this long after the budget of the freeze."""

_LOOK_AFTER_S: Final = 0.01
"""The answer to a freeze is on its way by then."""

log = logging.getLogger("wvs.agent")


class FreezeState:
    """The agent in its live tree: it works, or it is frozen for freeze `number` until `deadline` (the loop's time).

    `is_frozen` is true from the moment at which the agent is asked to stop.
    """

    def __init__(self, hooks: Hooks, tree: Tree) -> None:
        self.tree = tree
        self.is_frozen = False
        self.number: int | None = None
        self.deadline: float | None = None
        self._hooks = hooks
        self._incarnation = f"{_boot_id()}-{secrets.token_hex(4)}"
        self._thaws = 0
        self._flusher: Flusher | None = None
        self._observation: Callable[[], Awaitable[dict[str, Any]]] | None = None
        self.enter(tree)

    @property
    def token(self) -> str:
        """Identifies this freeze of this agent. It changes with every boot, start of the agent, and thaw."""
        return f"{self._incarnation}-{self._thaws}"

    @property
    def is_overdue(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and asyncio.get_running_loop().time() >= self.deadline

    def enter(self, tree: Tree) -> None:
        """Records that the agent works in `tree`. Files in the tree before are no longer flushed."""
        self.close()
        self.tree = tree
        try:
            self._flusher = Flusher(tree.path)
        except CannotFreeze as error:
            log.warning("%s: no freeze can flush this tree: %s", tree.path, error)

    async def freeze(self, number: int, budget_s: float) -> str:
        """Stops the agent for freeze `number` and flushes what it wrote; returns the result of the flush.

        Raises `CannotFreeze` if that takes longer than `budget_s` seconds or fails: then the caller has to call `thaw`.
        """
        until = asyncio.get_running_loop().time() + budget_s
        self._hooks.on_deadline(until + GRACE_S)
        await self._stop(budget_s / 2)
        self.number = number
        flushed = await self._flush(until, budget_s)
        if not self._hooks.still_frozen():
            raise CannotFreeze("the agent ran again before the flush ended")
        self.deadline = until + GRACE_S
        return f"{flushed} ({self._hooks.caveat})" if self._hooks.caveat else flushed

    def frozen(self) -> FrozenProcesses:
        """What is stopped, for the certificate."""
        return self._hooks.frozen()

    def begin_observing(self, looked_from: str | None) -> None:
        """Observes the host in this freeze (`observing`). A look at its processes begins now, the rest in `observed`.

        The mounts alone take so little time that a snapshot's agent resumes first.
        """
        if looked_from == process_view():
            self._observation = lambda: self._observe(looked_from)
        else:
            look = asyncio.create_task(self._observe(looked_from, _LOOK_AFTER_S))
            self._observation = lambda: look

    async def observed(self, patience_s: float) -> dict[str, Any]:
        """What the session reports of its host; nothing if that takes too long."""
        observation, self._observation = self._observation, None
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                return {} if observation is None else await observation()
        return {}

    async def _observe(self, looked_from: str | None, after_s: float = 0.0) -> dict[str, Any]:
        await asyncio.sleep(after_s)
        root, writers = self.tree.path, self._hooks.writers
        return await in_daemon_thread(lambda: observe(root, writers(), looked_from))

    def still_frozen(self) -> bool:
        """Whether the agent has not run since `freeze`, as far as its hook can see."""
        return self._hooks.still_frozen()

    def extend(self, budget_s: float, requested_at: float) -> None:
        """Moves the deadline: the service holds the freeze for `budget_s` seconds from `requested_at`.

        Not from now: the answer may have arrived late.
        """
        self.deadline = requested_at + budget_s + GRACE_S
        self._hooks.on_deadline(self.deadline)

    async def thaw(self) -> None:
        """Resumes the agent. The next freeze has another token."""
        self._reset()
        await self._hooks.on_thaw()

    async def switch(self, tree: Tree) -> None:
        """Moves the agent to `tree`. An agent that runs is frozen first, so that it writes no more to the old tree."""
        self._hooks.on_deadline(asyncio.get_running_loop().time() + GRACE_S)
        if not self.is_frozen:
            self.is_frozen = True
            with suppress(CannotFreeze):  # it has to leave the old tree all the same
                await self._hooks.on_freeze()
        self._reset()
        self.enter(tree)
        await self._hooks.on_switch(tree)

    def close(self) -> None:
        """Closes the tree."""
        if self._flusher is not None:
            self._flusher.close()
            self._flusher = None

    async def _stop(self, patience_s: float) -> None:
        if self.is_frozen:
            return
        self.is_frozen = True
        try:
            async with asyncio.timeout(patience_s):
                await self._hooks.on_freeze()
        except TimeoutError:
            raise CannotFreeze(f"the agent did not stop within {patience_s:.1f} s") from None
        except (AgentError, OSError) as error:
            raise CannotFreeze(str(error)) from error

    async def _flush(self, until: float, budget_s: float) -> str:
        flusher = self._flusher
        if flusher is None:
            raise CannotFreeze("the live tree could not be opened, so it cannot be flushed")
        try:
            async with asyncio.timeout_at(until):
                return await in_daemon_thread(lambda: flusher.flush(self._hooks.writers))
        except TimeoutError:
            raise CannotFreeze(f"the flush did not end within {budget_s:.1f} s") from None
        except OSError as error:
            raise CannotFreeze(f"the flush failed: {error}") from error

    def _reset(self) -> None:
        self.is_frozen, self.number, self.deadline = False, None, None
        self._thaws += 1


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")
