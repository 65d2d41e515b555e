"""Runs the API with uvicorn: on loopback unless told otherwise, draining on SIGTERM and SIGINT."""

import asyncio
import ipaddress
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Final

import structlog
import uvicorn

from wvs.http.app import Api
from wvs.http.edge.protocol import BoundedProtocol

DRAIN_GRACE_S: Final = 30

# Accepted sockets inherit them (tcp(7)): a peer that is gone without a word is noticed in about a minute, and the
# kernel keeps no megabytes for one that takes nothing.
_PEER_OPTIONS: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
    (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 128 * 1024),
)
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_log = structlog.get_logger("wvs.http")


class RemoteAddressError(ValueError):
    """The address can be reached from other machines, and nobody said in words that this is wanted."""


def listen(host: str, port: int, *, allow_remote: bool = False) -> socket.socket:
    """A bound socket for `serve`; port 0 takes a free one.

    Raises `RemoteAddressError` for anything but a loopback address unless `allow_remote` (which logs a warning), and
    `OSError` if the address is unknown, not of this machine, or in use.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    if not ipaddress.ip_address(address[0]).is_loopback:
        if not allow_remote:
            raise RemoteAddressError(
                f"{host} can be reached from other machines, and this API asks nobody who they are; "
                "use 127.0.0.1, or --insecure-allow-remote if something in front of it does"
            )
        _log.warning("http.remote_access_without_authentication", host=host, port=port)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for level, option, value in _PEER_OPTIONS:
            listener.setsockopt(level, option, value)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """Where `listener` can be reached, for example `http://127.0.0.1:8787`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


async def serve(
    api: Api,
    listener: socket.socket,
    *,
    on_listening: Callable[[str], None],
    grace_s: int = DRAIN_GRACE_S,
    handle_signals: bool = True,
) -> None:
    """Serves until `api.draining` is set, by a signal or by anyone else, and then until what is in flight is answered.

    `on_listening` is called with the URL once connections are accepted. Draining takes no new connections, ends idle
    ones, and gives requests `grace_s` seconds before they are cancelled; a second signal does not wait for them.
    What `api`'s lifespan raises is raised here, before anything listens. `listener` is closed in any case.
    """
    with listener:
        async with api.litestar.lifespan():
            server = _Server(_config(api, grace_s), lambda: on_listening(url_of(listener)))
            stopping = asyncio.create_task(_stop_when_draining(api.draining, server))
            try:
                with _signals_drain(api.draining, server) if handle_signals else nullcontext():
                    await server.serve(sockets=[listener])
            finally:
                api.draining.set()
                await stopping
                await _cancel(server.server_state.tasks)


def _config(api: Api, grace_s: int) -> uvicorn.Config:
    return uvicorn.Config(
        api.asgi,  # pyright: ignore[reportArgumentType] - the same ASGI, in other words
        http=partial(BoundedProtocol, api.asgi),  # pyright: ignore[reportArgumentType] - called, never subclassed
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=api.asgi.limits.keep_alive_s,
        timeout_graceful_shutdown=grace_s,
        # A pipelined request would otherwise begin with the log context of the one before.
        reset_contextvars=True,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_listening()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn's own handlers raise the signal once more after a clean end, which would make the exit code a failure.
        yield


@contextmanager
def _signals_drain(draining: asyncio.Event, server: uvicorn.Server) -> Generator[None, None, None]:
    loop = asyncio.get_running_loop()
    signalled = False

    def on_signal() -> None:
        nonlocal signalled
        server.force_exit = signalled
        signalled = True
        draining.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def _stop_when_draining(draining: asyncio.Event, server: uvicorn.Server) -> None:
    await draining.wait()
    server.should_exit = True


async def _cancel(requests: set[asyncio.Task[None]]) -> None:
    """Ends what was not finished in time, before the lifespan closes what it works with."""
    unfinished = set(requests)
    for request in unfinished:
        request.cancel()
    if unfinished:
        _log.warning("http.requests_cancelled", count=len(unfinished))
        await asyncio.wait(unfinished, timeout=1.0)
