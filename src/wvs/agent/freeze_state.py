"""How one agent stands still: stopped and flushed, under a token, and never longer than it may (design §7)."""

import asyncio
import logging
import secrets
from pathlib import Path
from typing import Final

from wvs.agent.errors import AgentError, FreezeRefused
from wvs.agent.flushing import Flusher
from wvs.agent.hooks import Hooks
from wvs.agent.protocol import Tree
from wvs.agent.threads import in_daemon_thread

GRACE_S: Final = 5.0
"""How long after its budget a freeze without word from the service is undone."""

log = logging.getLogger("wvs.agent")


class Standstill:
    """The agent in its live tree: at work, or standing still for freeze `number` until `deadline` (the loop's time)."""

    def __init__(self, hooks: Hooks, tree: Tree) -> None:
        self.tree = tree
        self.is_on = False
        self.number: int | None = None
        self.deadline: float | None = None
        self._hooks = hooks
        self._incarnation = f"{_boot_id()}-{secrets.token_hex(4)}"
        self._ended = 0
        self._flusher: Flusher | None = None
        self.enter(tree)

    @property
    def token(self) -> str:
        """Names this standstill: another one after every boot, start of the agent, and thaw."""
        return f"{self._incarnation}-{self._ended}"

    @property
    def is_overdue(self) -> bool:
        """Whether it has lasted as long as it may."""
        return self.deadline is not None and asyncio.get_running_loop().time() >= self.deadline

    def enter(self, tree: Tree) -> None:
        """The agent works in `tree` from now on; nothing that it wrote elsewhere is flushed any more."""
        self.close()
        self.tree = tree
        try:
            self._flusher = Flusher(tree.path)
        except FreezeRefused as error:
            log.warning("%s: nothing can be flushed: %s", tree.path, error)

    async def begin(self, number: int, budget_s: float) -> str:
        """Stops and flushes for freeze `number`; answers how the flush went.

        Raises `FreezeRefused` if that cannot be done within `budget_s` seconds: then the caller has to `end` it.
        """
        until = asyncio.get_running_loop().time() + budget_s
        self._hooks.on_hold(until + GRACE_S)
        await self._stop(budget_s / 2)
        self.number = number
        words = await self._flush(until, budget_s)
        if not self._hooks.still_frozen():
            raise FreezeRefused("it ran again before the flush ended")
        self.deadline = until + GRACE_S
        return f"{words} ({self._hooks.caveat})" if self._hooks.caveat else words

    def holds(self) -> bool:
        """Whether the agent has not run since `begin`, as far as it can tell."""
        return self._hooks.still_frozen()

    def extend(self, budget_s: float, asked_at: float) -> None:
        """The service lets it last `budget_s` seconds from when it was asked: its answer may have come late."""
        self.deadline = asked_at + budget_s + GRACE_S
        self._hooks.on_hold(self.deadline)

    async def end(self) -> None:
        """Lets the agent go on; its token is never said again."""
        self._forget()
        await self._hooks.on_thaw()

    async def move(self, tree: Tree) -> None:
        """What stands still is not let go: it is told to work in `tree`, and nothing of the old one runs on."""
        self._hooks.on_hold(asyncio.get_running_loop().time() + GRACE_S)
        if not self.is_on:
            self.is_on = True
            await self._hooks.on_freeze()
        self._forget()
        self.enter(tree)
        await self._hooks.on_switch(tree)

    def close(self) -> None:
        """Lets go of the tree."""
        if self._flusher is not None:
            self._flusher.close()
            self._flusher = None

    async def _stop(self, patience_s: float) -> None:
        if self.is_on:
            return
        self.is_on = True
        try:
            async with asyncio.timeout(patience_s):
                await self._hooks.on_freeze()
        except TimeoutError:
            raise FreezeRefused(f"not frozen within {patience_s:.1f} s") from None
        except (AgentError, OSError) as error:
            raise FreezeRefused(str(error)) from error

    async def _flush(self, until: float, budget_s: float) -> str:
        flusher = self._flusher
        if flusher is None:
            raise FreezeRefused("the live tree could not be opened, so nothing can be flushed")
        try:
            async with asyncio.timeout_at(until):
                return await in_daemon_thread(lambda: flusher.flush(self._hooks.writers))
        except TimeoutError:
            raise FreezeRefused(f"not flushed within {budget_s:.1f} s") from None
        except OSError as error:
            raise FreezeRefused(f"the flush failed: {error}") from error

    def _forget(self) -> None:
        self.is_on, self.number, self.deadline = False, None, None
        self._ended += 1


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")
