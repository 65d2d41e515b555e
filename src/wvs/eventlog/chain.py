"""The hash chain: each event's hash covers its predecessor's hash, its place, its name and its stored bytes.

To edit, remove, insert or reorder an event, an attacker has to rewrite every later hash of that workspace. A copy of
its last hash, kept elsewhere, still reveals it.
"""

from hashlib import sha256
from typing import Final
from uuid import UUID

GENESIS: Final = bytes(32)
"""The hash before a workspace's first event."""


def next_hash(previous: bytes, workspace_id: UUID, version: int, topic: str, state: bytes) -> bytes:
    """SHA-256 over the previous hash and everything that is stored of the event.

    Every part has a fixed length or is preceded by its length, so that no two events have the same input.
    """
    name = topic.encode()
    digest = sha256(previous)
    digest.update(workspace_id.bytes)
    digest.update(version.to_bytes(8, "big"))
    digest.update(len(name).to_bytes(4, "big"))
    digest.update(name)
    digest.update(state)
    return digest.digest()
