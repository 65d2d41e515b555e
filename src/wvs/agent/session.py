"""One session of an agent: follows the service's directives, and thaws by itself when the service is gone."""

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from wvs.agent.errors import AgentError, FreezeRefused, Rejected, Unreachable
from wvs.agent.freeze_state import Standstill
from wvs.agent.hooks import Hooks, nothing
from wvs.agent.protocol import STALE, UNKNOWN, Directive, DirectiveKind, RegistrationDocument, Tree
from wvs.agent.threads import in_daemon_thread
from wvs.agent.transport import Transport
from wvs.background import stop
from wvs.engines.paths import current_beside

LEASE_S: Final = 30.0
_ANSWER_S: Final = 5.0
_FROZEN_WAIT_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
_LEAVE_PATIENCE_S: Final = 30.0
_LINK_PATIENCE_S: Final = 2.0
_SPREAD_S: Final = 0.03
_WAKE_PATIENCE_S: Final = 0.05

log = logging.getLogger("wvs.agent")


class Session:
    """A registered session; `async with` follows directives within the block and ends the session after it.

    The block begins when the agent may work: not while a freeze is open.
    """

    def __init__(self, transport: Transport, registration: RegistrationDocument, hooks: Hooks, lease_s: float) -> None:
        self.id: Final = registration.session.id
        self.workspace_id: Final = registration.session.workspace_id
        self._transport = transport
        self._hooks = hooks
        self._wait_s = min(20.0, lease_s / 2)
        self._directive = registration.directive
        self._seen: int | None = None
        self._started = asyncio.Event()
        self._ended = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._standstill = Standstill(hooks, _tree(registration.directive))
        self._acked: int | None = None  # the freeze that the service was told of
        self._refused: tuple[int, str] | None = None  # and why, until the service has taken it
        self._resumed: tuple[int, str] | None = None  # the freeze that let it go before its answer, and its token
        self._owes_answer = False  # to that freeze
        self._asked_at = 0.0  # when the newest directive was asked for, in the loop's time
        self._alone = False  # for want of a word from the service
        self.end_reason: str | None = None

    @property
    def tree(self) -> Tree:
        """The live tree that the agent works in."""
        return self._standstill.tree

    async def __aenter__(self) -> Self:
        self.follow()
        await self.until_started()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self.stop_following()
        await self.leave()

    def follow(self) -> None:
        """Begins to follow directives in a task of its own."""
        self._following = asyncio.create_task(self._follow())

    async def stop_following(self) -> None:
        """No hook runs after this."""
        if self._following is not None:
            await stop(self._following)

    async def until_started(self) -> None:
        """Returns once the agent may work. Raises `AgentError` if the session was ended instead, or its hooks fail."""
        await self._first(self._started)

    async def until_ended(self) -> None:
        """Returns once the service has ended the session (`end_reason` says why). Raises what a hook raised."""
        await self._first(self._ended)

    async def _first(self, event: asyncio.Event) -> None:
        assert self._following is not None
        waiting = asyncio.create_task(event.wait())
        await asyncio.wait({waiting, self._following}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if event.is_set():
            return
        if not self._following.cancelled() and (error := self._following.exception()) is not None:
            raise error
        raise AgentError(f"the session was ended: {self.end_reason or 'no reason given'}")

    async def leave(self, patience_s: float = _LEAVE_PATIENCE_S) -> None:
        """Deregisters: from now on no freeze waits for this session.

        To be called only when nothing that it stands for can write any more. Raises `AgentError` if the service
        does not take it within `patience_s` seconds; then the session goes on to block freezes.
        """
        try:
            async with asyncio.timeout(patience_s):
                await self._give_owed_answer()
                await self._repeat(lambda: self._transport.call("DELETE", f"/v1/sessions/{self.id}", dict[str, Any]))
        except TimeoutError:
            raise Unreachable("the service did not take the end of the session") from None
        except Rejected as problem:
            if problem.code != UNKNOWN:
                raise
        finally:
            self._transport.close()
            self._standstill.close()

    async def _give_owed_answer(self) -> None:
        """That it stood still stays true, though it ended before it could say so; a clone is lost without it."""
        if not self._owes_answer or self._resumed is None:
            return
        number, token = self._resumed
        word = {"kind": "still_frozen", "freeze": number, "token": token}
        with contextlib.suppress(Unreachable, Rejected, TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                await self._transport.call("POST", f"/v1/sessions/{self.id}/acks", dict[str, Any], word)

    async def _repeat(self, call: Callable[[], Awaitable[object]]) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await call()
            except (Unreachable, TimeoutError):
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
            else:
                return

    async def _follow(self) -> None:
        directive = self._directive
        while True:
            answer = await self._obey(directive)
            if self._ended.is_set():
                return
            directive = answer or await self._next()

    async def _next(self) -> Directive:
        """The next directive, however long the service is away; a standstill ends at its deadline meanwhile."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return await self._poll()
            except (Unreachable, TimeoutError) as error:
                if self._standstill.is_overdue:
                    await self._go_on_alone()
                    continue
                if self._alone:
                    await self._follow_link()
                log.debug("%s: the service cannot be reached: %s", self.id, error)
            await self._pause(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads the callers, protects nothing
            pause = min(pause * 2, _FROZEN_WAIT_S / 2 if self._standstill.is_on else _LONGEST_PAUSE_S)

    async def _poll(self) -> Directive:
        wait_s = _FROZEN_WAIT_S if self._standstill.is_on else self._wait_s
        query = "" if self._seen is None else f"?after={self._seen}&wait={wait_s:g}"
        self._asked_at = asyncio.get_running_loop().time()
        limit = self._asked_at + wait_s + _ANSWER_S
        try:
            async with asyncio.timeout_at(min(limit, self._standstill.deadline or limit)):
                directive = await self._transport.call("GET", f"/v1/sessions/{self.id}/directive{query}", Directive)
        except Rejected as problem:
            if problem.code != UNKNOWN:
                raise Unreachable(f"the service answers {problem.status} {problem.code}") from problem
            # A service that does not know the session waits for it no longer: it must not write on.
            return _end(self._seen or 0, f"the service answers {problem.code}: {problem}")
        self._alone = False
        return directive

    async def _pause(self, seconds: float) -> None:
        if self._standstill.deadline is not None:
            seconds = min(seconds, max(0.0, self._standstill.deadline - asyncio.get_running_loop().time()))
        await asyncio.sleep(seconds)

    async def _obey(self, directive: Directive) -> Directive | None:
        self._seen = directive.number
        still = self._standstill
        if directive.budget_s is not None and still.is_on and directive.freeze == still.number:
            still.extend(directive.budget_s, self._asked_at)
        match directive.kind:
            case DirectiveKind.RUN:
                await self._run(directive)
            case DirectiveKind.FREEZE:
                return await self._freeze_for(directive)
            case DirectiveKind.CONFIRM:
                return await self._confirm(directive)
            case DirectiveKind.SWITCH:
                return await self._switch(directive)
            case DirectiveKind.END:
                self.end_reason = directive.reason or "ended"
                await self._hooks.on_end(self.end_reason)
                self._ended.set()
        return None

    async def _run(self, directive: Directive) -> None:
        self._owes_answer = False
        if not self._started.is_set():
            self._standstill.enter(_tree(directive))
            self._started.set()
        elif self._standstill.is_on:
            await self._standstill.end()
            # Those who were let go together would otherwise come back at once, while others still wait to be let go.
            await asyncio.sleep(random.uniform(0, _SPREAD_S))  # noqa: S311 - spreads the callers, protects nothing

    async def _freeze_for(self, directive: Directive) -> Directive | None:
        number = directive.freeze
        if self._resumed is not None and self._resumed[0] != number:
            self._resumed, self._owes_answer = None, False  # that freeze is over
        if self._refused is not None and self._refused[0] == number:
            return await self._refuse(*self._refused)
        if not self._started.is_set() or number is None or self._acked == number:
            return None  # nothing runs yet, or it was answered already, if only by a refusal
        try:
            words = await self._standstill.begin(number, directive.budget_s or 0.0)
        except FreezeRefused as refusal:
            await self._standstill.end()
            return await self._refuse(number, _as_text(refusal))
        self._acked = number
        if not directive.member:
            return None
        return await self._say("frozen", freeze=number, token=self._standstill.token, flush=words)

    async def _refuse(self, number: int, reason: str) -> Directive | None:
        """Said again until the service has taken it, or has gone on without it."""
        self._acked, self._refused = number, (number, reason)
        return await self._say("refused", freeze=number, reason=reason)

    async def _confirm(self, directive: Directive) -> Directive | None:
        """Says the token of the standstill; another one, which breaks the freeze at once, if it did not last."""
        # Whatever is known of the word before: the service may have taken one whose answer was lost.
        still, number = self._standstill, directive.freeze
        if self._resumed is not None and self._resumed[0] == number:
            return await self._say("still_frozen", self._wait_s, freeze=number, token=self._resumed[1])
        token = still.token
        if still.is_on and not still.holds():
            log.warning("%s: somebody else thawed it in freeze %s", self.id, number)
            await still.end()
            token = still.token
        elif still.is_on and directive.resume and number == still.number and directive.path == self.tree.path:
            # The clone has ended, and it stood still until then: that stays true, whatever it does from now on.
            assert number is not None
            self._acked, self._resumed, self._owes_answer = number, (number, token), True
            return await self._go_on_and_say(number, token, directive.answer_after_s)
        return await self._say("still_frozen", freeze=number, token=token)

    async def _go_on_and_say(self, number: int, token: str, after_s: float) -> Directive | None:
        """Lets the agent go on, then says that it stood still; that does not wait for an agent that is slow to wake."""
        thaw = asyncio.create_task(self._standstill.end())
        try:
            await asyncio.sleep(after_s)
            await asyncio.wait({thaw}, timeout=_WAKE_PATIENCE_S)
            wait_s = self._wait_s if thaw.done() and thaw.exception() is None else 0.0
            answer = await self._say("still_frozen", wait_s, freeze=number, token=token)
        except asyncio.CancelledError:
            await stop(thaw)
            raise
        await thaw
        return answer

    async def _switch(self, directive: Directive) -> Directive | None:
        if not self._started.is_set():
            self._standstill.enter(_tree(directive))
        elif directive.path != self.tree.path:
            await self._standstill.move(_tree(directive))
        elif self._standstill.is_on:
            await self._standstill.end()
        self._standstill.tree = Tree(self.tree.path, directive.epoch)
        return await self._say("switched", epoch=directive.epoch)

    async def _go_on_alone(self) -> None:
        """The freeze is over for want of a word from the service; its token is never said again."""
        log.warning("%s: no word from the service in freeze %s; going on by itself", self.id, self._standstill.number)
        self._alone = True
        if not await self._follow_link():
            await self._standstill.end()

    async def _follow_link(self) -> bool:
        """Goes where the link `current` leads by now; False if that is where the agent is."""
        link = await self._tree_behind_link()
        if link is None or link == self.tree.path:
            return False
        log.warning("%s: the live tree was replaced by %s", self.id, link)
        await self._standstill.move(Tree(link, None))
        return True

    async def _tree_behind_link(self) -> str | None:
        """The live tree that `<workspace>/current` leads to; None if that cannot be read in time."""
        link = current_beside(self.tree.path)
        try:
            async with asyncio.timeout(_LINK_PATIENCE_S):
                return await in_daemon_thread(lambda: os.path.realpath(link, strict=True))
        except (OSError, TimeoutError):
            return None

    async def _say(self, kind: str, wait_s: float = 0.0, **fields: Any) -> Directive | None:
        """Tells the service, and waits for what comes next: while the agent stands still, or for `wait_s` seconds.

        None if it did not take it: then it is asked again.
        """
        after = self._seen
        if self._standstill.is_on:
            wait_s = _FROZEN_WAIT_S
        elif wait_s and after is not None:
            # What its word changes, and it knows already, is one number; whatever else is new is told at once.
            after += 1
        self._asked_at = asyncio.get_running_loop().time()
        limit = self._asked_at + wait_s + _ANSWER_S
        try:
            async with asyncio.timeout_at(min(limit, self._standstill.deadline or limit)):
                path = f"/v1/sessions/{self.id}/acks?after={after}&wait={wait_s:g}"
                answer = await self._transport.call("POST", path, Directive, {"kind": kind, **fields})
                self._refused, self._owes_answer = None, False
                return answer
        except (Unreachable, TimeoutError) as error:
            log.debug("%s: %s was not delivered: %s", self.id, kind, error)
            self._acked = None if kind == "frozen" else self._acked
        except Rejected as problem:
            self._refused, self._owes_answer = None, False
            if problem.code != STALE:
                log.warning("%s: %s was not taken: %s [%s]", self.id, kind, problem, problem.code)
        self._seen = None  # ask at once what holds now
        return None


async def register(
    url: str,
    workspace: str,
    *,
    agent: str,
    on_freeze: Callable[[], Awaitable[object]] = nothing,
    on_thaw: Callable[[], Awaitable[object]] = nothing,
    on_switch: Callable[[Tree], Awaitable[object]] = nothing,
    on_end: Callable[[str], Awaitable[object]] = nothing,
    lease_s: float = LEASE_S,
) -> Session:
    """Registers an agent that is going to write the live tree of `workspace` (name or id). Use it with `async with`.

    `on_freeze` returns when the agent has stopped writing, or raises `FreezeRefused`; what it wrote is flushed after
    that. Then comes one of `on_thaw` and `on_switch`, which gets the live tree to go on in: nothing of the old one may
    be written on, and nothing that was read in it be written to the new one. `on_end` comes when the session was
    evicted or the workspace disabled: the agent stops for good. Hooks run one at a time.

    Raises `Rejected` (there is no such workspace, it is disabled) and `Unreachable`; then nobody knows whether the
    session was registered, and `wvsctl session list` tells.
    """
    hooks = Hooks(on_freeze=on_freeze, on_thaw=on_thaw, on_switch=on_switch, on_end=on_end)
    return await open_session(url, workspace, agent, hooks, lease_s)


async def open_session(url: str, workspace: str, agent: str, hooks: Hooks, lease_s: float = LEASE_S) -> Session:
    """`register` for whoever brings all hooks."""
    transport = Transport(url)
    body = {"agent": agent, "host": socket.gethostname(), "pid": os.getpid(), "lease_s": lease_s}
    path = f"/v1/workspaces/{quote(workspace, safe='')}/sessions"
    with contextlib.ExitStack() as undo:
        undo.callback(transport.close)
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await transport.call("POST", path, RegistrationDocument, body)
        except TimeoutError:
            raise Unreachable(f"no answer in {_ANSWER_S:g} s") from None
        session = Session(transport, answer, hooks, lease_s)
        undo.pop_all()
    return session


def _end(number: int, reason: str) -> Directive:
    return Directive(number=number, kind=DirectiveKind.END, epoch=0, reason=reason)


def _tree(directive: Directive) -> Tree:
    if directive.path is None:
        raise AgentError("the service names no live tree")
    return Tree(directive.path, directive.epoch)


def _as_text(error: Exception) -> str:
    """What JSON and the service take: the name of a file in it may be any bytes."""
    return str(error).encode(errors="backslashreplace").decode().replace("\0", r"\x00")[:900]
