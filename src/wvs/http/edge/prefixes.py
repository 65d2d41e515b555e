"""The path under which a proxy serves the API. The proxy removes it; links in answers have to begin with it."""

import ipaddress
from collections.abc import Mapping

from wvs.settings import PREFIX_PATTERN


def forwarded_prefix(client: tuple[str, int] | None, headers: Mapping[bytes, bytes]) -> str:
    """The path in `X-Forwarded-Prefix` of a proxy on this host; empty without one.

    A proxy elsewhere is not believed: `WVS_PUBLIC_URL` names the path instead. Only a plain path is accepted, because
    it becomes a part of the page /schema.
    """
    sent = headers.get(b"x-forwarded-prefix")
    if sent is None or client is None or not ipaddress.ip_address(client[0]).is_loopback:
        return ""
    prefix = sent.decode("latin-1").strip().rstrip("/")
    return prefix if PREFIX_PATTERN.fullmatch(prefix) else ""
