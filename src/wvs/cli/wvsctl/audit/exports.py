"""Exports: a file of JSON lines that proves itself without a database, and whose heads can be kept elsewhere.

The first line says what it is, then comes a line per event and one per head, and the last line has the number of each
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
LEAST_KEY_BYTES: Final = 16
_LONGEST_LINE: Final = 64 << 20


class Beginning(Struct, frozen=True):
    """The first line; `workspace` is null where the export is of all."""

    wvs_audit: int
    exported_at: datetime
    workspace: str | None
    position: str


class Ending(Struct, frozen=True):
    """The last line: counts, the digest of all bytes before it, and its HMAC if a key was given."""

    events: int
    heads: int
    sha256: str
    hmac_sha256: str | None = None


class _Line(Struct, frozen=True, omit_defaults=True):
    event: StoredEvent | None = None
    head: Head | None = None
    end: Ending | None = None


class Summary(Struct, frozen=True):
    """What a file was found to be."""

    beginning: Beginning
    ending: Ending
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
        """The first line."""
        self._write(Beginning(FORMAT, datetime.now(UTC), workspace, position))

    def event(self, event: StoredEvent) -> None:
        """A line for an event."""
        self.events += 1
        self._write(_Line(event=event))

    def finish(self, heads: list[Head]) -> Ending:
        """The heads and the last line."""
        for head in heads:
            self.heads += 1
            self._write(_Line(head=head))
        digest = self._digest.digest()
        ending = Ending(self.events, self.heads, digest.hex(), signature(self._key, digest))
        self._write(_Line(end=ending))
        self._file.flush()
        return ending

    def _write(self, line: Struct) -> None:
        data = msgspec.json.encode(line) + b"\n"
        self._digest.update(data)
        self._file.write(data)


class ExportReader:
    """Reads and checks one export; `faults` goes through the whole file once, then `summary` and `hashes` are there."""

    def __init__(self, path: Path, key: bytes | None) -> None:
        self._path = path
        self._key = key
        self.checker = ChainChecker()
        self.hashes: dict[str, dict[int, str]] = {}
        self.summary: Summary | None = None
        self._heads: list[Head] = []

    def faults(self) -> Iterator[Fault]:
        """What is wrong with the file; raises `ConsoleFailure` if it cannot be read or is no export."""
        try:
            with self._path.open("rb") as file:
                yield from self._faults(file)
        except OSError as error:
            raise ConsoleFailure(f"cannot read {self._path}: {error.strerror}") from error

    def _faults(self, file: BinaryIO) -> Iterator[Fault]:
        digest = sha256()
        first = file.readline(_LONGEST_LINE)
        beginning = self._beginning(first)
        digest.update(first)
        ending: Ending | None = None
        for number, data in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 2):
            if ending is not None:
                yield _of_file(f"line {number} stands behind the end")
                break
            line = _decoded(data)
            if line is None:
                yield _of_file(f"line {number} cannot be read: it was changed")
            elif line.end is not None:
                ending = line.end
                continue
            else:
                yield from self._take(line)
            digest.update(data)
        yield from self.checker.close(self._heads)
        yield from self._end_faults(ending, digest.digest())
        if ending is not None:
            self.summary = Summary(beginning, ending, signed=ending.hmac_sha256 is not None)

    def _beginning(self, line: bytes) -> Beginning:
        try:
            beginning = msgspec.json.decode(line, type=Beginning)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageFailure(f"{self._path} is no export of the audit", "make one: wvsctl audit export") from error
        if beginning.wvs_audit != FORMAT:
            raise UsageFailure(f"{self._path} is an export of format {beginning.wvs_audit}, this is for {FORMAT}")
        return beginning

    def _take(self, line: _Line) -> list[Fault]:
        if line.event is not None:
            self.hashes.setdefault(line.event.workspace_id, {})[line.event.version] = line.event.hash
            return self.checker.take(line.event)
        if line.head is not None:
            self._heads.append(line.head)
        return []

    def _end_faults(self, ending: Ending | None, digest: bytes) -> Iterator[Fault]:
        if ending is None:
            yield _of_file("the last line is missing: the file was cut off")
            return
        if (ending.events, ending.heads) != (self.checker.events, len(self._heads)):
            had = f"{ending.events} events and {ending.heads} heads"
            yield _of_file(
                f"it had {had}, and has {self.checker.events} and {len(self._heads)}: lines were cut or added"
            )
        if not hmac.compare_digest(ending.sha256, digest.hex()):
            yield _of_file("its digest is not that of its lines: the file was changed after it was written")
        if self._key is None:
            return
        if ending.hmac_sha256 is None:
            yield _of_file("it is not signed, and a key was given to check it")
        elif not hmac.compare_digest(ending.hmac_sha256, signature(self._key, digest) or ""):
            yield _of_file("its signature is not by this key over these lines")


def signature(key: bytes | None, digest: bytes) -> str | None:
    """The HMAC of a digest; None without a key."""
    return None if key is None else hmac.new(key, digest, sha256).hexdigest()


def read_key(path: Path | None) -> bytes | None:
    """The key in a file, without white space around it; raises `UsageFailure` for one that is too short."""
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise UsageFailure(f"cannot read the key {path}: {error.strerror}") from error
    if len(key) < LEAST_KEY_BYTES:
        raise UsageFailure(f"the key in {path} has {len(key)} bytes, at least {LEAST_KEY_BYTES} are needed")
    return key


def _decoded(data: bytes) -> _Line | None:
    try:
        line = _lines.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return None if line == _Line() else line


def _of_file(what: str) -> Fault:
    return Fault("", 0, f"the file: {what}")
