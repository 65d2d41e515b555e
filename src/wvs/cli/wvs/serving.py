"""`wvs api` and `wvs openapi`: builds the API from the settings and runs it."""

import errno
import socket
import sys
from functools import partial

import msgspec
import uvloop

from wvs.cli.wvs.child_process import announce_ready, end_with_parent
from wvs.cli.wvs.environment import database_url
from wvs.http.server import listen, serve
from wvs.http.starting import database_reached
from wvs.http.wiring import document, open_api
from wvs.settings import InvalidSetting, Settings


def run_api(settings: Settings, *, allow_remote: bool) -> int:
    """Serves until it is drained. Reports the URL on stdout, or to `wvs up` if that started this process."""
    end_with_parent()
    url = database_url(settings)
    try:
        listener = listen(settings.host, settings.port, allow_remote=allow_remote)
    except OSError as error:
        other = "host" if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL else "port"
        raise InvalidSetting(
            f"cannot listen on WVS_HOST={settings.host} WVS_PORT={settings.port}: {error.strerror}; "
            f"choose another {other}"
        ) from error
    uvloop.run(_serve(settings, url, listener))
    return 0


def print_openapi() -> int:
    """Prints the formatted OpenAPI document."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document())).decode() + "\n")
    return 0


async def _serve(settings: Settings, url: str, listener: socket.socket) -> None:
    with listener:
        if not await database_reached(settings, url, listener):
            return
        async with open_api(settings, url) as api:
            await serve(api, listener, on_listening=partial(announce_ready, "api"))
