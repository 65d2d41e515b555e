"""One session of an agent: it obeys the service's directives, and thaws by itself when the service is unreachable."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self

from msgspec import UNSET, to_builtins

from wvs.agent.errors import AgentError, CannotFreeze, Rejected, Unreachable
from wvs.agent.freeze_state import FreezeState
from wvs.agent.hooks import Hooks
from wvs.agent.live_tree import tree_at
from wvs.agent.protocol import (
    FREEZE_STALE,
    SESSION_NOT_FOUND,
    SESSION_SECRET_INVALID,
    DirectiveDocument,
    Instruction,
    RegistrationDocument,
    Tree,
    end_directive,
    tree_of,
)
from wvs.agent.transport import AgentTransport, PreparedRequest
from wvs.background import stop

_ANSWER_TIMEOUT_S: Final = 5.0
_FROZEN_WAIT_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
_LEAVE_PATIENCE_S: Final = 30.0
_SPREAD_S: Final = 0.03
_WAKE_PATIENCE_S: Final = 0.05
_IN_PLACE_PATIENCE_S: Final = 2.0
_IN_PLACE_PAUSE_S: Final = 0.05
_OBSERVE_PATIENCE_S: Final = 2.0
_OBSERVE_FROZEN_PATIENCE_S: Final = 0.05

log = logging.getLogger("wvs.agent")


class Session:
    """A registered session. `async with` obeys directives within the block and deregisters the session after it.

    The block begins when the agent may work: not while a freeze is open.
    """

    def __init__(
        self, transport: AgentTransport, registration: RegistrationDocument, hooks: Hooks, lease_s: float
    ) -> None:
        self.id: Final = registration.session.id
        self.workspace_id: Final = registration.session.workspace_id
        self._transport = transport
        self._hooks = hooks
        self._wait_s = min(20.0, lease_s / 2)
        self._directive = registration.directive
        self._seen_number: int | None = None
        self._started = asyncio.Event()
        self._ended = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._state = FreezeState(hooks, tree_of(registration.directive))
        self._answered: int | None = None  # the number of the last freeze that this session answered
        self._pending_refusal: tuple[int, str] | None = None  # freeze and reason, until the service has taken it
        self._early_resume: tuple[int, str] | None = None  # freeze and token; the agent resumed before its answer
        self._owes_answer = False  # to the freeze in _early_resume
        self._requested_at = 0.0  # when the newest directive was requested, in the loop's time
        self._ending: Final = ("DELETE", f"/v1/sessions/{self.id}")
        self._is_detached = False  # the agent resumed because the service was unreachable
        self.end_reason: str | None = None

    @property
    def tree(self) -> Tree:
        """The live tree in which the agent works."""
        return self._state.tree

    async def __aenter__(self) -> Self:
        self.follow()
        await self.until_started()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self.stop_following()
        await self.leave()

    def follow(self) -> None:
        """Begins to obey directives, in a task of its own."""
        self._following = asyncio.create_task(self._follow())

    async def stop_following(self) -> None:
        """Stops obeying directives. No hook runs after this."""
        if self._following is not None:
            await stop(self._following)

    async def until_started(self) -> None:
        """Returns once the agent may work. Raises `AgentError` if the session ended instead, or what a hook raised."""
        await self._wait_for(self._started)

    async def until_ended(self) -> None:
        """Returns once the service has ended the session (see `end_reason`). Raises what a hook raised."""
        await self._wait_for(self._ended)

    async def _wait_for(self, event: asyncio.Event) -> None:
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
        """Deregisters the session: later freezes do not wait for it.

        Call it only when nothing that the session stands for can write any more. Raises `AgentError` if the service
        does not accept it within `patience_s` seconds; then the session continues to block freezes.
        """
        try:
            async with asyncio.timeout(patience_s):
                await self._send_owed_answer()
                await self._retry(lambda: self._transport.call(*self._ending, dict[str, Any]))
        except TimeoutError:
            raise Unreachable(f"the service did not end the session within {patience_s:g} s") from None
        except Rejected as problem:
            if problem.code != SESSION_NOT_FOUND:
                raise
        finally:
            self._transport.close()
            self._state.close()

    def prepared_ending(self) -> PreparedRequest:
        """The request that deregisters the session, for a process that outlives this one. It has the secret."""
        return self._transport.prepare(*self._ending)

    async def _send_owed_answer(self) -> None:
        """Confirms the freeze from which the agent resumed early; without this answer the clone is discarded.

        The agent did stay frozen until the clone had ended, although it ends before it could answer.
        """
        if not self._owes_answer or self._early_resume is None:
            return
        number, token = self._early_resume
        ack = {"kind": "still_frozen", "freeze": number, "token": token}
        with contextlib.suppress(Unreachable, Rejected, TimeoutError):
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                await self._transport.call("POST", f"/v1/sessions/{self.id}/acks", dict[str, Any], ack)

    async def _retry(self, call: Callable[[], Awaitable[object]]) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(_ANSWER_TIMEOUT_S):
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
            directive = answer or await self._next_directive()

    async def _next_directive(self) -> DirectiveDocument:
        """Polls until the service answers. A freeze whose deadline passes meanwhile ends."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return await self._poll()
            except (Unreachable, TimeoutError) as error:
                if self._state.is_overdue:
                    await self._resume_alone()
                    continue
                if self._is_detached:
                    await self._follow_path()
                log.debug("%s: the service cannot be reached: %s", self.id, error)
            await self._pause(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads the callers, protects nothing
            pause = min(pause * 2, _FROZEN_WAIT_S / 2 if self._state.is_frozen else _LONGEST_PAUSE_S)

    async def _poll(self) -> DirectiveDocument:
        wait_s = _FROZEN_WAIT_S if self._state.is_frozen else self._wait_s
        query = "" if self._seen_number is None else f"?after={self._seen_number}&wait={wait_s:g}"
        path = f"/v1/sessions/{self.id}/directive{query}"
        self._requested_at = asyncio.get_running_loop().time()
        limit = self._requested_at + wait_s + _ANSWER_TIMEOUT_S
        try:
            async with asyncio.timeout_at(min(limit, self._state.deadline or limit)):
                directive = await self._transport.call("GET", path, DirectiveDocument)
        except Rejected as problem:
            if problem.code == SESSION_SECRET_INVALID and not self._state.is_frozen:
                raise  # something on the way removes the header: this session cannot answer any freeze
            if problem.code != SESSION_NOT_FOUND:
                raise Unreachable(f"the service answers {problem.status} {problem.code}") from problem
            # No freeze waits for a session that the service does not know: the agent must stop writing.
            return end_directive(self._seen_number or 0, f"the service answers {problem.code}: {problem}")
        self._is_detached = False
        return directive

    async def _pause(self, seconds: float) -> None:
        if self._state.deadline is not None:
            seconds = min(seconds, max(0.0, self._state.deadline - asyncio.get_running_loop().time()))
        await asyncio.sleep(seconds)

    async def _obey(self, directive: DirectiveDocument) -> DirectiveDocument | None:
        """Carries out a directive. Returns the next one if the service sent it in answer to an acknowledgement."""
        self._seen_number = directive.number
        state = self._state
        if directive.budget_s is not None and state.is_frozen and directive.freeze == state.number:
            state.extend(directive.budget_s, self._requested_at)
        match directive.kind:
            case Instruction.RUN:
                await self._obey_run(directive)
            case Instruction.FREEZE:
                return await self._obey_freeze(directive)
            case Instruction.CONFIRM:
                return await self._obey_confirm(directive)
            case Instruction.SWITCH:
                return await self._obey_switch(directive)
            case Instruction.END:
                self.end_reason = directive.reason or "ended"
                await self._hooks.on_end(self.end_reason)
                self._ended.set()
        return None

    async def _obey_run(self, directive: DirectiveDocument) -> None:
        self._owes_answer = False
        if not self._started.is_set():
            if not await self._is_in_place(directive):
                return
            self._state.enter(tree_of(directive))
            self._started.set()
        elif self._state.is_frozen:
            await self._state.thaw()
            # Agents that resume together would otherwise all poll at once, while others still wait to resume.
            await asyncio.sleep(random.uniform(0, _SPREAD_S))  # noqa: S311 - spreads the callers, protects nothing

    async def _obey_freeze(self, directive: DirectiveDocument) -> DirectiveDocument | None:
        number = directive.freeze
        if self._early_resume is not None and self._early_resume[0] != number:
            self._early_resume, self._owes_answer = None, False  # that freeze is over
        if self._pending_refusal is not None and self._pending_refusal[0] == number:
            return await self._refuse(*self._pending_refusal)
        if not self._started.is_set() or number is None or self._answered == number:
            return None  # the agent does not run yet, or this session has answered already, perhaps with a refusal
        try:
            flush = await self._state.freeze(number, directive.budget_s or 0.0)
        except CannotFreeze as refusal:
            if directive.tree in (None, self.tree.name):  # in a tree that was replaced it stays frozen until the switch
                await self._state.thaw()
            return await self._refuse(number, _as_json_text(refusal))
        self._answered = number
        if not directive.member:
            return None
        details: dict[str, Any] = {}
        if directive.looked_from is not UNSET:
            details["frozen"] = to_builtins(self._state.frozen())
            self._state.begin_observing(directive.looked_from)
        return await self._acknowledge("frozen", freeze=number, token=self._state.token, flush=flush, **details)

    async def _refuse(self, number: int, reason: str) -> DirectiveDocument | None:
        """Refuses a freeze. The refusal is repeated until the service has taken it, or has gone on without it."""
        self._answered, self._pending_refusal = number, (number, reason)
        return await self._acknowledge("refused", freeze=number, reason=reason)

    async def _obey_confirm(self, directive: DirectiveDocument) -> DirectiveDocument | None:
        """Answers with the token of the freeze. If the agent ran meanwhile, the token is another one and breaks it."""
        # Also after a failed acknowledgement: the service may have taken it, and only its answer was lost.
        state, number = self._state, directive.freeze
        if self._early_resume is not None and self._early_resume[0] == number:
            token = self._early_resume[1]
            return await self._acknowledge("still_frozen", self._wait_s, freeze=number, token=token)
        token = state.token
        if state.is_frozen and not state.still_frozen():
            log.warning("%s: another process thawed the agent in freeze %s", self.id, number)
            await state.thaw()
            token = state.token
        elif state.is_frozen and directive.resume and number == state.number and directive.tree == self.tree.name:
            # The clone has ended, and the agent stayed frozen until then. That stays true when the agent resumes.
            assert number is not None
            self._answered, self._early_resume, self._owes_answer = number, (number, token), True
            return await self._resume_then_confirm(number, token, directive.answer_after_s)
        seen = await self._state.observed(_OBSERVE_FROZEN_PATIENCE_S)  # the agent is frozen meanwhile
        return await self._acknowledge("still_frozen", freeze=number, token=token, **seen)

    async def _resume_then_confirm(self, number: int, token: str, after_s: float) -> DirectiveDocument | None:
        """Resumes the agent, then confirms the freeze. An agent that is slow to resume does not delay the answer."""
        thaw = asyncio.create_task(self._state.thaw())
        try:
            await asyncio.sleep(after_s)
            await asyncio.wait({thaw}, timeout=_WAKE_PATIENCE_S)
            wait_s = self._wait_s if thaw.done() and thaw.exception() is None else 0.0
            seen = await self._state.observed(_OBSERVE_PATIENCE_S)
            answer = await self._acknowledge("still_frozen", wait_s, freeze=number, token=token, **seen)
        except asyncio.CancelledError:
            await stop(thaw)
            raise
        await thaw
        return answer

    async def _obey_switch(self, directive: DirectiveDocument) -> DirectiveDocument | None:
        if not await self._is_in_place(directive):
            return None
        tree = tree_of(directive)
        if not self._started.is_set():
            self._state.enter(tree)
        elif (tree.path, tree.name) != (self.tree.path, self.tree.name):
            await self._state.switch(tree)
        elif self._state.is_frozen:
            await self._state.thaw()
        self._state.tree = tree
        return await self._acknowledge("switched", epoch=directive.epoch)

    async def _is_in_place(self, directive: DirectiveDocument) -> bool:
        """Waits until the path shows the tree of the directive; False if the agent has to ask again.

        The service gives out a tree that is in place. But this host may still show what its filesystem has cached.
        """
        if directive.path is None:
            return True
        loop = asyncio.get_running_loop()
        until = loop.time() + _IN_PLACE_PATIENCE_S
        while await tree_at(directive.path) not in (None, directive.tree):
            if self._state.is_overdue:
                await self._resume_alone()
                return False
            if loop.time() >= until:
                log.warning("%s: %s is not yet the live tree %s", self.id, directive.path, directive.tree)
                self._seen_number = None
                return False
            await asyncio.sleep(_IN_PLACE_PAUSE_S)
        return True

    async def _resume_alone(self) -> None:
        """Ends a freeze whose deadline passed without contact to the service. Its token is never sent again."""
        log.warning("%s: no contact to the service in freeze %s; resuming the agent", self.id, self._state.number)
        self._is_detached = True
        if not await self._follow_path():
            await self._state.thaw()

    async def _follow_path(self) -> bool:
        """Moves the agent to the tree that is at the path now. False if the agent is in that one already."""
        name = await tree_at(self.tree.path)
        if name is None or self.tree.name in (None, name):
            return False
        log.warning("%s: the live tree was replaced by %s", self.id, name)
        await self._state.switch(Tree(self.tree.path, None, name))
        return True

    async def _acknowledge(self, kind: str, wait_s: float = 0.0, **fields: Any) -> DirectiveDocument | None:
        """Sends an acknowledgement and returns the next directive.

        The service waits for that directive while the agent is frozen, else for `wait_s` seconds. Returns None if the
        service did not take the acknowledgement: the next poll then shows what holds.
        """
        after = self._seen_number
        if self._state.is_frozen:
            wait_s = _FROZEN_WAIT_S
        elif wait_s and after is not None:
            # The acknowledgement itself raises the number by one, which is no news here. Anything newer ends the wait.
            after += 1
        self._requested_at = asyncio.get_running_loop().time()
        limit = self._requested_at + wait_s + _ANSWER_TIMEOUT_S
        try:
            async with asyncio.timeout_at(min(limit, self._state.deadline or limit)):
                path = f"/v1/sessions/{self.id}/acks?after={after}&wait={wait_s:g}"
                answer = await self._transport.call("POST", path, DirectiveDocument, {"kind": kind, **fields})
                self._pending_refusal, self._owes_answer = None, False
                return answer
        except (Unreachable, TimeoutError) as error:
            log.debug("%s: the acknowledgement %s was not delivered: %s", self.id, kind, error)
            self._answered = None if kind == "frozen" else self._answered
        except Rejected as problem:
            self._pending_refusal, self._owes_answer = None, False
            if problem.code != FREEZE_STALE:
                log.warning("%s: the service refused %s: %s [%s]", self.id, kind, problem, problem.code)
        self._seen_number = None  # poll at once
        return None


def _as_json_text(error: Exception) -> str:
    """The error's text as JSON and the service accept it: a file name in it may be any bytes."""
    return str(error).encode(errors="backslashreplace").decode().replace("\0", r"\x00")[:900]
