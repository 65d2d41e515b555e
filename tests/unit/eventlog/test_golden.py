"""The stored bytes of every event equal its golden file: an event that was stored once stays readable for ever."""

import re
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest

from tests.unit.eventlog.samples import METADATA, OPTIONAL_SAMPLES, SAMPLES, SNAPSHOT
from wvs.domain.events import Event
from wvs.domain.values import Metadata
from wvs.eventlog.codec import TOPICS, EventMapper, RecordedEvent, UnknownEventError, decode, encode

GOLDEN = Path(__file__).with_name("golden")


OPTIONAL = Path(__file__).with_name("golden_optional")


def golden(topic: str) -> bytes:
    """The stored bytes; the file ends where they end."""
    return (GOLDEN / f"{topic}.json").read_bytes()


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: TOPICS[type(event)])
def test_an_event_is_stored_as_its_golden_bytes(event: Event) -> None:
    assert encode(event, METADATA) == golden(TOPICS[type(event)])


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: TOPICS[type(event)])
def test_golden_bytes_are_read_as_the_event(event: Event) -> None:
    topic = TOPICS[type(event)]
    assert decode(topic, golden(topic)) == (event, METADATA)


@pytest.mark.parametrize("event", OPTIONAL_SAMPLES, ids=lambda event: TOPICS[type(event)])
def test_optional_fields_are_stored_as_their_golden_bytes_and_read_again(event: Event) -> None:
    topic = TOPICS[type(event)]
    stored = (OPTIONAL / f"{topic}.json").read_bytes()
    assert encode(event, METADATA) == stored != golden(topic)
    assert decode(topic, stored) == (event, METADATA)


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: TOPICS[type(event)])
def test_the_mapper_stores_the_golden_bytes_under_the_explicit_name(event: Event) -> None:
    recorded = RecordedEvent(SNAPSHOT, 3, event, METADATA)
    stored = EventMapper().to_stored_event(recorded)
    assert (stored.topic, stored.state) == (TOPICS[type(event)], golden(stored.topic))
    assert EventMapper().to_domain_event(stored) == recorded


def test_samples_and_golden_files_are_exactly_those_of_the_events() -> None:
    classes = set(get_args(Event))
    assert {type(event) for event in SAMPLES} == classes
    assert len(SAMPLES) == len(classes)
    assert {path.name for path in GOLDEN.iterdir()} == {f"{TOPICS[cls]}.json" for cls in classes}


def test_every_field_of_a_sample_is_filled() -> None:
    """A null in a golden file would not pin the stored form of the field."""
    empty = [
        f"{TOPICS[type(event)]}: {field}"
        for event in (*SAMPLES, METADATA)
        for field in type(event).__struct_fields__
        if getattr(event, field) is None
    ]
    assert empty == []


def test_names_are_explicit_versioned_and_never_a_class_path() -> None:
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+\.v[1-9][0-9]*", topic) for topic in TOPICS.values())
    assert len(set(TOPICS.values())) == len(TOPICS)


def test_absent_metadata_is_stored_as_null() -> None:
    bare = Metadata(METADATA.occurred_at, "cli:anna", "req-1")
    stored = encode(SAMPLES[0], bare)
    assert stored.endswith(b'"idempotency_key":null,"traceparent":null,"causation":null}}')
    assert decode(TOPICS[type(SAMPLES[0])], stored) == (SAMPLES[0], bare)


def test_reserved_metadata_follow_the_others_in_the_stored_bytes_and_are_left_out_while_unset() -> None:
    reserved = {"actor_verified": True, "issuer": "https://issuer.example", "on_behalf_of": "user:bob"}
    stored = encode(SAMPLES[0], msgspec.structs.replace(METADATA, **reserved))
    tail = b',"actor_verified":true,"issuer":"https://issuer.example","on_behalf_of":"user:bob"}}'
    assert stored == golden(TOPICS[type(SAMPLES[0])]).removesuffix(b"}}") + tail
    metadata = decode(TOPICS[type(SAMPLES[0])], stored)[1]
    assert {name: getattr(metadata, name) for name in reserved} == reserved


@pytest.mark.parametrize("topic", TOPICS.values())
def test_metadata_fields_that_a_newer_release_wrote_are_ignored(topic: str) -> None:
    """In a rolling upgrade this release may be the older reader. An unknown type of event is still an error."""
    stored = golden(topic)
    newer = stored.removesuffix(b"}}") + b',"approved_by":{"name":"eve","at":[1,2]},"ticket":null}}'
    assert decode(topic, newer) == decode(topic, stored)
    with pytest.raises(UnknownEventError):
        decode(topic, newer.replace(f'"type":"{topic}"'.encode(), b'"type":"newer.event.v1"'))


def test_a_reader_without_the_reserved_metadata_reads_what_a_writer_with_them_stored() -> None:
    fields = [name for name in Metadata.__struct_fields__ if getattr(METADATA, name) is not msgspec.UNSET]
    older = msgspec.defstruct("OlderMetadata", [(name, get_type_hints(Metadata)[name]) for name in fields])
    newer = msgspec.structs.replace(METADATA, actor_verified=False, issuer="i", on_behalf_of="b")
    read = msgspec.json.decode(msgspec.json.encode(newer), type=older)
    assert msgspec.structs.asdict(read) == {name: getattr(METADATA, name) for name in fields}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"workspace.disabled.v1"', b'"workspace.disabled.v2"'),
        (b'"workspace.disabled.v1"', b'"WorkspaceDisabled"'),
        (b'"type":"workspace.disabled.v1",', b""),
        (b'"reason":"Project ended."', b'"reason":7'),
        (b'"reason":"Project ended."', b'"why":"Project ended."'),
        (b'"reason":"Project ended."', b'"reason":"Project ended.","by":"anna"'),
        (b'{"event":', b'{"more":1,"event":'),
        (b'"request_id":"req-1",', b""),
        (b"}}", b"}"),
    ],
)
def test_an_unknown_name_or_another_shape_is_an_error_and_never_skipped(old: bytes, new: bytes) -> None:
    stored = golden("workspace.disabled.v1")
    assert old in stored
    with pytest.raises(UnknownEventError, match=r"workspace\.disabled\.v1"):
        decode("workspace.disabled.v1", stored.replace(old, new))


def test_bytes_under_the_topic_of_another_event_are_an_error() -> None:
    with pytest.raises(UnknownEventError, match="holds a"):
        decode("workspace.created.v2", golden("workspace.disabled.v1"))


def test_an_unknown_topic_is_an_error() -> None:
    with pytest.raises(UnknownEventError):
        decode("workspace.renamed.v1", golden("workspace.disabled.v1"))


def test_golden_files_are_compact_json() -> None:
    for path in GOLDEN.iterdir():
        assert msgspec.json.encode(msgspec.json.decode(path.read_bytes())) == path.read_bytes()
