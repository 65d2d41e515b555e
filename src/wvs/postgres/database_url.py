"""Reads a database URL by the rules of libpq (fe-connect.c, conninfo_uri_parse_options).

WVS reads it by itself because its two drivers do not agree with libpq: asyncpg sends a parameter that it does not know
to the server and tries several hosts within one timeout; dbmate cannot read an IPv6 address. A parameter either has the
effect that libpq gives it, or it is refused by name.
"""

import os
import socket
from collections.abc import Mapping
from typing import Final, NoReturn
from urllib.parse import quote, unquote_to_bytes, urlencode

import msgspec

from wvs.postgres.errors import InvalidDatabaseUrl

CONNECT_TIMEOUT_S: Final = 5.0
KEEPALIVE: Final[Mapping[str, int]] = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,  # milliseconds unacknowledged after which the peer is gone (tcp(7), RFC 5482)
}

_SCHEMES: Final = ("postgresql://", "postgres://")
_IDENTITY: Final = frozenset({"host", "port", "user", "password", "dbname"})
_NUMBERS: Final = frozenset({*KEEPALIVE, "connect_timeout"})
_TLS_FILES: Final = ("sslcert", "sslkey", "sslrootcert", "sslcrl")
_TLS: Final = frozenset(
    {*_TLS_FILES, "sslmode", "sslpassword", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version"}
)
_DRIVER: Final = _TLS | {"passfile", "krbsrvname", "gsslib", "target_session_attrs"}
_SERVER: Final = frozenset({"application_name", "options"})
_NOT_OF_DBMATE: Final = frozenset({"sslcrl", "sslpassword", "krbsrvname", "gsslib", "target_session_attrs"})
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "read-write", "primary"),  # WVS writes
    "channel_binding": ("disable", "prefer", "require"),
    # With these values libpq does what asyncpg always does.
    "client_encoding": ("auto", "UTF8", "utf8", "UTF-8", "utf-8"),
    "gssencmode": ("disable", "prefer"),
    "load_balance_hosts": ("disable",),
    "sslcertmode": ("allow",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
}
_WITHOUT_EFFECT: Final = frozenset({"fallback_application_name"})  # for programs that set no application_name
_KNOWN: Final = _IDENTITY | _NUMBERS | _DRIVER | _SERVER | _CHOICES.keys() | _WITHOUT_EFFECT
_ENCRYPTED: Final = frozenset({"require", "verify-ca", "verify-full"})
_FORM: Final = (
    "the database URL must look like postgresql://USER:PASSWORD@HOST:PORT/DATABASE "
    "or, for a socket, postgresql://USER@/DATABASE?host=/DIRECTORY"
)
_ENCODING_HINT: Final = "write @ as %40, / as %2F and % as %25 in the user name, the password and the database name"
_NOT_ENCODED: Final = f"the database URL has an @ or a / that is not percent-encoded: {_ENCODING_HINT}"


class Host(msgspec.Struct, frozen=True):
    """A server to try. None means the default of libpq: `PGHOST` or the usual socket directories, `PGPORT` or 5432."""

    name: str | None = None
    port: int | None = None


class DatabaseUrl(msgspec.Struct, frozen=True):
    """A URL that was read. `driver` has the parameters that go to asyncpg, `server` those that go to the server.

    `unbound_channel` is true if the URL asks for `channel_binding=require`, which asyncpg cannot do: the connection is
    encrypted, but its authentication is not bound to the channel.
    """

    hosts: tuple[Host, ...]
    user: str | None
    password: str | None
    database: str | None
    driver: Mapping[str, str]
    server: Mapping[str, str]
    keepalive: Mapping[str, int]
    connect_timeout_s: float
    unbound_channel: bool

    @property
    def dsn(self) -> str:
        """What asyncpg takes only in a URL."""
        return f"postgresql:///?{urlencode(self.driver, quote_via=quote)}" if self.driver else "postgresql:///"

    def application_name(self, own: str) -> str:
        """The name of one of our connections, followed by the name in the URL."""
        return f"{own} {self.server['application_name']}" if "application_name" in self.server else own


def parse_url(url: str) -> DatabaseUrl:
    """Reads `url`; raises `InvalidDatabaseUrl`, whose message has no part of a user name or password."""
    scheme = next((scheme for scheme in _SCHEMES if url.startswith(scheme)), None)
    if scheme is None or "\0" in url:
        raise InvalidDatabaseUrl(_FORM)
    before, mark, query = _split_query(url.removeprefix(scheme))
    user, password, rest = _login(before)
    authority, slash, database = rest.partition("/")
    if "@" in rest:
        raise InvalidDatabaseUrl(_NOT_ENCODED)
    names, ports = _authority(authority)
    given = _parameters(query) if mark else {}
    found = {
        "user": _decoded(user),
        "password": _decoded(password),
        "dbname": _decoded(database) if slash else "",
        "host": _decoded(",".join(names)),
        "port": ",".join(ports),
    }
    return _assembled({name: value for name, value in {**found, **given}.items() if value})


def dbmate_url(url: DatabaseUrl, host: str, port: int) -> str:
    """The same database for dbmate (Go's URL parser and lib/pq), on the server that WVS itself has reached.

    Without the password, which goes into the environment. `sslmode` defaults to `prefer` as in libpq and asyncpg.
    """
    query = {name: value for name, value in url.driver.items() if name not in _NOT_OF_DBMATE}
    query.setdefault("sslmode", os.environ.get("PGSSLMODE", "prefer"))
    if host.startswith("/"):
        query["sslmode"] = "disable"
    if "options" in url.server:
        query["options"] = url.server["options"]
    query |= {"host": host, "port": str(port), "connect_timeout": f"{max(1, round(url.connect_timeout_s))}"}
    login = f"{quote(url.user, safe='')}@" if url.user else ""
    return f"postgres://{login}/{quote(url.database or '', safe='')}?{urlencode(query, quote_via=quote)}"


