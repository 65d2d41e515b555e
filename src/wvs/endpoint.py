"""Where a client finds the API, and what it sends with each request to a proxy in front of it.

A URL may hold `user:password`, and headers hold tokens. No message of this module contains either.
"""

import base64
import os
import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from msgspec import Struct

HEADERS_VARIABLE: Final = "WVS_HEADERS"

_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e]*)")
# They say how this request is framed and where it goes; another value would break it.
_OWN: Final = frozenset({"host", "connection", "content-length", "content-type", "transfer-encoding"})
_PATH_SAFE: Final = "/%:@!$&'()*+,;=~-._"
_EXAMPLE: Final = "for example: http://127.0.0.1:8787"


class InvalidEndpoint(ValueError):
    """A URL, a header or a certificate file is not usable. `help` is what to do."""

    def __init__(self, message: str, remedy: str = _EXAMPLE) -> None:
        super().__init__(message)
        self.help = remedy


class Endpoint(Struct, frozen=True):
    """The address of the API. `url` is for people and has no password; `prefix` is its path; `headers` go with each
    request.
    """

    url: str
    secure: bool
    host: str
    port: int | None
    prefix: str
    headers: Mapping[str, str]

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def endpoint_of(url: str, headers: Iterable[str] = ()) -> Endpoint:
    """The endpoint at `url`, with the headers of WVS_HEADERS and `headers`, each `NAME: VALUE`; later ones replace.

    `user:password` in the URL becomes `Authorization: Basic`, unless a header of that name is given. Raises
    `InvalidEndpoint`.
    """
    parts = _checked(url)
    named = {"authorization": ("Authorization", basic)} if (basic := _basic(parts)) else {}
    lines = [line for line in os.environ.get(HEADERS_VARIABLE, "").splitlines() if line.strip()]
    for source, texts in ((HEADERS_VARIABLE, lines), ("--header", headers)):
        for number, text in enumerate(texts, 1):
            name, value = _header(text, source, number)
            named[name.lower()] = (name, value)
    return Endpoint(
        url=_without_password(url),
        secure=parts.scheme == "https",
        host=parts.hostname or "",
        port=parts.port,
        prefix=quote(parts.path.rstrip("/"), safe=_PATH_SAFE),
        headers=dict(named.values()),
    )


def tls_context() -> ssl.SSLContext:
    """Verifies certificates with those of SSL_CERT_FILE if it is set, else with the system's. Raises `InvalidEndpoint`.

    OpenSSL would ignore a file that it cannot read, and every certificate would be refused without the reason.
    """
    context = ssl.create_default_context()
    if path := os.environ.get("SSL_CERT_FILE"):
        try:
            context.load_verify_locations(cafile=path)
        except OSError as error:
            reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise InvalidEndpoint(
                f"SSL_CERT_FILE={path} cannot be used: {reason}", "name a file with the certificates of the CA, in PEM"
            ) from error
    return context


def _checked(url: str) -> SplitResult:
    shown = repr(_without_password(url))
    if any(character < " " or character == "\x7f" for character in url) or " " in url.partition("://")[2].split("/")[0]:
        raise InvalidEndpoint(f"{shown} is not a URL")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        # The text of `error` quotes a part of the URL, which may be a part of the password.
        if "@" in url:
            raise InvalidEndpoint(
                f"{shown} is not a URL", "write / ? # @ and : in a user name or password as %2F %3F %23 %40 and %3A"
            ) from None
        raise InvalidEndpoint(f"{shown} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidEndpoint(f"{shown} is not an http or https URL")
    if not parts.netloc.rpartition("@")[2].isascii():
        raise InvalidEndpoint(f"{shown} is not a URL: its host has other characters than ASCII")
    if parts.query or parts.fragment:
        raise InvalidEndpoint(f"{shown} may contain only a user, a host, a port and a path")
    return parts


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url.rpartition("@")[2]
    return scheme + separator + rest.rpartition("@")[2]


def _basic(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode("ascii")


def _header(text: str, source: str, number: int) -> tuple[str, str]:
    match = _HEADER.fullmatch(text.strip())
    if match is None:
        raise InvalidEndpoint(
            f"header {number} of {source} is not NAME: VALUE in printable ASCII",
            "for example: X-Api-Key: secret; WVS_HEADERS has one header a line",
        )
    if match[1].lower() in _OWN:
        raise InvalidEndpoint(f"header {number} of {source}: {match[1]} cannot be set", "leave it out")
    return match[1], match[2].rstrip()
