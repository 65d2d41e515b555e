"""What a PostgreSQL server says and does, for a person who reads a failed test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.leftover import postmaster_pid, processes_on

LOG_TAIL = 4000
_LOST = ("timeout", "connection", "cannotconnect", "operationalerror", "too many clients")


def describe(data_dir: Path, exit_code: int | None = None) -> str:
    """The processes of the server on `data_dir`, each with its state, and the end of its log."""
    pgdata, log = data_dir / "postgres", data_dir / "postgres.log"
    lines = [f"server on {pgdata}: postmaster.pid names process {postmaster_pid(pgdata)}"]
    if exit_code is not None:
        lines.append(f"the postmaster ended with exit code {exit_code} (negative: killed by that signal)")
    lines += [_process(pid) for pid in processes_on(pgdata)] or ["no process works on it"]
    said = log.read_bytes()[-LOG_TAIL:].decode(errors="replace") if log.exists() else "(no log)"
    return "\n".join([*lines, f"the end of {log}:", said])


def describe_server(server: EmbeddedPostgres) -> str:
    """The same of a server that this process started."""
    process = server._process
    return describe(server.data_dir, process.poll() if process else None)


def servers_of(item: pytest.Item) -> Iterator[EmbeddedPostgres]:
    """The servers that are fixtures of a test, or the attribute `server` of one."""
    for value in getattr(item, "funcargs", {}).values():
        for candidate in (value, getattr(value, "server", None)):
            if isinstance(candidate, EmbeddedPostgres):
                yield candidate


def is_lost_server(failure: str) -> bool:
    """Whether a failure may be that of a server which does not answer."""
    return any(sign in failure.lower() for sign in _LOST)


def _process(pid: int) -> str:
    title, state, waits = "?", "?", "?"
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:100]
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        waits = Path(f"/proc/{pid}/wchan").read_text() or "-"
    except OSError:
        pass  # it ended meanwhile: what is known is told
    return f"process {pid}, state {state}, waits in {waits}: {title}"
