"""`wvsctl agent attach`: holds a session on behalf of a container or a cgroup that others started."""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from typing import Final, assert_never

from msgspec import Struct

from wvs.agent.errors import AgentError, CannotFreeze, NoRights, NotThawed, StillAlive
from wvs.agent.freezer import poll_until
from wvs.agent.guardian_handle import GuardianHandle
from wvs.agent.hooks import Hooks
from wvs.agent.mounted_tree import MountedTree, View, mounted_tree
from wvs.agent.protocol import Tree
from wvs.agent.registration import open_session
from wvs.agent.session import Session
from wvs.agent.targets import ContainerTarget, Run, Target, pids_left
from wvs.agent.threads import in_daemon_thread
from wvs.agent.wrapper import SWITCHED_EXIT, OnSwitch, wait_for_first
from wvs.domain.values import FrozenProcesses

_DETACHING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNALED: Final = 128
_LOOK_TIMEOUT_S: Final = 10.0
_RESTART_ATTEMPTS: Final = 3


class AttachOrder(Struct, frozen=True, kw_only=True):
    """What to attach to which workspace, and how. `report` shows a message to a person."""

    url: str
    workspace: str
    target: Target
    agent: str
    report: Callable[[str], None]
    on_switch: OnSwitch
    switch_signal: int = signal.SIGHUP
    headers: Sequence[str] = ()


async def attach_session(order: AttachOrder) -> int:
    """Holds the session until the target has ended; returns its exit code, or 128 + n after signal n to this process.

    Raises `AgentError` if the target cannot be frozen or does not have the live tree, or if the service refuses.
    """
    return await _Attachment(order).run()


