"""`wvsctl agent run`: holds a session on behalf of a program that knows nothing of WVS."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Final, assert_never

from msgspec import Struct

from wvs.agent.cgroup_freezer import kernel_freezer
from wvs.agent.command import CommandProcess
from wvs.agent.errors import AgentError, NotThawed, StillAlive
from wvs.agent.freezer import Freezer, poll_until
from wvs.agent.guardian_handle import GuardianHandle
from wvs.agent.hooks import Hooks
from wvs.agent.live_tree import tree_at
from wvs.agent.orphans import Reap, adopt_orphans, reap_children, until_reaped
from wvs.agent.protocol import Tree
from wvs.agent.registration import open_session
from wvs.agent.session import Session
from wvs.agent.signals import forwarding_signals
from wvs.agent.sigstop_freezer import SigstopFreezer
from wvs.domain.values import FrozenProcesses
from wvs.endpoint import HEADERS_VARIABLE

SWITCHED_EXIT: Final = 75
"""EX_TEMPFAIL of sysexits(3): the command was killed because its live tree was replaced; a supervisor restarts it."""

_SIGNALED: Final = 128
_TERMINATE_PATIENCE_S: Final = 10.0
_GUARDIAN_PATIENCE_S: Final = 5.0
_SWITCH_PAUSE_S: Final = 0.1
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class OnSwitch(StrEnum):
    """What the wrapper does with the command when the live tree is replaced."""

    RESTART = "restart"
    SIGNAL = "signal"
    EXIT = "exit"


class Assignment(Struct, frozen=True, kw_only=True):
    """Which command to run, in which workspace, and how. `report` shows a message to a person."""

    url: str
    workspace: str
    argv: Sequence[str]
    agent: str
    report: Callable[[str], None]
    on_switch: OnSwitch = OnSwitch.RESTART
    switch_signal: int = signal.SIGHUP
    cooperative: bool = False
    headers: Sequence[str] = ()


async def run_command(assignment: Assignment) -> int:
    """Runs a command as one session, from registration to deregistration; returns its exit code, 128 + n for signal n.

    The session ends only after every process of the command is proven to have ended. Raises `AgentError` if the service
    refuses or is unreachable, if the host has no freezer, or if the command cannot be started.

    Call it in a process without other children: it adopts the orphans of the command and reaps every child.
    """
    adopt_orphans()
    return await _Wrapper(assignment).run()


class _Wrapper:
    """Holds `_command_lock` while it starts or ends a command, so that an end and a start never overlap."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._freezer: Freezer
        self._guardian: GuardianHandle | None = None
        self._session: Session
        self._command: CommandProcess | None = None
        self._is_frozen = False
        self._thawed = asyncio.Event()
        self._exit_code: int | None = None
        self._command_lock = asyncio.Lock()
        self._start_cancelled = asyncio.Event()
        self._was_signaled = False
        self._started_in: str | None = None

    async def run(self) -> int:
        job = self._assignment
        with forwarding_signals(self._forward, self._child_changed):
            self._session = session = await open_session(
                job.url, job.workspace, job.agent, self._hooks(), headers=job.headers
            )
            try:
                self._freezer = _new_freezer(session.id, cooperative=job.cooperative)
            except AgentError:
                await session.leave()
                raise
            try:
                self._start_guardian()
                session.follow()
                return await self._run_until_done()
            finally:
                await session.stop_following()
                await self._leave()

    def _start_guardian(self) -> None:
        self._guardian = guardian = self._freezer.start_guardian()
        if guardian is not None:
            guardian.hand_over(self._session.prepared_ending())

    async def _until_guardian_has_read(self) -> None:
        """Waits before the command starts: it may run as the same user, and could read the pipe."""
        if self._guardian is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_GUARDIAN_PATIENCE_S):
                    await poll_until(self._guardian.has_read_all)

    def _hooks(self) -> Hooks:
        return Hooks(
            on_freeze=self._freeze,
            on_thaw=self._thaw,
            on_switch=self._switch,
            on_end=self._end,
            on_deadline=self._set_deadline,
            still_frozen=self._still_frozen,
            writers=self._pids,
            frozen=self._frozen,
            caveat=SigstopFreezer.caveat if self._assignment.cooperative else "",
        )

    async def _run_until_done(self) -> int:
        await wait_for_first(self._session.until_started(), self._start_cancelled.wait())
        await self._until_guardian_has_read()
        await self._start_when_thawed()
        if self._exit_code is not None:
            return self._exit_code
        done = asyncio.create_task(self._until_done())
        try:
            await wait_for_first(asyncio.shield(done), self._session.until_ended())
            return await done
        finally:
            done.cancel()

    async def _start_when_thawed(self) -> None:
        """Starts the command for the first time, after an open freeze has ended. A signal meanwhile cancels the start.

        A freeze may have begun after the session did. A process that joins a frozen cgroup never reaches its exec, and
        the wrapper, which waits for that exec, would never thaw it.
        """
        session = self._session
        while self._exit_code is None:
            if session.end_reason is not None:
                raise AgentError(f"the session was ended: {session.end_reason}")
            async with self._command_lock:
                if not self._is_frozen:
                    self._start(session.tree)
                    return
            await wait_for_first(self._thawed.wait(), self._start_cancelled.wait(), session.until_ended())

    async def _until_done(self) -> int:
        lost: CommandProcess | None = None
        while True:
            command = self._command
            assert command is not None
            code = await command.wait()
            async with self._command_lock:
                if self._exit_code is not None:
                    return self._exit_code
                if self._command is not command:
                    continue
                if not await self._has_lost_its_tree():
                    return code
            if lost is not command:
                lost = command
                self._assignment.report(f"the command ended ({code}) as its live tree was replaced; it starts again")
            await asyncio.sleep(_SWITCH_PAUSE_S)

    async def _has_lost_its_tree(self) -> bool:
        """Whether the live tree in which the command started was replaced: then a directive will restart the command.

        The command may have ended because its files went away. That happens when it ran on without contact to the
        service, and nobody has asked it to end. The session may know of the new tree by now, and be about to restart.
        """
        session, started_in = self._session, self._started_in
        if self._assignment.on_switch is not OnSwitch.RESTART or self._was_signaled or session.end_reason is not None:
            return False
        return started_in is not None and await tree_at(session.tree.path) not in (None, started_in)

    def _start(self, tree: Tree) -> None:
        session = self._session
        environment = {
            **os.environ,
            "WVS_URL": self._assignment.url,
            **_headers_for(self._assignment.headers),
            "WVS_WORKSPACE": session.workspace_id,
            "WVS_SESSION": session.id,
            "WVS_LIVE": tree.path,
        }
        self._was_signaled, self._started_in = False, tree.name
        assignment = self._assignment
        default_signal = assignment.switch_signal if assignment.on_switch is OnSwitch.SIGNAL else None
        self._command = CommandProcess(
            assignment.argv, tree.path, environment, self._freezer, default_signal=default_signal
        )

    def _set_deadline(self, deadline: float) -> None:
        if self._guardian is not None:
            self._guardian.arm(deadline, self._session.tree)

    def _still_frozen(self) -> bool:
        return self._freezer.still_frozen()

    def _pids(self) -> list[int]:
        return self._freezer.pids()

    def _frozen(self) -> FrozenProcesses:
        return self._freezer.frozen()

    async def _freeze(self) -> None:
        self._is_frozen = True
        self._thawed.clear()
        await self._freezer.freeze()

    async def _thaw(self) -> None:
        while True:
            try:
                await self._freezer.thaw()
            except NotThawed as error:
                self._assignment.report(f"the command may still be frozen: {error}; trying again")
                continue
            self._is_frozen = False
            self._thawed.set()
            if self._guardian is not None:
                self._guardian.disarm()
            return

    async def _switch(self, tree: Tree) -> None:
        on_switch = self._assignment.on_switch
        async with self._command_lock:
            command = self._command
            if command is None:
                await self._thaw()
                return
            match on_switch:
                case OnSwitch.SIGNAL:
                    # Sent while the command is frozen: the first thing that runs is its handler.
                    command.send(self._assignment.switch_signal)
                    await self._thaw()
                case OnSwitch.RESTART:
                    await self._kill()
                    self._assignment.report("the live tree was replaced: restarting the command in the new one")
                    self._start(tree)
                case OnSwitch.EXIT:
                    self._exit_code = SWITCHED_EXIT
                    await self._kill()
                    self._assignment.report("the live tree was replaced: the command was ended")
                case _:
                    assert_never(on_switch)

    async def _end(self, reason: str) -> None:
        self._assignment.report(f"the session was ended: {reason}")
        command = self._command
        if command is None:
            return
        if not self._is_frozen:
            command.send(signal.SIGTERM)
            try:
                async with asyncio.timeout(_TERMINATE_PATIENCE_S):
                    await command.wait()
            except TimeoutError:
                pass  # SIGKILL follows
        await self._kill()

    async def _kill(self) -> None:
        """Kills every process without resuming one, and prepares the freezer for another command."""
        pids = self._freezer.pids()
        while True:
            try:
                await self._freezer.kill()
                break
            except StillAlive as error:
                self._assignment.report(f"{error}; the session continues until it has ended")
        await until_reaped(pids, self._own_children())
        if self._command is not None:
            self._command.reap()
            self._command.take_terminal()
        await self._thaw()

    async def _leave(self) -> None:
        await self._kill()
        self._freezer.close()
        try:
            await self._session.leave()
        except AgentError as error:
            self._assignment.report(
                f"session {self._session.id} continues to block freezes ({error}). "
                f"All its processes have ended, so run: wvsctl session evict {self._session.id}"
            )
        finally:
            # Last: if this process is killed before, the guardian ends the session.
            if self._guardian is not None:
                self._guardian.close()

    def _forward(self, number: int) -> None:
        self._was_signaled = self._was_signaled or number in _ENDING
        if self._command is not None:
            self._command.send(number)
        else:
            self._exit_code = _SIGNALED + number
            self._start_cancelled.set()

    def _child_changed(self) -> None:
        reap_children(self._own_children())
        self._suspend_with_command()

    def _own_children(self) -> dict[int, Reap]:
        return {child.pid: child.reap for child in (self._command, self._guardian) if child is not None}

    def _suspend_with_command(self) -> None:
        """After Ctrl-Z this process stops too, or no process would own the terminal. It then answers no freeze."""
        command = self._command
        if command is None or self._is_frozen or not command.is_suspended():
            return
        command.take_terminal()
        os.kill(os.getpid(), signal.SIGSTOP)
        command.give_terminal()
        command.send(signal.SIGCONT)


def _new_freezer(session_id: str, *, cooperative: bool) -> Freezer:
    return SigstopFreezer() if cooperative else kernel_freezer(f"wvs-{session_id}")


def _headers_for(given: Sequence[str]) -> dict[str, str]:
    """WVS_HEADERS for the command, whose `wvsctl` goes through the same proxy."""
    return {HEADERS_VARIABLE: "\n".join((os.environ.get(HEADERS_VARIABLE, ""), *given))} if given else {}


async def wait_for_first(*awaited: Awaitable[object]) -> None:
    """Returns when the first has completed, or raises its error. The others are cancelled."""
    tasks = {asyncio.ensure_future(one) for one in awaited}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
