"""The codec reads an old event as its current version; the stored bytes stay unchanged.

The example is invented: a first release closed workspaces, with an event of another name and shape; a second one stored
the reason as a text that could not be absent.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.unit.eventlog import samples
from wvs.domain.events import WorkspaceCreated, WorkspaceDisabled
from wvs.domain.values import Metadata
from wvs.eventlog.chain import GENESIS, next_hash
from wvs.eventlog.codec import TOPICS, EventMapper, RecordedEvent, StoredEvent, UnknownEventError, decode, topics_of
from wvs.eventlog.upcasting import UPCASTERS, Upcaster, names_before

OLD = Path(__file__).with_name("golden_old")
WORKSPACE = UUID("0193a1b2-0000-7000-8000-000000000001")


def closed_with_a_text(fields: dict[str, Any]) -> dict[str, Any]:
    """`by_force` was never used and is left out."""
    return {"text": fields["why"]}


def with_a_reason_that_may_be_absent(fields: dict[str, Any]) -> dict[str, Any]:
    return {"reason": fields["text"] or None}


EXAMPLE = {
    "workspace.closed.v1": Upcaster("workspace.closed.v2", closed_with_a_text),
    "workspace.closed.v2": Upcaster("workspace.disabled.v1", with_a_reason_that_may_be_absent),
}
METADATA = Metadata(datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), "cli:anna", "req-1")


def old(topic: str = "workspace.closed.v1") -> bytes:
    return (OLD / f"{topic}.json").read_bytes()


def test_the_golden_bytes_of_an_old_event_are_read_as_the_present_event() -> None:
    assert decode("workspace.closed.v1", old(), EXAMPLE) == (WorkspaceDisabled("Project ended."), METADATA)


def test_an_old_event_of_any_version_takes_the_remaining_steps() -> None:
    first, second = b'"workspace.closed.v1","why":"Project ended.","by_force":false', b'"workspace.closed.v2","text":""'
    stored = old().replace(first, second)
    assert decode("workspace.closed.v2", stored, EXAMPLE) == (WorkspaceDisabled(None), METADATA)


def test_the_mapper_reads_old_events_beside_new_ones_and_writes_only_new_ones() -> None:
    mapper = EventMapper(upcasters=EXAMPLE)
    recorded = RecordedEvent(WORKSPACE, 7, WorkspaceDisabled("Project ended."), METADATA)
    assert mapper.to_domain_event(StoredEvent(WORKSPACE, 7, "workspace.closed.v1", old())) == recorded
    written = mapper.to_stored_event(recorded)
    assert written.topic == "workspace.disabled.v1"
    assert mapper.to_domain_event(written) == recorded


def test_an_old_name_without_its_upcaster_is_unknown_and_its_place_is_named() -> None:
    with pytest.raises(UnknownEventError, match=rf"{WORKSPACE}, version 7: .*workspace\.closed\.v1"):
        EventMapper().to_domain_event(StoredEvent(WORKSPACE, 7, "workspace.closed.v1", old()))


@pytest.mark.parametrize(
    ("topic", "change"),
    [
        ("workspace.closed.v1", (b'"why":', b'"because":')),
        ("workspace.closed.v1", (b'"workspace.closed.v1"', b'"workspace.closed.v2"')),
        ("workspace.closed.v2", (b"", b"")),
        ("workspace.closed.v1", (b'"event"', b'"events"')),
        ("workspace.closed.v1", (b'"actor":', b'"by":')),
        ("workspace.closed.v1", (b"}}", b"}")),
    ],
)
def test_bytes_that_do_not_fit_the_old_event_are_an_error(topic: str, change: tuple[bytes, bytes]) -> None:
    with pytest.raises(UnknownEventError):
        decode(topic, old().replace(*change), EXAMPLE)


def test_old_names_are_found_for_queries_by_name() -> None:
    assert names_before("workspace.disabled.v1", EXAMPLE) == ["workspace.closed.v2", "workspace.closed.v1"]
    assert names_before("workspace.closed.v1", EXAMPLE) == []


def test_a_stored_workspace_created_v1_is_read_as_v2_of_the_default_tenant_and_no_known_volume() -> None:
    task_id = UUID("01890a5d-ac97-7b1c-8d3e-0f1e2d3c4b5a")
    event = WorkspaceCreated("agent-7", {"team": "größer", "env/x": ""}, task_id, "default", None)
    mapper = EventMapper()
    stored = StoredEvent(WORKSPACE, 1, "workspace.created.v1", old("workspace.created.v1"))
    recorded = mapper.to_domain_event(stored)
    assert recorded == RecordedEvent(WORKSPACE, 1, event, samples.METADATA)
    assert mapper.to_stored_event(recorded).topic == "workspace.created.v2"


def test_the_hash_of_a_stored_workspace_created_v1_covers_its_bytes_as_they_were_written() -> None:
    digest = next_hash(GENESIS, WORKSPACE, 1, "workspace.created.v1", old("workspace.created.v1"))
    assert digest.hex() == "368614c85d037947652d67e39e69cbefd594e0cb5525cb40a036df58c4a3137a"


@pytest.mark.parametrize("field", ["tenant", "volume_id", "owner"])
def test_a_stored_workspace_created_v1_with_a_field_that_v1_never_had_is_an_error(field: str) -> None:
    stored = old("workspace.created.v1").replace(b'"name":', f'"{field}":"x","name":'.encode())
    with pytest.raises(UnknownEventError, match=field):
        decode("workspace.created.v1", stored)


def test_upcasting_ignores_metadata_that_only_a_newer_release_knows() -> None:
    stored = old("workspace.created.v1").removesuffix(b"}}") + b',"approved_by":"eve"}}'
    assert decode("workspace.created.v1", stored)[1] == samples.METADATA


def test_queries_for_created_workspaces_find_both_versions() -> None:
    assert topics_of(WorkspaceCreated) == ["workspace.created.v2", "workspace.created.v1"]


def test_the_upcasters_of_this_release_lead_to_events_of_this_release() -> None:
    assert topics_of(WorkspaceDisabled)[0] == "workspace.disabled.v1"
    ends = {step.to for step in UPCASTERS.values()} - set(UPCASTERS)
    assert ends <= set(TOPICS.values())
    assert not set(UPCASTERS) & set(TOPICS.values())
