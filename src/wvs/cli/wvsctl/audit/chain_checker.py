"""Hash chains, recomputed: each event in its place, each chain to its head, and against heads kept elsewhere."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from wvs.cli.wvsctl.audit.documents import Head, StoredEvent
from wvs.domain.ids import SNAPSHOT, TASK, WORKSPACE, InvalidId, format_id, parse_id
from wvs.eventlog.chain import GENESIS, next_hash

Known = Mapping[str, Mapping[int, str]]
"""Hashes kept elsewhere: by workspace and version."""

_NOWHERE: Final = -1


class Fault(Struct, frozen=True):
    """One finding: which event of which workspace (and at which position, where that is known), and what is wrong."""

    workspace_id: str
    version: int
    what: str
    position: str | None = None


class _Link(Struct):
    """How far a chain was followed: the last event's version, hash and position, and the hash before it."""

    version: int = 0
    hash: bytes = GENESIS
    before: bytes = GENESIS
    position: int = _NOWHERE


class ChainChecker:
    """Takes events, each workspace's in the order of versions, and then the heads; tells every fault it finds.

    After a fault it goes on from what is stored, so that each damaged event is named and not all of its successors.
    """

    def __init__(self, known: Known | None = None) -> None:
        self._known = known or {}
        self._links: dict[str, _Link] = {}
        self.events = 0

    @property
    def workspaces(self) -> int:
        """How many chains were followed."""
        return len(self._links)

    def last_version(self, workspace_id: str) -> int:
        """How far a chain was followed."""
        link = self._links.get(workspace_id)
        return 0 if link is None else link.version

    def take(self, event: StoredEvent) -> list[Fault]:
        """The faults of the next event."""
        self.events += 1
        link = self._links.setdefault(event.workspace_id, _Link())
        found = [*_order_faults(event, link), *_hash_faults(event, link), *_column_faults(event)]
        expected = self._known.get(event.workspace_id, {}).get(event.version)
        if expected is not None and expected != event.hash:
            found.append(f"was another one when its hash was kept elsewhere ({expected}): the chain was rewritten")
        link.version, link.before, link.hash = event.version, link.hash, _hash_of(event)
        link.position = max(link.position, _number(event.position))
        return [Fault(event.workspace_id, event.version, f"{event.name} {what}", event.position) for what in found]

    def close(self, heads: Iterable[Head]) -> list[Fault]:
        """The faults that show at the ends: events missing behind the last, and chains without a head."""
        found: list[Fault] = []
        listed: set[str] = set()
        for head in heads:
            listed.add(head.workspace_id)
            found += self._head_faults(head)
        for workspace_id, link in self._links.items():
            if workspace_id not in listed:
                found.append(Fault(workspace_id, link.version, f"the chain of {workspace_id} has no head"))
        return found

    def missing(self, workspaces: Iterable[str]) -> list[Fault]:
        """What was kept elsewhere of these workspaces and stands behind the last event that was seen."""
        found: list[Fault] = []
        for workspace_id in workspaces:
            kept, last = max(self._known[workspace_id], default=0), self.last_version(workspace_id)
            if kept > last:
                text = (
                    f"kept elsewhere and missing here: {_events(last + 1, kept)} of {workspace_id}; the chain was cut"
                )
                found.append(Fault(workspace_id, last + 1, text))
        return found

    def _head_faults(self, head: Head) -> list[Fault]:
        link = self._links.get(head.workspace_id, _Link())
        if head.version is None or head.hash is None:
            what = f"the chain of {head.workspace_id} has no head"
            return [Fault(head.workspace_id, link.version, what)]
        if head.version > link.version:
            what = f"missing at the end of the chain: {_events(link.version + 1, head.version)} of {head.workspace_id}"
            return [Fault(head.workspace_id, link.version + 1, what)]
        if head.version < link.version:
            what = f"behind the head of the chain: {_events(head.version + 1, link.version)} of {head.workspace_id}"
            return [Fault(head.workspace_id, head.version + 1, what)]
        if head.hash != link.hash.hex():
            what = f"event {head.version} of {head.workspace_id} does not have the hash that the chain's head has"
            return [Fault(head.workspace_id, head.version, what)]
        return []


def _order_faults(event: StoredEvent, link: _Link) -> list[str]:
    found: list[str] = []
    if event.version > link.version + 1:
        found.append(f"follows on event {link.version}; missing: {_events(link.version + 1, event.version - 1)}")
    elif event.version <= link.version:
        found.append(f"comes after event {link.version}: the order was changed")
    if _number(event.position) <= link.position:
        found.append("does not stand behind its predecessor in the log: the order was changed")
    return found


def _hash_faults(event: StoredEvent, link: _Link) -> list[str]:
    state = event.state_bytes()
    if state is None or len(_hash_of(event)) != len(GENESIS):
        return ["cannot be read: its bytes or its hash are damaged"]
    try:
        workspace = parse_id(WORKSPACE, event.workspace_id)
    except InvalidId as error:
        return [str(error)]
    if event.version != link.version + 1:
        return []  # what it was hashed behind is not here
    if next_hash(link.hash, workspace, event.version, event.type, state).hex() == event.hash:
        return []
    if (
        event.version > 1
        and next_hash(link.before, workspace, event.version - 1, event.type, state).hex() == event.hash
    ):
        return [f"was event {event.version - 1} when it was written: event {event.version - 1} was inserted"]
    return ["does not have the hash of what is stored: it was changed, or put in place of another"]


def _column_faults(event: StoredEvent) -> list[str]:
    """Columns that say something else than the bytes; bytes that are no JSON (compressed, sealed) say nothing here."""
    try:
        body = msgspec.json.decode(event.state_bytes() or b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    if not isinstance(body, dict):
        return []
    parts = cast("dict[str, Any]", body)
    data, metadata = parts.get("event"), parts.get("metadata")
    if not isinstance(data, dict) or not isinstance(metadata, dict):
        return []
    return [
        f"says {inside!r} in its bytes and {beside!r} in the column {name}: the column was changed"
        for name, inside, beside in _compared(event, cast("dict[str, Any]", data), cast("dict[str, Any]", metadata))
        if inside != beside
    ]


def _compared(
    event: StoredEvent, data: dict[str, Any], metadata: dict[str, Any]
) -> list[tuple[str, str | None, str | None]]:
    return [
        ("topic", data.get("type"), event.type),
        ("actor", metadata.get("actor"), event.actor),
        ("request_id", metadata.get("request_id"), event.request_id),
        ("occurred_at", _time(metadata.get("occurred_at")), event.occurred_at.isoformat()),
        ("task_id", _id(TASK, data.get("task_id")), event.task_id),
        ("snapshot_id", _id(SNAPSHOT, data.get("snapshot_id")), event.snapshot_id),
    ]


def _time(text: Any) -> str | None:
    try:
        return msgspec.convert(text, datetime).isoformat()
    except msgspec.ValidationError:
        return None


def _id(prefix: Any, text: Any) -> str | None:
    try:
        from uuid import UUID  # noqa: PLC0415

        return None if text is None else format_id(prefix, UUID(text))
    except (ValueError, AttributeError, TypeError):
        return str(text)


def _hash_of(event: StoredEvent) -> bytes:
    try:
        return bytes.fromhex(event.hash)
    except ValueError:
        return b""


def _number(position: str) -> int:
    _, _, number = position.partition(":")
    return int(number) if number.isdecimal() else _NOWHERE


def _events(first: int, last: int) -> str:
    return f"event {first}" if first == last else f"events {first} to {last}"
