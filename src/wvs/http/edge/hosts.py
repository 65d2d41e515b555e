"""Which Host headers the service accepts: the guard against DNS rebinding, because the service needs no credentials."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from wvs.settings import HOST_PATTERN

LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")


class HostRule:
    """Accepts the configured hosts: `name` on any port, `name:port` on that port only. Ignores letter case."""

    def __init__(self, hosts: Iterable[str]) -> None:
        """Raises `ValueError`, which names the host, for a malformed host. There is no wildcard."""
        self._hosts = frozenset(host.lower() for host in hosts)
        for host in self._hosts:
            if not HOST_PATTERN.fullmatch(host):
                raise ValueError(
                    f"{host!r} is not a host name, an address, [an IPv6 address], or one of them with :port"
                )
        self.accepts = lru_cache(maxsize=256)(self._accepts)

    def _accepts(self, header: bytes) -> bool:
        match = HOST_PATTERN.fullmatch(header.decode("latin-1").lower())
        return match is not None and (match["name"] in self._hosts or match[0] in self._hosts)
