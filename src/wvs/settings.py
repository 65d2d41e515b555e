"""Every setting of WVS: name, type, default and meaning in one place. `wvs --help` is generated from this module.

A field `port` is read from the environment variable `WVS_PORT`. An unset or empty variable means the default.
"""

import difflib
import grp
import os
import pwd
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta

PREFIX: Final = "WVS_"

CONSOLE_VARIABLES: Final = ("WVS_URL", "WVS_ACTOR", "WVS_HEADERS")
"""What the console reads."""

AGENT_VARIABLES: Final = ("WVS_WORKSPACE", "WVS_SESSION", "WVS_LIVE")
"""What `wvsctl agent run` tells its command, beside `WVS_URL`; the command may run any program of WVS."""

# The programs of WVS and its tests set these for their children.
_INTERNAL: Final = re.compile(r"WVS_(AGENT|TEST)_.*")

HOST_PATTERN: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?")
"""A host as a Host header names it, in lower case."""
PREFIX_PATTERN: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
"""A path that needs no quoting, without a slash at its end; empty for none."""


class InvalidSetting(ValueError):
    """A variable has a value that is not allowed. The message names the variable, the value and the allowed values."""


_MAX_ID: Final = 2**32 - 2  # the next number means "no change" to chown(2)


class LiveOwner(msgspec.Struct, frozen=True):
    """The user and the group that own a new live tree."""

    uid: int
    gid: int


Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]
SecondsOrNone = Annotated[float, Meta(ge=0, le=86400)]
Count = Annotated[int, Meta(ge=1, le=1024)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one process; `load_settings` reads them."""

    database_url: Annotated[
        str | None,
        Meta(description="URL of the database, postgresql://…; unset: that of the `wvs up` running on WVS_DATA_DIR"),
    ] = None
    data_dir: Annotated[
        Path, Meta(description="directory of the embedded database, and of the volume unless WVS_VOLUME is set")
    ] = Path(".wvs")
    volume: Annotated[
        Path | None,
        Meta(description="directory of the volume, the same for the API and all executors; unset: WVS_DATA_DIR/volume"),
    ] = None
    host: Annotated[str, Meta(description="address the API listens on")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="port the API listens on; 0 picks a free port")] = 8787
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(description="host names that the API accepts in a request's Host header, separated by commas"),
    ] = ("127.0.0.1", "localhost", "[::1]")
    public_url: Annotated[
        str | None,
        Meta(
            description="URL of the API for clients behind a proxy that serves it under a path and removes that path; "
            "links in answers begin with it"
        ),
    ] = None
    keep_alive_s: Annotated[
        int,
        Meta(
            ge=1,
            le=3600,
            description="seconds after which the API closes an idle connection; more than a proxy in front of it does",
        ),
    ] = 75
    max_wait_s: Annotated[
        int,
        Meta(
            ge=1,
            le=3600,
            description="longest time in seconds that the API holds an answer back (Prefer: wait and the wait of "
            "agents); choose less than the time-out of a proxy in front of it, which is often 60",
        ),
    ] = 50
    live_owner: Annotated[
        LiveOwner | None,
        Meta(description="USER[:GROUP] (names or numbers) that owns a new live tree; unset: the service's user"),
    ] = None
    live_mode: Annotated[int, Meta(ge=0, le=0o7777, description="permissions of a new live tree, in octal")] = 0o755
    executor_slots: Annotated[Count, Meta(description="number of tasks that one executor runs at the same time")] = 4
    executor_metrics_port: Annotated[
        Port, Meta(description="port of the executor's /metrics endpoint; 0 turns it off")
    ] = 8788
    lease_s: Annotated[
        Seconds, Meta(description="seconds without a renewal after which another executor takes over a task")
    ] = 30.0
    lease_renew_s: Annotated[Seconds, Meta(description="seconds between two renewals of a task's lease")] = 10.0
    poll_s: Annotated[Seconds, Meta(description="longest time in seconds between two polls of the queue")] = 1.0
    freeze_budget_s: Annotated[Seconds, Meta(description="seconds in which every session must freeze and flush")] = 10.0
    bystanders: Annotated[
        Literal["note", "refuse"],
        Meta(
            description="what processes outside every session do that hold the live tree: note names them in the "
            "certificate, refuse fails the task (QUIESCE_REFUSED)"
        ),
    ] = "note"
    drain_grace_s: Annotated[
        Seconds, Meta(description="seconds that running tasks and requests get to finish at shutdown")
    ] = 10.0
    clone_workers: Annotated[Count, Meta(description="number of threads that clone the files of one tree")] = 2
    unreadable: Annotated[
        Literal["fail", "skip"],
        Meta(
            description="what an executor without root's rights does with entries of a live tree that it may not read: "
            "fail the task, or leave them out of the clone and name them in its notes (engines copy and reflink)"
        ),
    ] = "fail"
    pool_size: Annotated[
        Count, Meta(description="largest number of database connections in the pool of one process")
    ] = 10
    database_wait_s: Annotated[
        SecondsOrNone,
        Meta(description="seconds that a starting program waits for a database that is away; 0 does not wait"),
    ] = 300.0
    event_streams: Annotated[
        Count, Meta(description="largest number of live event streams that one API process serves")
    ] = 500
    event_stream_heartbeat_s: Annotated[
        Seconds, Meta(description="seconds between two heartbeats on an idle event stream")
    ] = 15.0
    event_stream_stall_s: Annotated[
        Seconds, Meta(description="seconds after which the API disconnects a stream client that reads nothing")
    ] = 30.0
    log_format: Annotated[
        Literal["auto", "json", "console"],
        Meta(description="format of log lines; auto: console on a terminal, JSON elsewhere"),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="lowest level that is logged")
    ] = "info"
    clone_journal: Annotated[
        Path | None, Meta(description="file that records the start and the end of each clone; unset: no file")
    ] = None
    failpoints: Annotated[str, Meta(description="faults to inject, for tests only; empty: no faults")] = ""

    @property
    def public_prefix(self) -> str:
        """The path of `public_url` without a slash at its end; empty without a path."""
        return urlsplit(self.public_url or "").path.rstrip("/")

    @property
    def volume_path(self) -> Path:
        """The volume's directory as an absolute path: `volume`, or `volume` below `data_dir` where that is unset."""
        return (self.volume or self.data_dir / "volume").absolute()

    def __post_init__(self) -> None:
        if self.lease_renew_s * 2 > self.lease_s:
            raise InvalidSetting(
                f"WVS_LEASE_RENEW_S={self.lease_renew_s:g} is not allowed: it must be at most half of "
                f"WVS_LEASE_S={self.lease_s:g}, so that an executor keeps its lease when one renewal fails"
            )


class SettingDoc(msgspec.Struct, frozen=True):
    """One line of the help: a variable, its allowed values, its default as a user would write it, and its meaning."""

    variable: str
    allowed: str
    default: str
    description: str


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Reads the settings from `environ` (default: the process's); raises `InvalidSetting` for the first bad value."""
    source = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        text = source.get(_variable(field), "").strip()
        if text:
            values[field.name] = _parse(field, text)
    return Settings(**values)


def describe_settings() -> Iterator[SettingDoc]:
    """Yields every setting in the order of `Settings`, for `--help` and the documentation."""
    for field in msgspec.structs.fields(Settings):
        yield SettingDoc(
            variable=_variable(field),
            allowed=_allowed(field),
            default=_default_text(field),
            description=_meta(field, "description"),
        )


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[tuple[str, str | None]]:
    """Variables `WVS_*` that no WVS program reads, each with the most similar known name: probably typing errors."""
    source = os.environ if environ is None else environ
    settings = [_variable(field) for field in msgspec.structs.fields(Settings)]
    known = [*settings, *CONSOLE_VARIABLES, *AGENT_VARIABLES]
    unknown = sorted(
        name for name in source if name.startswith(PREFIX) and name not in known and not _INTERNAL.fullmatch(name)
    )
    return [(name, next(iter(difflib.get_close_matches(name, known, n=1)), None)) for name in unknown]


def _variable(field: msgspec.structs.FieldInfo) -> str:
    return PREFIX + field.name.upper()


def _metas(field: msgspec.structs.FieldInfo) -> list[Meta]:
    return [item for item in get_args(field.type)[1:] if isinstance(item, Meta)]


def _meta(field: msgspec.structs.FieldInfo, name: str) -> Any:
    """The attribute `name` of the field's `Meta` annotation; None if it has none."""
    values = [getattr(meta, name) for meta in _metas(field)]
    return next((value for value in values if value is not None and value is not UNSET), None)


def _parse(field: msgspec.structs.FieldInfo, text: str) -> Any:
    try:
        match field.name:
            case "live_mode":
                return msgspec.convert(int(text, 8), field.type)
            case "live_owner":
                return _owner(text)
            case "allowed_hosts":
                return _hosts(text)
            case "host":
                return _listening_host(text)
            case "database_url":
                return _database_url(text)
            case "public_url":
                return _public_url(text)
            case "clone_journal":
                return _file(text)
            case "data_dir" | "volume":
                return Path(text).expanduser().absolute()
            case _:
                return msgspec.convert(text, field.type, strict=False)
    except (ValueError, KeyError, RuntimeError) as error:  # RuntimeError: ~USER of an unknown user
        shown = "(hidden)" if field.name == "database_url" else repr(text)
        raise InvalidSetting(f"{_variable(field)}={shown} is not allowed: it must be {_allowed(field)}") from error


def _database_url(text: str) -> str:
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("scheme")
    return text


def _hosts(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().lower() for name in text.split(","))
    if not all(map(HOST_PATTERN.fullmatch, names)):
        raise ValueError("host")
    return names


def _public_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("origin")
    if parts.query or parts.fragment or not PREFIX_PATTERN.fullmatch(parts.path.rstrip("/")):
        raise ValueError("path")
    return text


def _listening_host(text: str) -> str:
    text.encode("idna")  # raises UnicodeError, a ValueError, where getaddrinfo would
    return text


def _file(text: str) -> Path:
    path = Path(text).expanduser().absolute()
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError("file")
    return path


def _owner(text: str) -> LiveOwner:
    user, _, group = text.partition(":")
    entry = pwd.getpwuid(int(user)) if user.isdecimal() and not group else None
    if user.isdecimal():
        uid, gid = int(user), entry.pw_gid if entry else -1
    else:
        uid, gid = pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid
    if group:
        gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    if max(uid, gid) > _MAX_ID:
        raise ValueError("id")
    return LiveOwner(uid=uid, gid=gid)


def _allowed(field: msgspec.structs.FieldInfo) -> str:
    match field.name:
        case "live_mode":
            return "an octal mode from 0 to 7777"
        case "live_owner":
            return "USER or USER:GROUP, names or numbers that exist on this host"
        case "allowed_hosts":
            return (
                "host names or addresses separated by commas, such as wvs.example or 10.1.2.3:8787; there is no "
                "wildcard and no network. Probes (/livez, /readyz, /metrics) are answered whatever their Host is"
            )
        case "host":
            return "an address or a host name"
        case "public_url":
            return "a URL http(s)://HOST[:PORT][/PATH], such as https://example.com/wvs"
        case "database_url":
            return "a URL postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        case "data_dir" | "volume":
            return "a directory"
        case "clone_journal":
            return "a file in a directory that exists"
        case _:
            return _allowed_by_type(field)


def _allowed_by_type(field: msgspec.structs.FieldInfo) -> str:
    kind = get_args(field.type)[0]
    low, above, high = _meta(field, "ge"), _meta(field, "gt"), _meta(field, "le")
    if kind is int:
        return f"a whole number from {low} to {high}"
    if kind is float:
        least = f"greater than {above}" if low is None else f"of at least {low}"
        return f"a number of seconds {least} and at most {high}"
    return " or ".join(str(value) for value in get_args(kind)) or "text"


def _default_text(field: msgspec.structs.FieldInfo) -> str:
    value: object = field.default
    if field.name == "live_mode":
        return f"{field.default:04o}"
    if field.name == "allowed_hosts":
        return ",".join(field.default)
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)
