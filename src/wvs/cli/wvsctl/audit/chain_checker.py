"""Recomputes hash chains and checks each event, each chain up to its head, and hashes from an earlier export."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from wvs.cli.wvsctl.audit.documents import Head, StoredEvent
from wvs.domain.ids import SNAPSHOT, TASK, WORKSPACE, InvalidId, format_id, parse_id
from wvs.eventlog.chain import GENESIS, next_hash

KnownHashes = Mapping[str, Mapping[int, str]]
"""Hashes from an export, by workspace and version."""

_NO_POSITION: Final = -1


class Fault(Struct, frozen=True):
    """One finding: the event, its workspace, its position if known, and what is wrong."""

    workspace_id: str
    version: int
    what: str
    position: str | None = None


class _ChainState(Struct):
    """The end of a chain so far: the last event's version, hash and position, and the hash before it."""

    version: int = 0
    hash: bytes = GENESIS
    before: bytes = GENESIS
    position: int = _NO_POSITION


class ChainChecker:
    """Checks events, those of each workspace in the order of versions, and then the heads; returns every fault.

    After a fault it continues with the stored hash, so that it reports the damaged event but not all its successors.
    """

    def __init__(self, known: KnownHashes | None = None) -> None:
        self._known = known or {}
        self._chains: dict[str, _ChainState] = {}
        self.events = 0

    @property
    def workspaces(self) -> int:
        """The number of chains checked."""
        return len(self._chains)

    def last_version(self, workspace_id: str) -> int:
        """The version of the last event checked in a workspace's chain; 0 if no event was checked."""
        chain = self._chains.get(workspace_id)
        return 0 if chain is None else chain.version

    def check_event(self, event: StoredEvent) -> list[Fault]:
        """Checks the next event and returns its faults."""
        self.events += 1
        chain = self._chains.setdefault(event.workspace_id, _ChainState())
        texts = [*_order_faults(event, chain), *_hash_faults(event, chain), *_column_faults(event)]
        expected = self._known.get(event.workspace_id, {}).get(event.version)
        if expected is not None and expected != event.hash:
            texts.append(f"differs from the export, which has the hash {expected}: the chain was rewritten")
        chain.version, chain.before, chain.hash = event.version, chain.hash, _hash_of(event)
        chain.position = max(chain.position, _number(event.position))
        return [Fault(event.workspace_id, event.version, f"{event.name} {text}", event.position) for text in texts]

    def check_heads(self, heads: Iterable[Head]) -> list[Fault]:
        """Compares the chains with their heads and returns the faults: missing events, and chains without a head."""
        found: list[Fault] = []
        listed: set[str] = set()
        for head in heads:
            listed.add(head.workspace_id)
            found += self._head_faults(head)
        for workspace_id, chain in self._chains.items():
            if workspace_id not in listed:
                found.append(Fault(workspace_id, chain.version, f"the chain of {workspace_id} has no head"))
        return found

    def find_missing(self, workspaces: Iterable[str]) -> list[Fault]:
        """The faults for events of these workspaces that the export has after the last event checked."""
        found: list[Fault] = []
        for workspace_id in workspaces:
            kept, last = max(self._known[workspace_id], default=0), self.last_version(workspace_id)
            if kept > last:
                text = f"in the export and missing here: {_events(last + 1, kept)} of {workspace_id}; the chain was cut"
                found.append(Fault(workspace_id, last + 1, text))
        return found

    def _head_faults(self, head: Head) -> list[Fault]:
        chain = self._chains.get(head.workspace_id, _ChainState())
        if head.version is None or head.hash is None:
            what = f"the chain of {head.workspace_id} has no head"
            return [Fault(head.workspace_id, chain.version, what)]
        if head.version > chain.version:
            what = f"missing at the end of the chain: {_events(chain.version + 1, head.version)} of {head.workspace_id}"
            return [Fault(head.workspace_id, chain.version + 1, what)]
        if head.version < chain.version:
            what = f"after the head of the chain: {_events(head.version + 1, chain.version)} of {head.workspace_id}"
            return [Fault(head.workspace_id, head.version + 1, what)]
        if head.hash != chain.hash.hex():
            what = f"event {head.version} of {head.workspace_id} does not have the hash of the chain's head"
            return [Fault(head.workspace_id, head.version, what)]
        return []


def _order_faults(event: StoredEvent, chain: _ChainState) -> list[str]:
    found: list[str] = []
    if event.version > chain.version + 1:
        found.append(f"follows event {chain.version}; missing: {_events(chain.version + 1, event.version - 1)}")
    elif event.version <= chain.version:
        found.append(f"comes after event {chain.version}: the order was changed")
    if _number(event.position) <= chain.position:
        found.append("does not come after its predecessor in the log: the order was changed")
    return found


def _hash_faults(event: StoredEvent, chain: _ChainState) -> list[str]:
    state = event.state_bytes()
    if state is None or len(_hash_of(event)) != len(GENESIS):
        return ["cannot be read: its bytes or its hash are damaged"]
    try:
        workspace = parse_id(WORKSPACE, event.workspace_id)
    except InvalidId as error:
        return [str(error)]
    if event.version != chain.version + 1:
        return []  # the event before it, which its hash covers, is missing
    if next_hash(chain.hash, workspace, event.version, event.type, state).hex() == event.hash:
        return []
    if (
        event.version > 1
        and next_hash(chain.before, workspace, event.version - 1, event.type, state).hex() == event.hash
    ):
        return [f"was event {event.version - 1} when the service wrote it: event {event.version - 1} was inserted"]
    return ["does not match its hash: it was changed, or it replaces another event"]


def _column_faults(event: StoredEvent) -> list[str]:
    """Columns that contradict the stored bytes; bytes that are not JSON (compressed, encrypted) cannot be compared."""
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
        f"has {inside!r} in its bytes and {beside!r} in the column {name}: the column was changed"
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
    return int(number) if number.isdecimal() else _NO_POSITION


def _events(first: int, last: int) -> str:
    return f"event {first}" if first == last else f"events {first} to {last}"
