"""`wvs volume init`, and opening a volume that exists."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import msgspec

from wvs.domain.errors import ErrorCode
from wvs.engines.base import DEFAULT_WORKERS, EngineName, Journal, TreeDir
from wvs.engines.choice import ENGINES, Choice, choose, make_engine, require_basics
from wvs.engines.errors import EngineError, from_os_error
from wvs.engines.kernel import OPEN_DIRECTORY, open_beneath
from wvs.engines.mounts import mount_of
from wvs.engines.paths import SERVICE_DIRECTORY, service_path
from wvs.engines.volume.identity import LAYOUT_VERSION, VolumeIdentity, read_identity, write_identity
from wvs.engines.volume.volume import Volume

V = TypeVar("V", bound=Volume)


class Initialized(msgspec.Struct, frozen=True):
    """The result of `init_volume`. `choice` is None if the volume existed already."""

    identity: VolumeIdentity
    choice: Choice | None


def init_volume(path: str, new_id: UUID, engine: EngineName | None = None, system_id: str | None = None) -> Initialized:
    """Makes the empty directory `path` a volume, with `engine` or else the best engine that works there.

    On an existing volume it changes nothing. Raises `EngineError` if the directory is not empty or no directory, the
    volume has another engine, the engine does not work on the filesystem, or the medium fails. A refusal leaves no
    directory that it made.
    """
    path = os.path.realpath(path)
    new = [each for each in (path, *map(str, Path(path).parents)) if not os.path.lexists(each)]
    try:
        os.makedirs(path, exist_ok=True)
        with _opened(path) as volume:
            existing = read_identity(volume)
            if existing is not None:
                return Initialized(_require_same_engine(path, existing, engine), None)
            _require_empty(path, volume)
            return _make(path, volume, new_id, engine, system_id)
    except EngineError:
        for each in (service_path(path), *new):
            with suppress(OSError):  # it has content, or the medium fails
                os.rmdir(each)
        raise
    except OSError as error:
        raise from_os_error(error, ErrorCode.VOLUME_UNAVAILABLE, f"initializing the volume {path}") from error


def _make(path: str, volume: int, new_id: UUID, engine: EngineName | None, system_id: str | None) -> Initialized:
    filesystem = mount_of(volume).filesystem
    # It exists if an earlier init was interrupted before it wrote the identity file.
    with suppress(FileExistsError):
        os.mkdir(SERVICE_DIRECTORY, 0o700, dir_fd=volume)
    with _service(path, volume) as directory:
        choice = choose(directory, filesystem, engine)
    identity = VolumeIdentity(new_id, LAYOUT_VERSION, choice.engine, filesystem, system_id)
    write_identity(volume, identity)
    os.fsync(volume)
    return Initialized(identity, choice)


def _require_same_engine(path: str, identity: VolumeIdentity, engine: EngineName | None) -> VolumeIdentity:
    if engine not in (None, identity.engine):
        raise EngineError(
            ErrorCode.VOLUME_UNAVAILABLE,
            f"{path} already is a volume, with the engine {identity.engine}, not {engine}",
            "the engine of a volume is chosen once; make another volume",
            retryable=False,
        )
    return identity


def _require_empty(path: str, volume: int) -> None:
    not_content = {SERVICE_DIRECTORY}.union(*(engine.root_entries for engine in ENGINES.values()))
    content = sorted(set(os.listdir(volume)) - not_content)
    if content:
        raise EngineError(
            ErrorCode.VOLUME_UNAVAILABLE,
            f"{path} is not empty (it has {content[0]!r}); WVS owns the whole volume",
            "choose an empty directory",
            retryable=False,
        )


def open_volume(
    path: str, workers: int = DEFAULT_WORKERS, journal: Journal | None = None, *, skip_unreadable: bool = False
) -> Volume:
    """The volume at `path`, after another probe of its engine.

    Raises `EngineError` with VOLUME_UNAVAILABLE if there is no volume, the filesystem is of another kind than the one
    that the volume was made on, or the engine does not work on it any more. WVS falls back to no other engine.
    """
    return open_with(Volume, path, workers, journal, skip_unreadable=skip_unreadable)


def open_with(kind: type[V], path: str, workers: int, journal: Journal | None, *, skip_unreadable: bool = False) -> V:
    """As `open_volume`; `kind` says which layouts can be opened."""
    path = os.path.realpath(path)
    try:
        with _opened(path) as volume:
            identity = kind.read_identity(volume)
            if identity is None:
                raise EngineError(
                    ErrorCode.VOLUME_UNAVAILABLE,
                    f"{path} holds no volume",
                    f"run `wvs volume init {path}`, or mount it",
                )
            engine = make_engine(identity.engine, workers, journal, skip_unreadable=skip_unreadable)
            filesystem = mount_of(volume).filesystem
            if filesystem != identity.filesystem:
                raise _unfit(path, identity, f"was made on {identity.filesystem} and is now on {filesystem}")
            with _service(path, volume) as directory:
                require_basics(directory, filesystem)
                probe = engine.probe(directory)
            if not probe.fits:
                raise _unfit(path, identity, probe.why)
    except OSError as error:
        raise from_os_error(error, ErrorCode.VOLUME_UNAVAILABLE, f"opening the volume {path}") from error
    return kind(path, identity, engine)


def _unfit(path: str, identity: VolumeIdentity, why: str) -> EngineError:
    return EngineError(
        ErrorCode.VOLUME_UNAVAILABLE,
        f"the volume {path} needs the engine {identity.engine}, which cannot work: {why}",
        "mount the filesystem that the volume was made on; WVS does not change a volume's engine",
        retryable=False,
    )


@contextmanager
def _opened(path: str) -> Generator[int]:
    descriptor = os.open(path, OPEN_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _service(path: str, volume: int) -> Generator[TreeDir]:
    descriptor = open_beneath(volume, SERVICE_DIRECTORY, OPEN_DIRECTORY)
    try:
        yield TreeDir(descriptor, service_path(path))
    finally:
        os.close(descriptor)
