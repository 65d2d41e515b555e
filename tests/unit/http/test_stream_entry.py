import json
from uuid import UUID

from tests.unit.eventlog.test_upcasting import EXAMPLE, old

from wvs.eventlog.codec import EventMapper
from wvs.http.resources.stream import stream_entry

WORKSPACE = UUID("0193a1b2-0000-7000-8000-000000000001")


def test_an_event_is_encoded_under_its_position_and_its_present_type() -> None:
    mapper = EventMapper(upcasters=EXAMPLE)
    entry = stream_entry(mapper, 3, (42, WORKSPACE, 7, "workspace.closed.v1", old(), b"\x01"))
    assert (entry.position, entry.workspace_id, entry.type) == (42, WORKSPACE, "workspace.disabled.v1")
    name, data, *end = entry.text.decode().split("\n")
    assert (name, end) == ("id: 3:42", ["", ""])
    event = json.loads(data.removeprefix("data: "))
    assert (event["position"], event["type"], event["hash"]) == ("3:42", "workspace.disabled.v1", "01")
