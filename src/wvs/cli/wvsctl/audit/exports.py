"""Exports: files of JSON lines that can be verified without a database and kept outside the service.

The first line is a header; one line per event and one per head follow. The last line has the number of events and heads
and the SHA-256 of all bytes before it; with a key also the HMAC-SHA256 (RFC 2104) of that digest.
"""

import hmac
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct

from wvs.cli.wvsctl.api.failures import ConsoleFailure, UsageFailure
from wvs.cli.wvsctl.audit.chain_checker import ChainChecker, Fault
from wvs.cli.wvsctl.audit.documents import Head, StoredEvent

FORMAT: Final = 1
MIN_KEY_BYTES: Final = 16
_MAX_LINE_BYTES: Final = 64 << 20


class ExportHeader(Struct, frozen=True):
    """The first line; `workspace` is null if the export covers all workspaces."""

    wvs_audit: int
    exported_at: datetime
    workspace: str | None
    position: str


class ExportTrailer(Struct, frozen=True):
    """The last line: counts, the digest of all bytes before it, and the HMAC of the digest if a key was given."""

    events: int
    heads: int
    sha256: str
    hmac_sha256: str | None = None


class _Line(Struct, frozen=True, omit_defaults=True):
    event: StoredEvent | None = None
    head: Head | None = None
    end: ExportTrailer | None = None


class ExportSummary(Struct, frozen=True):
    """The header and the trailer of a file, and whether it is signed."""

    header: ExportHeader
    trailer: ExportTrailer
    signed: bool


_lines: Final = msgspec.json.Decoder(_Line)


class ExportWriter:
    """Writes one export, line by line."""

    def __init__(self, file: BinaryIO, key: bytes | None) -> None:
        self._file = file
        self._key = key
        self._digest = sha256()
        self.events = 0
        self.heads = 0

    def begin(self, workspace: str | None, position: str) -> None:
        """Writes the header."""
        self._write(ExportHeader(FORMAT, datetime.now(UTC), workspace, position))

    def event(self, event: StoredEvent) -> None:
        """Writes an event."""
        self.events += 1
        self._write(_Line(event=event))

    def finish(self, heads: list[Head]) -> ExportTrailer:
        """Writes the heads and the trailer, and returns the trailer."""
        for head in heads:
            self.heads += 1
            self._write(_Line(head=head))
        digest = self._digest.digest()
        trailer = ExportTrailer(self.events, self.heads, digest.hex(), signature(self._key, digest))
        self._write(_Line(end=trailer))
        self._file.flush()
        return trailer

    def _write(self, line: Struct) -> None:
        data = msgspec.json.encode(line) + b"\n"
        self._digest.update(data)
        self._file.write(data)


class ExportReader:
    """Reads and checks one export. `faults` reads the whole file once and then sets `summary` and `hashes`."""

    def __init__(self, path: Path, key: bytes | None) -> None:
        self._path = path
        self._key = key
        self.checker = ChainChecker()
        self.hashes: dict[str, dict[int, str]] = {}
        self.summary: ExportSummary | None = None
        self._heads: list[Head] = []

    def faults(self) -> Iterator[Fault]:
        """Yields the faults of the file; raises `ConsoleFailure` if the file is not readable or not an export."""
        try:
            with self._path.open("rb") as file:
                yield from self._faults(file)
        except OSError as error:
            raise ConsoleFailure(f"cannot read {self._path}: {error.strerror}") from error

    def _faults(self, file: BinaryIO) -> Iterator[Fault]:
        digest = sha256()
        first = file.readline(_MAX_LINE_BYTES)
        header = self._header(first)
        digest.update(first)
        trailer: ExportTrailer | None = None
        for number, data in enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES), b""), 2):
            if trailer is not None:
                yield _of_file(f"line {number} comes after the end")
                break
            line = _decoded(data)
            if line is None:
                yield _of_file(f"line {number} cannot be read: it was changed")
            elif line.end is not None:
                trailer = line.end
                continue
            else:
                yield from self._check_line(line)
            digest.update(data)
        yield from self.checker.check_heads(self._heads)
        yield from self._trailer_faults(trailer, digest.digest())
        if trailer is not None:
            self.summary = ExportSummary(header, trailer, signed=trailer.hmac_sha256 is not None)

    def _header(self, line: bytes) -> ExportHeader:
        try:
            header = msgspec.json.decode(line, type=ExportHeader)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageFailure(f"{self._path} is not an audit export", "to write one: wvsctl audit export") from error
        if header.wvs_audit != FORMAT:
            raise UsageFailure(
                f"{self._path} has the export format {header.wvs_audit}; this wvsctl reads format {FORMAT}"
            )
        return header

    def _check_line(self, line: _Line) -> list[Fault]:
        if line.event is not None:
            self.hashes.setdefault(line.event.workspace_id, {})[line.event.version] = line.event.hash
            return self.checker.check_event(line.event)
        if line.head is not None:
            self._heads.append(line.head)
        return []

    def _trailer_faults(self, trailer: ExportTrailer | None, digest: bytes) -> Iterator[Fault]:
        if trailer is None:
            yield _of_file("the last line is missing: the file was cut off")
            return
        if (trailer.events, trailer.heads) != (self.checker.events, len(self._heads)):
            had = f"{trailer.events} events and {trailer.heads} heads"
            yield _of_file(
                f"it had {had} and now has {self.checker.events} and {len(self._heads)}: lines were removed or added"
            )
        if not hmac.compare_digest(trailer.sha256, digest.hex()):
            yield _of_file("its digest does not match its lines: the file was changed after it was written")
        if self._key is None:
            return
        if trailer.hmac_sha256 is None:
            yield _of_file("it is not signed, so the given key cannot verify it")
        elif not hmac.compare_digest(trailer.hmac_sha256, signature(self._key, digest) or ""):
            yield _of_file("its signature does not match this key and these lines")


def signature(key: bytes | None, digest: bytes) -> str | None:
    """The HMAC of a digest; None without a key."""
    return None if key is None else hmac.new(key, digest, sha256).hexdigest()


def read_key(path: Path | None) -> bytes | None:
    """Reads a key from a file and strips white space around it; raises `UsageFailure` if the key is too short."""
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise UsageFailure(f"cannot read the key {path}: {error.strerror}") from error
    if len(key) < MIN_KEY_BYTES:
        raise UsageFailure(f"the key in {path} has {len(key)} bytes; it needs at least {MIN_KEY_BYTES}")
    return key


def _decoded(data: bytes) -> _Line | None:
    try:
        line = _lines.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return None if line == _Line() else line


def _of_file(what: str) -> Fault:
    return Fault("", 0, f"the file: {what}")
