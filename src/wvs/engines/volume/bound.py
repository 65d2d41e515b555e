"""A volume that is bound to its path, its identity and its log; `volume.Volume` adds what is in it."""

import os
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager

import msgspec

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Engine
from wvs.engines.errors import EngineError, from_os_error
from wvs.engines.kernel import OPEN_DIRECTORY
from wvs.engines.mounts import caches_names
from wvs.engines.paths import lock_path
from wvs.engines.volume.identity import (
    LogPosition,
    VolumeIdentity,
    identity_lock,
    read_identity,
    touch_lock,
    write_identity,
)
from wvs.engines.volume.layout import WorkspaceDir, open_workspace
from wvs.engines.volume.space import Space, read_space


class BoundVolume:
    """An open volume.

    It keeps no descriptor between calls, so that the volume can be unmounted and mounted again. Instead each call
    checks that the volume at the path is still this one.
    """

    def __init__(self, path: str, identity: VolumeIdentity, engine: Engine) -> None:
        self.path = path
        self.identity = identity
        self.engine = engine

    @staticmethod
    def read_identity(volume: int) -> VolumeIdentity | None:
        """The identity of the volume at the descriptor. Raises `EngineError` for a layout that cannot be used."""
        return read_identity(volume)

    def space(self) -> Space:
        """Room on the volume."""
        with self._open("measuring space") as volume:
            return read_space(volume)

    def require_working(self) -> None:
        """Raises `EngineError` with VOLUME_UNAVAILABLE if no operation on the volume can succeed now.

        It writes and syncs a byte: a mount whose storage is gone may still answer reads from its cache.
        """
        with self._open("checking", ErrorCode.VOLUME_UNAVAILABLE) as volume:
            touch_lock(volume)

    def bind(self, system_id: str) -> None:
        """Binds the volume to the Postgres cluster of its log. Raises `EngineError` if it belongs to another one."""
        with self._open("binding") as volume:
            if self._is_bound(volume, system_id):
                return
            with self._locked(volume):
                if not self._is_bound(volume, system_id):
                    write_identity(volume, msgspec.structs.replace(self._reread(volume), system_id=system_id))

    def rebind(self, system_id: str) -> None:
        """As `bind`, whichever cluster the volume belonged to before: a person decided it."""
        with self._open("binding") as volume, self._locked(volume):
            write_identity(volume, msgspec.structs.replace(self._reread(volume), system_id=system_id))

    @contextmanager
    def _locked(self, volume: int) -> Generator[None]:
        with identity_lock(volume) as held:
            if not held:
                raise EngineError(
                    ErrorCode.VOLUME_UNAVAILABLE,
                    f"another process holds the lock of the volume {self.path} and does not release it",
                    f"find the process (fuser -v {lock_path(self.path)}), end it, and start again",
                )
            yield

    def _is_bound(self, volume: int, system_id: str) -> bool:
        identity = self._reread(volume)
        if identity.system_id not in (None, system_id):
            raise EngineError(
                ErrorCode.VOLUME_UNAVAILABLE,
                f"the volume {self.path} belongs to the database cluster {identity.system_id}, not {system_id}",
                "set WVS_DATABASE_URL to the volume's own database; if that moved to a new cluster (pg_upgrade, a "
                "restored dump), stop the old cluster and all executors and run `wvs volume rebind`. "
                "Read: wvs runbook new-cluster",
                retryable=False,
            )
        return identity.system_id is not None

    def seen(self) -> LogPosition | None:
        """The latest log position recorded on the volume. If Postgres has not reached it, the database was restored."""
        with self._open("reading the position") as volume:
            return self._reread(volume).seen

    def seen_event(self) -> tuple[LogPosition, str | None] | None:
        """`seen` with the hash (hex) of the event there. If Postgres has another hash, it has another log."""
        with self._open("reading the position") as volume:
            identity = self._reread(volume)
            return None if identity.seen is None else (identity.seen, identity.seen_hash)

    def record_seen(self, position: LogPosition, event_hash: str | None = None) -> None:
        """Records a log position and the hash of its event. Durable. An older position changes nothing."""
        with self._open("recording the position") as volume, identity_lock(volume):
            identity = self._reread(volume)
            if identity.seen is None or identity.seen < position:
                write_identity(volume, msgspec.structs.replace(identity, seen=position, seen_hash=event_hash))

    def _reread(self, volume: int) -> VolumeIdentity:
        identity = self.read_identity(volume)
        if identity is None:
            raise _missing(self.path, self.identity, None)
        return identity

    @contextmanager
    def _open(self, doing: str, otherwise: ErrorCode = ErrorCode.CLONE_FAILED) -> Generator[int]:
        descriptor = -1
        try:
            descriptor = os.open(self.path, OPEN_DIRECTORY)
            identity = self.read_identity(descriptor)
            if identity is None or identity.id != self.identity.id:
                raise _missing(self.path, self.identity, identity)
            yield descriptor
        except FileNotFoundError as error:
            if descriptor < 0:
                raise _missing(self.path, self.identity, None) from error
            raise from_os_error(error, otherwise, f"{doing} on {self.path}") from error
        except OSError as error:
            raise from_os_error(error, otherwise, f"{doing} on {self.path}") from error
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    @contextmanager
    def _workspace(
        self, workspace: str, doing: str, otherwise: ErrorCode = ErrorCode.CLONE_FAILED
    ) -> Generator[WorkspaceDir]:
        with self._open(doing, otherwise) as volume, self._enter(volume, workspace) as here:
            yield here

    def _enter(self, volume: int, workspace: str) -> AbstractContextManager[WorkspaceDir]:
        # Of the filesystem, not of the engine: `copy` works on all.
        return open_workspace(volume, workspace, self.path, caches_names=caches_names(self.identity.filesystem))


def _missing(path: str, expected: VolumeIdentity, present: VolumeIdentity | None) -> EngineError:
    content = f"the volume {present.id}" if present else "no volume"
    return EngineError(
        ErrorCode.VOLUME_UNAVAILABLE, f"{path} holds {content}, expected {expected.id}", "mount the volume's filesystem"
    )