class _Attachment:
    """Holds `_lock` while it changes from one run of the target to the next."""

    def __init__(self, order: AttachOrder) -> None:
        self._order = order
        self._target = order.target
        self._run: Run
        self._guardian: GuardianHandle
        self._session: Session
        self._lock = asyncio.Lock()
        self._done = asyncio.Event()
        self._exit_code: int | None = None
        self._is_frozen = False

    async def run(self) -> int:
        order = self._order
        self._take(await self._target.find())
        try:
            self._require_possible_switch()
            loop = asyncio.get_running_loop()
            for number in _DETACHING:
                loop.add_signal_handler(number, self._detach, number)
            self._session = session = await open_session(
                order.url, order.workspace, order.agent, self._hooks(), headers=order.headers
            )
            try:
                session.follow()
                return await self._hold()
            finally:
                await session.stop_following()
                await self._leave()
        finally:
            self._guardian.close()
            self._run.close()

    def _require_possible_switch(self) -> None:
        target, how = self._target, self._order.on_switch
        if how is not OnSwitch.RESTART:
            return
        if not target.can_restart:
            raise AgentError(f"{target.kind} {target.name} cannot be restarted: use --on-switch exit or signal:NAME")
        if isinstance(target, ContainerTarget) and target.is_removed_at_end:
            raise AgentError(
                f"container {target.name} was started with --rm: it is removed when it ends and cannot be restarted; "
                "start it without --rm, or use --on-switch exit"
            )

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
        )

    def _set_deadline(self, deadline: float) -> None:
        self._guardian.arm(deadline, self._session.tree)

    def _still_frozen(self) -> bool:
        return not self._run.has_ended() and self._run.freezer.still_frozen()

    def _pids(self) -> list[int]:
        return self._run.freezer.pids()

    def _frozen(self) -> FrozenProcesses:
        return FrozenProcesses(self._target.kind, self._target.frozen_name, len(self._run.freezer.pids()))

    async def _hold(self) -> int:
        session = self._session
        await wait_for_first(session.until_started(), self._done.wait())
        if not self._done.is_set():
            await self._require_live_tree(self._run, "cannot take part:")
            await wait_for_first(self._follow_runs(), self._done.wait(), session.until_ended())
        return self._exit_code if self._exit_code is not None else self._target.exit_code

    async def _follow_runs(self) -> None:
        """Returns when the target has ended for good. Takes over a target that another program has restarted."""
        while True:
            run = self._run
            await run.until_ended()
            async with self._lock:
                if self._run is not run:
                    continue  # restarted by this process
                following = await self._target.next_run(run)
                if following is None:
                    break
                self._replace(following)
            await self._require_live_tree(following, "was restarted by another program, and")
        # With a PID namespace of its own a container ends as a whole; with the host's it may not.
        await poll_until(lambda: not pids_left(run))

    def _require_run(self) -> None:
        if self._run.has_ended():
            raise CannotFreeze(f"{self._label} has ended or is being restarted by another program")

    async def _freeze(self) -> None:
        self._require_run()  # at once, not after the restart
        async with self._lock:
            self._require_run()
            self._target.require_unpaused(self._run)
            self._is_frozen = True
            await self._run.freezer.freeze()

    async def _thaw(self) -> None:
        while self._is_frozen:
            try:
                await self._run.freezer.thaw()
            except NotThawed as error:
                self._order.report(f"{self._label} may still be frozen: {error}; trying again")
                continue
            except OSError:
                if not self._run.has_ended():
                    raise
            self._is_frozen = False
        self._guardian.disarm()

    async def _switch(self, tree: Tree) -> None:
        on_switch = self._order.on_switch
        async with self._lock:
            match on_switch:
                case OnSwitch.SIGNAL:
                    # Sent while the target is frozen: the first thing that runs is its handler.
                    self._run.send(self._order.switch_signal)
                    await self._thaw()
                case OnSwitch.RESTART:
                    await self._kill()
                    self._order.report(f"the live tree was replaced: restarting {self._label} with the new one")
                    await self._restart(tree)
                case OnSwitch.EXIT:
                    await self._kill()
                    self._order.report(f"the live tree was replaced: {self._label} was ended")
                    self._finish(SWITCHED_EXIT)
                case _:
                    assert_never(on_switch)

    async def _restart(self, tree: Tree) -> None:
        """Restarts the target until its mount leads to `tree`. Raises `AgentError`; then the target is stopped."""
        failure = ""
        for _ in range(_RESTART_ATTEMPTS):
            try:
                self._replace(await self._target.restart())
                view = await self._look(tree)
            except (AgentError, OSError) as error:
                failure = str(error)
                continue
            if view.view in (View.LIVE, View.LIVE_UNTIL_SWITCH):
                return
            failure = self._missing(view)
        await self._target.stop(self._run)
        raise AgentError(f"{self._label} could not be restarted with the new live tree, and was stopped: {failure}")

    async def _end(self, reason: str) -> None:
        self._order.report(f"the session was ended: {reason}; stopping {self._label}")
        async with self._lock:
            if self._is_frozen:
                await self._kill()
            await self._target.stop(self._run)
        self._finish(1)

    async def _kill(self) -> None:
        """Kills every process of this run without resuming one."""
        while True:
            try:
                await self._run.freezer.kill()
                break
            except StillAlive as error:
                self._order.report(f"{error}; the session continues until it has ended")
            except OSError:
                if not self._run.has_ended():
                    raise
                break
        await self._thaw()

    async def _leave(self) -> None:
        await self._thaw()
        try:
            await self._session.leave()
        except AgentError as error:
            self._order.report(
                f"session {self._session.id} continues to block freezes ({error}). If {self._label} has ended, run: "
                f"wvsctl session evict {self._session.id}"
            )

    def _detach(self, number: int) -> None:
        self._order.report(
            f"detached from {self._label}. If it still runs, no freeze stops it any more, and only the stamps may find "
            "what it writes during a clone"
        )
        self._finish(_SIGNALED + number)

    def _finish(self, code: int) -> None:
        self._exit_code = code
        self._done.set()

    def _take(self, run: Run) -> None:
        self._run = run
        self._guardian = run.freezer.start_guardian()

    def _replace(self, run: Run) -> None:
        self._guardian.close()
        self._run.close()
        self._take(run)

    async def _require_live_tree(self, run: Run, problem: str) -> None:
        """Raises `AgentError` if the run does not have the live tree. If it ends meanwhile, only its end matters."""
        try:
            self._require_view(await self._look(), problem)
        except AgentError:
            if not run.has_ended():  # else the look may have met its end, and the next run will be looked at
                raise

    def _require_view(self, view: MountedTree, problem: str) -> None:
        if view.view not in (View.LIVE, View.LIVE_UNTIL_SWITCH):
            raise AgentError(f"{self._label} {problem} {self._missing(view)}")
        if view.view is View.LIVE_UNTIL_SWITCH and self._order.on_switch is OnSwitch.SIGNAL:
            raise AgentError(
                f"{self._label} has a mount of the live tree itself at {view.path}. At a switch that mount stays with "
                "the old tree, and no signal changes that: use --on-switch restart or exit, or mount the directory of "
                "the workspace"
            )

    async def _look(self, tree: Tree | None = None) -> MountedTree:
        session, pid = self._session, self._run.pid
        path = (tree or session.tree).path
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT_S):
                return await in_daemon_thread(lambda: mounted_tree(pid, path, session.workspace_id))
        except TimeoutError:
            raise AgentError(f"the mounts of {self._label} cannot be read within {_LOOK_TIMEOUT_S:g} s") from None
        except PermissionError as error:
            raise NoRights(
                f"no right to read the mounts of {self._label} at /proc/{pid}/root ({error.strerror}); root has it "
                "where it has CAP_SYS_PTRACE"
            ) from None
        except OSError as error:
            raise AgentError(f"the mounts of {self._label} (process {pid}) cannot be read ({error.strerror})") from None

    def _missing(self, found: MountedTree) -> str:
        live = os.path.realpath(self._session.tree.path)
        if found.view is View.STALE:
            return f"its mount at {found.path} is of a tree that is not live any more (live is {live}); restart it"
        return f"it has no mount of the live tree; start it with --mount type=bind,source={live},target=/work"

    @property
    def _label(self) -> str:
        return f"{self._target.kind} {self._target.name}"
