"""Runs the API with uvicorn: on loopback unless remote access is allowed, draining on SIGTERM and SIGINT."""

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
from wvs.settings import InvalidSetting

DRAIN_GRACE_S: Final = 30

# Accepted sockets inherit these options (tcp(7)). The kernel detects a peer that vanished within about a minute, and it
# does not buffer megabytes for a peer that reads nothing.
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


class RemoteAddressError(InvalidSetting):
    """Other machines can reach the address, and the caller has not explicitly allowed that."""


def listen(host: str, port: int, *, allow_remote: bool = False) -> socket.socket:
    """A bound socket for `serve`. With port 0 the kernel chooses a free port.

    Raises `RemoteAddressError` for any address that is not loopback, unless `allow_remote` is set, which logs a
    warning. Raises `OSError` if the address is unknown, does not belong to this machine, or is in use.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    if not ipaddress.ip_address(address[0]).is_loopback:
        if not allow_remote:
            raise RemoteAddressError(
                f"other machines can reach {host}, and this API does not authenticate its clients; use 127.0.0.1, "
                "or --insecure-allow-remote if a proxy in front of the API authenticates them"
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
    """The URL of `listener`, for example `http://127.0.0.1:8787`."""
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
    """Serves until a signal or another task sets `api.draining`, then until the requests in flight are answered.

    Calls `on_listening` with the URL once the server accepts connections. While it drains, the server accepts no new
    connections, closes idle ones, and cancels the requests that are still running after `grace_s` seconds. A second
    signal cancels them at once. An exception of `api`'s lifespan is raised here before the server listens. `listener`
    is always closed.
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
        api.asgi,  # pyright: ignore[reportArgumentType] - uvicorn declares the same ASGI types differently
        http=partial(BoundedProtocol, api.asgi),  # pyright: ignore[reportArgumentType] - uvicorn only calls it
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
        # Otherwise a pipelined request would start with the log context of the request before it.
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
        # uvicorn's own handlers raise the signal again after a clean stop, which would make the exit code a failure.
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
    """Cancels the requests that did not finish in time, before the lifespan closes the resources they use."""
    unfinished = set(requests)
    for request in unfinished:
        request.cancel()
    if unfinished:
        _log.warning("http.requests_cancelled", count=len(unfinished))
        await asyncio.wait(unfinished, timeout=1.0)
