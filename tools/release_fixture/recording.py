"""Writes what a running service holds into the files of a fixture."""

import gzip
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

import wvs
from tools.release_fixture.layout import (
    CHECKSUMS,
    DATABASE,
    EXPECTED,
    EXPORT,
    VOLUME,
    Expected,
    Replay,
    checksums,
    compressed,
    describe,
    pack,
)
from tools.release_fixture.life import Life
from tools.release_fixture.service import Service
from wvs.postgres.embedded import embedded_binaries

LATER_THAN_15: Final = ("\\restrict ", "\\unrestrict ", "SET transaction_timeout ")
"""Lines of a dump that PostgreSQL 15 and drivers do not know; they change nothing of what is restored."""

_BYTES: Final = re.compile(rb"'\\x([0-9a-f]{100,})'")
"""A `bytea` of a dump that is longer than a hash."""

_CHANGING: Final = frozenset({"next_cursor", "lease_expired"})
"""Cursors are opaque and may change their form; the other follows the clock."""


def record(service: Service, life: Life, directory: Path) -> None:
    """Writes all files of the fixture; no executor may run."""
    expected = Expected(
        wvs.__version__,
        _column(service, "SELECT version FROM wvs.schema_migrations ORDER BY 1"),
        life.workspaces,
        int(_column(service, "SELECT count(*)::text FROM wvs.events")[0]),
        {path: _stable(service, service.get(path)) for path in _paths(service, life)},
        [msgspec.convert(_stable(service, asked), Replay) for asked in life.keyed],
        {str(root.relative_to(service.volume)): describe(root) for root in _roots(service.volume)},
    )
    export = directory / EXPORT.removesuffix(".gz")
    service.wvsctl("audit", "export", "--output", str(export))
    (directory / EXPORT).write_bytes(compressed(export.read_bytes()))
    export.unlink()
    (directory / DATABASE).write_bytes(compressed(_dump(service).encode()))
    (directory / VOLUME).write_bytes(pack(service.volume))
    (directory / EXPECTED).write_bytes(msgspec.json.format(msgspec.json.encode(expected), indent=1) + b"\n")
    (directory / CHECKSUMS).write_text(checksums(directory))


def missing_events(service: Service, topics: set[str]) -> set[str]:
    """Those of `topics` that the log does not have."""
    return topics - set(_column(service, "SELECT DISTINCT topic FROM wvs.events"))


def foreign_text(directory: Path, forbidden_words: list[str]) -> list[str]:
    """Those of `forbidden_words` that the fixture contains: what belongs to the machine that made it.

    The export is left out: it has the events of the dump, whose bytes are read here.
    """
    dump = gzip.decompress((directory / DATABASE).read_bytes())
    contents = [dump, gzip.decompress((directory / VOLUME).read_bytes()), (directory / EXPECTED).read_bytes()]
    contents += [bytes.fromhex(digits.decode()) for digits in _BYTES.findall(dump)]
    patterns = {word: re.compile(rb"(?<!\w)" + re.escape(word.encode()) + rb"(?!\w)") for word in forbidden_words}
    return [word for word, pattern in patterns.items() if any(pattern.search(content) for content in contents)]


def _paths(service: Service, life: Life) -> list[str]:
    paths = ["/v1/workspaces?limit=100", "/v1/tasks?limit=100", "/v1/tasks?state=failed", "/v1/audit/heads"]
    paths += ["/v1/events?type=workspace.created.v2&limit=100", "/v1/workspaces?state=disabled"]
    for workspace in life.workspaces.values():
        one = f"/v1/workspaces/{workspace}"
        paths += [one, f"{one}/current", f"{one}/snapshots?include_deleted=true", f"{one}/sessions?all=true"]
        paths += [f"{one}/history?at_version={version}" for version in _versions(service, workspace)]
        paths += [f"{one}/snapshots/{each['id']}" for each in service.get(f"{one}/snapshots")["items"]]
    for name in ("archive", "crew", "veteran"):
        one = f"/v1/workspaces/{life.workspaces[name]}"
        paths += [f"{one}/events?limit=100", f"{one}/events/1", f"/v1/tasks?workspace={life.workspaces[name]}"]
    return paths


def _versions(service: Service, workspace: str) -> list[int]:
    """The first version, the last one, and one in the middle."""
    last = service.get(f"/v1/workspaces/{workspace}/history", at_version=1)["latest_version"]
    return sorted({1, (last + 1) // 2, last})


def _roots(volume: Path) -> list[Path]:
    return sorted(volume.glob("ws_*/trees/*/root"))


def _stable(service: Service, answer: Any) -> Any:
    if isinstance(answer, dict):
        return {name: _stable(service, value) for name, value in answer.items() if name not in _CHANGING}
    if isinstance(answer, list):
        return [_stable(service, value) for value in answer]
    return answer.replace(str(service.volume), "$VOLUME") if isinstance(answer, str) else answer


def _column(service: Service, query: str) -> list[str]:
    with psycopg.connect(service.database_url) as connection:
        return [row[0] for row in connection.execute(query.encode()).fetchall()]


def _dump(service: Service) -> str:
    program = str(embedded_binaries() / "pg_dump")
    options = ("--no-owner", "--no-privileges", "--inserts", "--schema=wvs")
    text = subprocess.run([program, *options, service.database_url], check=True, capture_output=True, text=True).stdout
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(LATER_THAN_15))
