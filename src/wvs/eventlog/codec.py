"""Events as stored bytes: one JSON object of `event` and `metadata`, under an explicit topic.

The `eventsourcing` library's `Mapper` is the frame (its compressor and cipher hooks, its errors); the transcoding is
msgspec's. The topic equals the tag within the bytes, so that a reader notices if either was replaced.
"""

from typing import Any, Final, cast, get_args
from uuid import UUID

import msgspec
from eventsourcing.persistence import (
    Cipher,
    Compressor,
    JSONTranscoder,
    Mapper,
    MapperDeserialisationError,
    StoredEvent,
)
from msgspec import Struct

from wvs.domain.events import Event
from wvs.domain.values import Metadata
from wvs.eventlog.upcasting import UPCASTERS, Upcasters, names_before, upcast


class RecordedEvent(Struct, frozen=True):
    """An event with its place in the log, workspace and version, and with its metadata."""

    originator_id: UUID
    originator_version: int
    event: Event
    metadata: Metadata


class _Body(Struct, frozen=True, forbid_unknown_fields=True):
    event: Event
    metadata: Metadata


class UnknownEventError(MapperDeserialisationError):
    """A stored event has a name or a shape that this release does not know. It is never skipped."""


TOPICS: Final[dict[type[Struct], str]] = {
    cls: cast("str", cls.__struct_config__.tag) for cls in cast("tuple[type[Struct], ...]", get_args(Event))
}


def topics_of(*classes: type[Struct]) -> list[str]:
    """Every name under which events of these classes are stored, older names included."""
    return [name for cls in classes for name in (TOPICS[cls], *names_before(TOPICS[cls]))]


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(_Body)


def encode(event: Event, metadata: Metadata) -> bytes:
    """The stored bytes of an event; pinned by golden files."""
    return _encoder.encode(_Body(event, metadata))


def decode(topic: str, state: bytes, upcasters: Upcasters = UPCASTERS) -> tuple[Event, Metadata]:
    """The event and the metadata that `encode` was given, an old event upcast to its current version.

    Raises `UnknownEventError` on an unknown name, another shape, or a topic that is not that of the bytes.
    """
    try:
        current, state = upcast(topic, state, upcasters)
        body = _decoder.decode(state)
    except (ValueError, LookupError, TypeError) as error:  # msgspec raises ValueErrors, an upcaster KeyErrors
        raise UnknownEventError(f"Stored event with topic {topic!r} cannot be read: {error}") from error
    if TOPICS[type(body.event)] != current:
        raise UnknownEventError(f"Stored event with topic {topic!r} holds a {TOPICS[type(body.event)]!r}.")
    return body.event, body.metadata


class EventMapper(Mapper[UUID]):
    """Maps `RecordedEvent` to the library's `StoredEvent` and back, through its compressor and cipher where given.

    It reads events with old names through `upcasters`.
    """

    def __init__(
        self,
        compressor: Compressor | None = None,
        cipher: Cipher | None = None,
        upcasters: Upcasters = UPCASTERS,
    ) -> None:
        super().__init__(JSONTranscoder(), compressor, cipher)
        self._upcasters = upcasters

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        """The stored form; its `state` is what the hash chain covers."""
        recorded = cast("RecordedEvent", domain_event)
        state = encode(recorded.event, recorded.metadata)
        if self.compressor:
            state = self.compressor.compress(state)
        if self.cipher:
            state = self.cipher.encrypt(state)
        topic = TOPICS[type(recorded.event)]
        return StoredEvent(recorded.originator_id, recorded.originator_version, topic, state)

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        """The recorded event; raises `UnknownEventError`, naming workspace and version."""
        state = stored_event.state
        try:
            if self.cipher:
                state = self.cipher.decrypt(state)
            if self.compressor:
                state = self.compressor.decompress(state)
            event, metadata = decode(stored_event.topic, state, self._upcasters)
        except Exception as error:
            place = f"workspace {stored_event.originator_id}, version {stored_event.originator_version}"
            raise UnknownEventError(f"{place}: {error}") from error
        originator_id = cast("UUID", stored_event.originator_id)
        return RecordedEvent(originator_id, stored_event.originator_version, event, metadata)
