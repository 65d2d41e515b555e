"""Registering an agent with the service."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import quote

from wvs.agent.errors import Unreachable
from wvs.agent.hooks import Hooks, do_nothing
from wvs.agent.protocol import RegistrationDocument, Tree
from wvs.agent.session import Session
from wvs.agent.transport import AgentTransport

LEASE_S: Final = 30.0
_TIMEOUT_S: Final = 5.0


async def register(  # noqa: PLR0913 - hooks and options, each named
    url: str,
    workspace: str,
    *,
    agent: str,
    on_freeze: Callable[[], Awaitable[object]] = do_nothing,
    on_thaw: Callable[[], Awaitable[object]] = do_nothing,
    on_switch: Callable[[Tree], Awaitable[object]] = do_nothing,
    on_end: Callable[[str], Awaitable[object]] = do_nothing,
    lease_s: float = LEASE_S,
    headers: Sequence[str] = (),
) -> Session:
    """Registers an agent that will write to the live tree of `workspace` (name or id). Use it with `async with`.

    `on_freeze` stops the agent: it returns when the agent no longer writes, or raises `CannotFreeze`. WVS then flushes
    what the agent wrote. Next, WVS calls either `on_thaw` or `on_switch`. `on_switch` receives the new live tree: from
    then on the agent must not write to the old tree, and must not write data that it read in the old tree to the new
    one. `on_end` is called when the session was evicted or the workspace disabled: the agent stops for good. Hooks run
    one at a time.

    `headers`, each `NAME: VALUE`, and those of WVS_HEADERS go with each request, for a proxy in front of the service.
    `user:password` in `url` becomes a header, too. https verifies with SSL_CERT_FILE if that is set.

    Raises `Rejected` if the workspace does not exist or is disabled. Raises `Unreachable` if no answer came: then the
    session may or may not exist, and `wvsctl session list` shows which.
    """
    hooks = Hooks(on_freeze=on_freeze, on_thaw=on_thaw, on_switch=on_switch, on_end=on_end)
    return await open_session(url, workspace, agent, hooks, lease_s, headers)


async def open_session(
    url: str, workspace: str, agent: str, hooks: Hooks, lease_s: float = LEASE_S, headers: Sequence[str] = ()
) -> Session:
    """Like `register`, for a caller that supplies all hooks."""
    transport = AgentTransport(url, headers)
    body = {"agent": agent, "host": socket.gethostname(), "pid": os.getpid(), "lease_s": lease_s}
    path = f"/v1/workspaces/{quote(workspace, safe='')}/sessions"
    with contextlib.ExitStack() as undo:
        undo.callback(transport.close)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await transport.call("POST", path, RegistrationDocument, body)
        except TimeoutError:
            raise Unreachable(f"the service did not answer within {_TIMEOUT_S:g} s") from None
        session = Session(transport, answer, hooks, lease_s)
        undo.pop_all()
    return session
