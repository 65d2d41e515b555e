"""Finds and stops a server that outlived the process that started it (SIGKILL, power cut), or removes its pid file."""

import os
import signal
import time
from pathlib import Path
from typing import Final

from wvs.postgres.errors import EmbeddedPostgresFailed

_READY: Final = "ready"
_STATUS_LINE: Final = 7  # storage of PostgreSQL's pidfile.h: LOCK_FILE_LINE_PM_STATUS is line 8

_TITLE_TIMEOUT_S: Final = 2.0


def _lines_of(pgdata: Path) -> list[str]:
    try:
        return (pgdata / "postmaster.pid").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def postmaster_pid(pgdata: Path) -> int | None:
    """The process id in `postmaster.pid`, whether or not that process still runs; None without such a file."""
    lines = _lines_of(pgdata)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def is_ready(pgdata: Path, pid: int) -> bool:
    """Whether the postmaster `pid` has reported that it accepts connections; `pg_ctl -w` waits for the same line."""
    lines = _lines_of(pgdata)
    return postmaster_pid(pgdata) == pid and len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == _READY


def _program_of(pid: int) -> str | None:
    """The name of the program that runs as `pid`; None if no such process exists or if it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return None if rest.split()[0] in {"Z", "X"} else name


def is_alive(pid: int) -> bool:
    """Whether `pid` runs; a zombie does not run."""
    return _program_of(pid) is not None


def _serves(pid: int, pgdata: Path) -> bool:
    """Whether postmaster `pid` serves `pgdata`, judged by its command line or its working directory.

    `/proc/PID/cwd` of another user's process needs CAP_SYS_PTRACE, which containers withhold even from root.
    """
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if os.fsencode(pgdata) in arguments:
            return True
        return Path(f"/proc/{pid}/cwd").samefile(pgdata)
    except OSError:
        return False


def stop_process(pid: int, timeout_s: float) -> bool:
    """Fast shutdown (SIGINT), then immediate (SIGQUIT: the next start recovers from the WAL); True if it ended."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not is_alive(pid):
                return True
            time.sleep(0.02)
    return False


def processes_on(pgdata: Path) -> list[int]:
    """The server processes that work on `pgdata`, the postmaster among them: each has it as its working directory.

    Processes of another user are seen only with CAP_SYS_PTRACE, see `_serves`.
    """
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").samefile(pgdata) and _program_of(int(entry.name)) == "postgres":
                found.append(int(entry.name))
        except OSError:
            pass  # it ended meanwhile, or is not ours to look into
    return sorted(found)


def _is_backend(pid: int) -> bool:
    """Whether a server process is a child of a postmaster, by the title that it gives itself."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"postgres: ")
    except OSError:
        return False


def _refuse_live_postmaster(pgdata: Path) -> None:
    """A backend that was just forked looks like a postmaster until it has set its title, therefore the wait."""
    deadline = time.monotonic() + _TITLE_TIMEOUT_S
    while servers := [pid for pid in processes_on(pgdata) if not _is_backend(pid)]:
        if time.monotonic() > deadline:
            raise EmbeddedPostgresFailed(
                f"a database server (process {servers[0]}) runs on {pgdata}, but its postmaster.pid names another "
                f"process; stop it first: kill -INT {servers[0]}"
            )
        time.sleep(0.02)


def end_survivors(pgdata: Path, timeout_s: float) -> list[int]:
    """Kills the backends of a postmaster that was killed; returns their process ids.

    Call it only when no postmaster runs on `pgdata`. A backend that waits sees the death of its postmaster and ends by
    itself. One that computes or is stopped (SIGSTOP) lives on, and PostgreSQL refuses to start beside it ("pre-existing
    shared memory block is still in use"). SIGKILL loses nothing committed: the next start recovers from the WAL.
    Raises `EmbeddedPostgresFailed` if one does not end, or if a postmaster does run there after all: its
    `postmaster.pid` may name a process of another PID namespace.
    """
    _refuse_live_postmaster(pgdata)
    ended: set[int] = set()
    deadline = time.monotonic() + timeout_s
    while alive := [pid for pid in processes_on(pgdata) if _is_backend(pid)]:
        if time.monotonic() > deadline:
            raise EmbeddedPostgresFailed(
                f"processes of a killed server on {pgdata} do not end: {alive}; end them, or restart the machine"
            )
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended meanwhile
        ended.update(alive)
        time.sleep(0.02)
    return sorted(ended)


def clear_leftover(pgdata: Path, timeout_s: float) -> int | None:
    """Stops an old postmaster on `pgdata`, so that a new one can start; the caller holds the data directory's lock.

    Returns the id of the process that it stopped, or None. The `postmaster.pid` of a dead postmaster stays: PostgreSQL
    reads the shared memory key in it to see whether backends of that postmaster still run. This function removes the
    file only if another program now has its process id (a restarted container hands out the same low ids), because
    PostgreSQL would then refuse to start. This function also kills the backends of a killed postmaster that live on.
    """
    stopped = _clear_postmaster(pgdata, timeout_s)
    end_survivors(pgdata, timeout_s)
    return stopped


def _clear_postmaster(pgdata: Path, timeout_s: float) -> int | None:
    pid = postmaster_pid(pgdata)
    if pid is None or (program := _program_of(pid)) is None:
        return None
    if program != "postgres":
        (pgdata / "postmaster.pid").unlink()
        return None
    if not _serves(pid, pgdata):
        return None
    if not stop_process(pid, timeout_s):
        raise EmbeddedPostgresFailed(
            f"the old database server (process {pid} on {pgdata}) does not stop; stop it by hand: kill -QUIT {pid}"
        )
    return pid
