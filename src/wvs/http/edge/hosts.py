"""Which Host headers are ours: the guard against DNS rebinding of a service that asks for no credentials."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")

_HOST: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?")


class HostRule:
    """Accepts the configured hosts: `name` on any port, `name:port` on that port only. Letter case does not count."""

    def __init__(self, hosts: Iterable[str]) -> None:
        """Raises `ValueError` naming a host that is none; there is no wildcard."""
        self._hosts = frozenset(host.lower() for host in hosts)
        for host in self._hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(
                    f"{host!r} is not a host name, an address, [an IPv6 address], or one of them with :port"
                )
        self.accepts = lru_cache(maxsize=256)(self._accepts)

    def _accepts(self, header: bytes) -> bool:
        match = _HOST.fullmatch(header.decode("latin-1").lower())
        return match is not None and (match["name"] in self._hosts or match[0] in self._hosts)