def _split_query(text: str) -> tuple[str, str, str]:
    """The part before the `?`, the mark and the part after it. A password may contain a `?`, as in libpq."""
    login, at, _ = text.partition("@")
    start = len(login) + 1 if at and "/" not in login else 0
    before, mark, query = text[start:].partition("?")
    return text[:start] + before, mark, query


def _login(text: str) -> tuple[str, str, str]:
    login, at, rest = text.partition("@")
    if not at or "/" in login:
        return "", "", text
    user, _, password = login.partition(":")
    return user, password, rest


def _authority(text: str) -> tuple[list[str], list[str]]:
    """The names and the ports of the hosts."""
    names: list[str] = []
    ports: list[str] = []
    for part in text.split(","):
        if part.startswith("["):
            name, bracket, port = part[1:].partition("]")
            if not name or not bracket or (port and not port.startswith(":")):
                raise InvalidDatabaseUrl(
                    "an IPv6 address in the database URL must look like [ADDRESS] or [ADDRESS]:PORT"
                )
        else:
            name, _, port = part.partition(":")
        names.append(name)
        ports.append(port.removeprefix(":"))
    return names, ports if any(ports) else []


def _parameters(query: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        if not equals or "=" in value:
            _refuse_query(query, "the part after the ? of the database URL is not of the form NAME=VALUE&…")
        name, value = _decoded(name), _decoded(value)
        if (name, value) == ("ssl", "true"):  # as JDBC writes it
            name, value = "sslmode", "require"
        if name not in _KNOWN:
            _refuse_query(
                query,
                f"the parameter {name} of the database URL is not supported: leave it out. "
                "A setting of the server is written options=-c%20NAME%3DVALUE",
            )
        if value and name in _CHOICES and value not in _CHOICES[name]:
            raise InvalidDatabaseUrl(
                f"{name}={value} in the database URL is not supported; WVS can do {name}={' or '.join(_CHOICES[name])}"
            )
        given[name] = value
    return given


def _refuse_query(query: str, reason: str) -> NoReturn:
    """With an @ in the query, it is probably the end of a password and must not be repeated."""
    raise InvalidDatabaseUrl(_NOT_ENCODED if "@" in query else reason)


def _decoded(text: str) -> str:
    """Percent-decoding only: a plus sign is a plus sign. Raises `InvalidDatabaseUrl` as libpq does."""
    for after in text.split("%")[1:]:
        if len(after) < 2 or not all(digit in "0123456789abcdefABCDEF" for digit in after[:2]) or after[:2] == "00":
            raise InvalidDatabaseUrl(f"the database URL has a % that begins no character: {_ENCODING_HINT}")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise InvalidDatabaseUrl("the database URL has percent-encoded bytes that are not UTF-8") from None


def _assembled(values: Mapping[str, str]) -> DatabaseUrl:
    driver = {name: value for name, value in values.items() if name in _DRIVER}
    bound = values.get("channel_binding") == "require"
    if bound and driver.get("sslmode") not in _ENCRYPTED:
        driver["sslmode"] = "require"  # libpq refuses a channel that is not encrypted
    _require_files(driver)
    seconds = _number(values, "connect_timeout", 0)
    return DatabaseUrl(
        hosts=_hosts(values),
        user=values.get("user"),
        password=values.get("password"),
        database=values.get("dbname"),
        driver=driver,
        server={name: value for name, value in values.items() if name in _SERVER},
        keepalive={name: _number(values, name, default) for name, default in KEEPALIVE.items()},
        connect_timeout_s=float(seconds) if seconds > 0 else CONNECT_TIMEOUT_S,
        unbound_channel=bound,
    )


def _hosts(values: Mapping[str, str]) -> tuple[Host, ...]:
    names = values.get("host", "").split(",")
    ports = values.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        raise InvalidDatabaseUrl(f"the database URL has {len(names)} hosts and {len(ports)} ports")
    if not all(port == "" or (port.isascii() and port.isdecimal() and 0 < int(port) < 65536) for port in ports):
        raise InvalidDatabaseUrl(
            "a port in the database URL is not a number from 1 to 65535; an IPv6 address needs brackets, and if the "
            f"password contains special characters: {_ENCODING_HINT}"
        )
    return tuple(Host(name or None, int(port) if port else None) for name, port in zip(names, ports, strict=True))


def _number(values: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(values.get(name, default))
    except ValueError:
        raise InvalidDatabaseUrl(f"{name} in the database URL must be a whole number") from None


def _require_files(driver: Mapping[str, str]) -> None:
    """A missing file would look like a server that is away."""
    for name in _TLS_FILES:
        if name in driver and not os.access(driver[name], os.R_OK):
            raise InvalidDatabaseUrl(
                f"{name}={driver[name]} in the database URL is no file that this process can read"
                + ("; name the file, such as /etc/ssl/certs/ca-certificates.crt" if driver[name] == "system" else "")
            )


def enable_keepalive(sock: socket.socket, keepalive: Mapping[str, int]) -> None:
    """Sets on a TCP socket what libpq would set; 0 means the default of the system."""
    if sock.family == socket.AF_UNIX or not keepalive["keepalives"]:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, option in (
        ("keepalives_idle", socket.TCP_KEEPIDLE),
        ("keepalives_interval", socket.TCP_KEEPINTVL),
        ("keepalives_count", socket.TCP_KEEPCNT),
        ("tcp_user_timeout", socket.TCP_USER_TIMEOUT),
    ):
        if keepalive[name] > 0:
            sock.setsockopt(socket.IPPROTO_TCP, option, keepalive[name])
