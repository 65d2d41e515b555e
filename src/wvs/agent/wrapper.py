"""`wvsctl agent run`: a session on behalf of a program that knows nothing of WVS."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, assert_never

from msgspec import Struct

from wvs.agent.cgroups import kernel_freezer
from wvs.agent.command import Command
from wvs.agent.errors import AgentError, NotThawed, StillAlive
from wvs.agent.freezer import Freezer
from wvs.agent.guarding import Guard
from wvs.agent.hooks import Hooks
from wvs.agent.protocol import Tree
from wvs.agent.session import Session, open_session
from wvs.agent.signals import signals_to
from wvs.agent.stopping import CooperativeFreezer

SWITCHED_EXIT: Final = 75
"""EX_TEMPFAIL of sysexits(3): the command was ended because its live tree was replaced; start it again."""

_SIGNALED: Final = 128
_TERMINATE_PATIENCE_S: Final = 10.0


class OnSwitch(StrEnum):
    """What becomes of the command when its live tree is replaced."""

    RESTART = "restart"
    SIGNAL = "signal"
    EXIT = "exit"


class Assignment(Struct, frozen=True, kw_only=True):
    """What to run, where, and how. `say` tells a person."""

    url: str
    workspace: str
    words: Sequence[str]
    agent: str
    say: Callable[[str], None]
    on_switch: OnSwitch = OnSwitch.RESTART
    switch_signal: int = signal.SIGHUP
    cooperative: bool = False


async def run_command(assignment: Assignment) -> int:
    """Runs a command as one session, from registration to deregistration; returns its exit code, 128 + n for signal n.

    The session ends only after every process of the command is proven gone. Raises `AgentError`: the service refused
    or could not be reached, no freezer, the command cannot be started.
    """
    return await _Wrapper(assignment).run()


class _Wrapper:
    """`_turn` is held by whoever changes what runs: the end of one command and the start of another do not meet."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._freezer: Freezer
        self._guard: Guard | None = None
        self._session: Session
        self._command: Command | None = None
        self._is_frozen = False
        self._thawed = asyncio.Event()
        self._code: int | None = None
        self._turn = asyncio.Lock()
        self._called_off = asyncio.Event()

    async def run(self) -> int:
        job = self._assignment
        with signals_to(self._forward, self._follow_into_suspension):
            self._session = session = await open_session(job.url, job.workspace, job.agent, self._hooks())
            try:
                self._freezer = _freezer(session.id, cooperative=job.cooperative)
            except AgentError:
                await session.leave()
                raise
            try:
                self._guard = self._freezer.guard()
                session.follow()
                return await self._work()
            finally:
                await session.stop_following()
                await self._leave()

    def _hooks(self) -> Hooks:
        return Hooks(
            on_freeze=self._freeze,
            on_thaw=self._thaw,
            on_switch=self._switch,
            on_end=self._end,
            on_hold=self._hold,
            still_frozen=self._holds,
            writers=self._pids,
            caveat=CooperativeFreezer.caveat if self._assignment.cooperative else "",
        )

    async def _work(self) -> int:
        await _first(self._session.until_started(), self._called_off.wait())
        await self._start_first()
        if self._code is not None:
            return self._code
        done = asyncio.create_task(self._until_done())
        try:
            await _first(asyncio.shield(done), self._session.until_ended())
            return await done
        finally:
            done.cancel()

    async def _start_first(self) -> None:
        """The first start waits for a freeze to end, if there is one; a signal meanwhile calls it off.

        A freeze may have begun since the session did; a process that joins a frozen cgroup never gets to its exec, and
        whoever waits for that would never thaw it.
        """
        session = self._session
        while self._code is None:
            if session.end_reason is not None:
                raise AgentError(f"the session was ended: {session.end_reason}")
            async with self._turn:
                if not self._is_frozen:
                    self._start(session.tree)
                    return
            await _first(self._thawed.wait(), self._called_off.wait(), session.until_ended())

    async def _until_done(self) -> int:
        while True:
            command = self._command
            assert command is not None
            code = await command.wait()
            async with self._turn:
                if self._code is not None:
                    return self._code
                if self._command is command:
                    return code

    def _start(self, tree: Tree) -> None:
        session, live = self._session, Path(tree.path).parents[2] / "current"
        environment = {
            **os.environ,
            "WVS_URL": self._assignment.url,
            "WVS_WORKSPACE": session.workspace_id,
            "WVS_SESSION": session.id,
            "WVS_LIVE": str(live),
        }
        heeded = self._assignment.switch_signal if self._assignment.on_switch is OnSwitch.SIGNAL else None
        self._command = Command(self._assignment.words, tree.path, environment, self._freezer, heeded=heeded)

    def _hold(self, deadline: float) -> None:
        if self._guard is not None:
            self._guard.holds_until(deadline, self._session.tree.path)

    def _holds(self) -> bool:
        return self._freezer.holds()

    def _pids(self) -> list[int]:
        return self._freezer.pids()

    async def _freeze(self) -> None:
        self._is_frozen = True
        self._thawed.clear()
        await self._freezer.freeze()

    async def _thaw(self) -> None:
        while True:
            try:
                await self._freezer.thaw()
            except NotThawed as error:
                self._assignment.say(f"the command may still be frozen: {error}; trying on")
                continue
            self._is_frozen = False
            self._thawed.set()
            if self._guard is not None:
                self._guard.is_free()
            return

    async def _switch(self, tree: Tree) -> None:
        how = self._assignment.on_switch
        async with self._turn:
            command = self._command
            if command is None:
                await self._thaw()
                return
            match how:
                case OnSwitch.SIGNAL:
                    # Sent while it is frozen: its handler is the first that runs.
                    command.send(self._assignment.switch_signal)
                    await self._thaw()
                case OnSwitch.RESTART:
                    await self._kill()
                    self._assignment.say("the live tree was replaced: starting the command again in the new one")
                    self._start(tree)
                case OnSwitch.EXIT:
                    self._code = SWITCHED_EXIT
                    await self._kill()
                    self._assignment.say("the live tree was replaced: the command was ended")
                case _:
                    assert_never(how)

    async def _end(self, reason: str) -> None:
        self._assignment.say(f"the session was ended: {reason}")
        command = self._command
        if command is None:
            return
        if not self._is_frozen:
            command.send(signal.SIGTERM)
            try:
                async with asyncio.timeout(_TERMINATE_PATIENCE_S):
                    await command.wait()
            except TimeoutError:
                pass  # it was asked; what follows does not ask
        await self._kill()

    async def _kill(self) -> None:
        """Ends every process without letting one run on, and makes the freezer ready for another command."""
        while True:
            try:
                await self._freezer.kill()
                break
            except StillAlive as error:
                self._assignment.say(f"{error}; the session goes on until it is")
        if self._command is not None:
            self._command.reap()
            self._command.take_terminal()
        await self._thaw()

    async def _leave(self) -> None:
        await self._kill()
        if self._guard is not None:
            self._guard.close()
        self._freezer.close()
        try:
            await self._session.leave()
        except AgentError as error:
            self._assignment.say(
                f"{self._session.id} goes on to block freezes: {error}; "
                f"its processes are gone: wvsctl session evict {self._session.id}"
            )

    def _forward(self, number: int) -> None:
        if self._command is not None:
            self._command.send(number)
        else:
            self._code = _SIGNALED + number
            self._called_off.set()

    def _follow_into_suspension(self) -> None:
        """After Ctrl-Z this process stops, too, or the terminal would be nobody's. It answers no freeze then."""
        command = self._command
        if command is None or self._is_frozen or not command.is_suspended():
            return
        command.take_terminal()
        os.kill(os.getpid(), signal.SIGSTOP)
        command.give_terminal()
        command.send(signal.SIGCONT)


def _freezer(session_id: str, *, cooperative: bool) -> Freezer:
    return CooperativeFreezer() if cooperative else kernel_freezer(f"wvs-{session_id}")


async def _first(*awaited: Awaitable[object]) -> None:
    """Returns when one of them has come, or raises what it raised; the others are given up."""
    tasks = {asyncio.ensure_future(one) for one in awaited}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
