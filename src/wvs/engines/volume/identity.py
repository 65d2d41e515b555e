"""The identity file of a volume, `.wvs/volume.json`. Every write replaces it as a whole."""

import fcntl
import os
import secrets
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

import msgspec

from wvs.domain.errors import ErrorCode
from wvs.engines.base import EngineName
from wvs.engines.errors import EngineError
from wvs.engines.kernel import OPEN_DIRECTORY
from wvs.engines.paths import IDENTITY_FILE, LOCK_FILE, SERVICE_DIRECTORY

LAYOUT_VERSION: Final = 2
"""2: the live tree stays at one path, and each tree has a file with its name. 1: a link led to the live tree."""
_NEW_FILE: Final = f".{IDENTITY_FILE}.new."
_LOCK_WAIT_S: Final = 2.0
_POLL_S: Final = 0.02
_LEFT_BEHIND_S: Final = 600.0


class LogPosition(msgspec.Struct, frozen=True, order=True):
    """A position of the event log as the API gives it out: ordered by epoch, then by number."""

    epoch: int
    position: int


class VolumeIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What makes a directory a volume.

    `system_id` is Postgres' system identifier, None until the first service binds the volume to its database.
    `seen` is the latest position of the log that an executor recorded on the volume, `seen_hash` (hex) the hash of the
    event there.
    """

    id: UUID
    layout: int
    engine: EngineName
    filesystem: str
    system_id: str | None = None
    seen: LogPosition | None = None
    seen_hash: str | None = None


def read_identity(volume: int) -> VolumeIdentity | None:
    """The identity of the volume at the descriptor, or None without one. Raises `EngineError` if it is unusable."""
    identity = read_identity_of_any_layout(volume)
    if identity is not None and identity.layout != LAYOUT_VERSION:
        raise refuse_layout(identity.layout)
    return identity


def refuse_layout(layout: int) -> EngineError:
    """The error for a volume of a layout that this version of wvs does not use."""
    return EngineError(
        ErrorCode.VOLUME_UNAVAILABLE,
        f"the volume has layout {layout}, this version of wvs supports {LAYOUT_VERSION}",
        "stop all agents and executors and run wvs volume upgrade. Read: wvs runbook volume-upgrade"
        if layout < LAYOUT_VERSION
        else "use the version of wvs that made the volume",
        retryable=False,
    )


def read_identity_of_any_layout(volume: int) -> VolumeIdentity | None:
    """As `read_identity`, also of a volume whose layout this version of wvs does not use."""
    try:
        descriptor = os.open(f"{SERVICE_DIRECTORY}/{IDENTITY_FILE}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=volume)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        content = file.read()
    try:
        return msgspec.json.decode(content, type=VolumeIdentity)
    except msgspec.MsgspecError as error:
        raise EngineError(
            ErrorCode.VOLUME_UNAVAILABLE, f"{IDENTITY_FILE} of the volume cannot be read: {error}", retryable=False
        ) from error


def write_identity(volume: int, identity: VolumeIdentity) -> None:
    """Replaces the identity file, durably. Hold `identity_lock` around a read and the write that follows from it."""
    with _service_directory(volume) as directory:
        _remove_leftovers(directory)
        # A unique name: a writer that was stopped for an hour must not write into a file that another one has renamed.
        name = f"{_NEW_FILE}{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(identity)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.rename(name, IDENTITY_FILE, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=directory)
            raise
        os.fsync(directory)


def _remove_leftovers(directory: int) -> None:
    """Removes the files of writers that were killed before their rename."""
    for name in os.listdir(directory):
        if name.startswith(_NEW_FILE):
            with suppress(FileNotFoundError):
                if time.time() - os.stat(name, dir_fd=directory).st_mtime > _LEFT_BEHIND_S:
                    os.unlink(name, dir_fd=directory)


@contextmanager
def identity_lock(volume: int) -> Generator[bool]:
    """Locks the identity file for one writer. Yields False if another one holds the lock for longer than a write takes.

    Such a holder is stopped or hangs, for an unknown time, so no writer waits for it. On JuiceFS the lock would not
    fence it anyway: a stopped holder loses it. A write without the lock can at worst put back an older `seen`, until
    the next record: the file is replaced as a whole, and everything else in it is written once.
    """
    with _service_directory(volume) as directory:
        descriptor = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            yield _lock_in_time(descriptor)
        finally:
            os.close(descriptor)


def touch_lock(volume: int) -> None:
    """Writes a byte to the lock file, durably. The content of the file has no meaning."""
    with _service_directory(volume) as directory:
        descriptor = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            os.pwrite(descriptor, b"\n", 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock_in_time(descriptor: int) -> bool:
    until = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(_POLL_S)
        else:
            return True


@contextmanager
def _service_directory(volume: int) -> Generator[int]:
    directory = os.open(SERVICE_DIRECTORY, OPEN_DIRECTORY, dir_fd=volume)
    try:
        yield directory
    finally:
        os.close(directory)
