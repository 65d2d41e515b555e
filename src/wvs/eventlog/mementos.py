"""Mementos: a workspace's state as bytes, encoded and decoded a slice at a time.

Encoding 100,000 snapshots takes a third of a second; between the slices the event loop does other work. A state is
immutable, so that it cannot change meanwhile.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from hashlib import sha256
from itertools import islice
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct
from rpds import HashTrieMap

from wvs.domain.states import TaskState, WorkspaceState
from wvs.domain.workspace import Snapshot, Task, Workspace

MEMENTO_EVERY: Final = 500
"""Events between two mementos of a small workspace."""

_SLICE: Final = 1_000
_REPLAYED_SHARE: Final = 16

T = TypeVar("T")


class DamagedMementoError(Exception):
    """The bytes are not a complete memento of this release's `SCHEMA_VERSION`."""


class _Header(Struct, frozen=True):
    id: UUID
    version: int
    state: WorkspaceState
    current: UUID | None
    epoch: int
    live_tree: str | None
    fence: int
    init_task: UUID | None
    queued: tuple[UUID, ...]
    running: UUID | None
    movers: tuple[UUID, ...]


class _Memento(Struct, frozen=True, array_like=True):
    digest: bytes
    header: bytes
    snapshots: list[bytes]
    tasks: list[bytes]
    ended: list[bytes]


_encoder: Final = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder: Final = msgspec.msgpack.Decoder(_Memento)
_headers: Final = msgspec.msgpack.Decoder(_Header)
_snapshots: Final = msgspec.msgpack.Decoder(list[Snapshot])
_tasks: Final = msgspec.msgpack.Decoder(list[Task])
_ended: Final = msgspec.msgpack.Decoder(dict[UUID, TaskState])


def memento_due(before: int, after: int) -> bool:
    """Whether to store a memento after the events from version `before` to `after`.

    A memento grows with its workspace, therefore the distance to the next one grows too. The cost of mementos stays in
    proportion to the events, and a cold load replays at most `MEMENTO_EVERY` events or an eighth of all.
    """
    step = MEMENTO_EVERY
    while step * 2 * _REPLAYED_SHARE <= after:
        step *= 2
    return after // step > before // step


async def encode_memento(workspace: Workspace) -> bytes:
    """The bytes of a memento of this release's `SCHEMA_VERSION`."""
    header = _encoder.encode(_Header(**{name: getattr(workspace, name) for name in _Header.__struct_fields__}))
    snapshots = [rows async for rows in _slices(workspace.snapshots.values(), list)]
    tasks = [rows async for rows in _slices(workspace.tasks.values(), list)]
    ended = [rows async for rows in _slices(workspace.ended.items(), dict)]
    digest = await _digest(header, *snapshots, *tasks, *ended)
    return _encoder.encode(_Memento(digest, header, snapshots, tasks, ended))


async def decode_memento(state: bytes) -> Workspace:
    """The workspace; raises `DamagedMementoError`."""
    try:
        memento = _decoder.decode(state)
        if memento.digest != await _digest(memento.header, *memento.snapshots, *memento.tasks, *memento.ended):
            raise DamagedMementoError("The digest does not fit the bytes.")
        values = {name: getattr(_headers.decode(memento.header), name) for name in _Header.__struct_fields__}
        snapshots = await _map(((s.id, s) for s in _snapshots.decode(part)) for part in memento.snapshots)
        tasks = await _map(((t.id, t) for t in _tasks.decode(part)) for part in memento.tasks)
        ended = await _map(_ended.decode(part).items() for part in memento.ended)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DamagedMementoError(str(error)) from error
    return Workspace(**values, snapshots=snapshots, tasks=tasks, ended=ended)


async def _slices(rows: Iterable[Any], gather: type[list[Any]] | type[dict[Any, Any]]) -> AsyncGenerator[bytes, None]:
    left = iter(rows)
    while batch := gather(islice(left, _SLICE)):
        yield _encoder.encode(batch)
        await asyncio.sleep(0)


async def _digest(*parts: bytes) -> bytes:
    digest = sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
        await asyncio.sleep(0)
    return digest.digest()


async def _map(slices: Iterable[Iterable[tuple[UUID, T]]]) -> "HashTrieMap[UUID, T]":
    growing: HashTrieMap[UUID, T] = HashTrieMap()
    for entries in slices:
        growing = growing.update(entries)
        await asyncio.sleep(0)
    return growing
