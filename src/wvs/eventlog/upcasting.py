"""Reads old events as events of their current version. Stored bytes are never rewritten.

To change an event: give it the next name in `wvs.domain.events` (`….v2`), keep the golden file of the old one in
`tests/unit/eventlog/golden_old`, and add an upcaster here. Each upcaster goes one step; readers follow all of them.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from wvs.domain.values import DEFAULT_TENANT


class Upcaster(Struct, frozen=True):
    """One step: `change` gets the fields of the stored event without its name, and returns those of `to`."""

    to: str
    change: Callable[[dict[str, Any]], dict[str, Any]]


Upcasters = Mapping[str, Upcaster]
"""The upcasters by the name under which an event is stored."""


def _workspace_created_v2(fields: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew one tenant, and did not record the volume."""
    added = {"tenant": DEFAULT_TENANT, "volume_id": None}
    if early := fields.keys() & added.keys():
        raise ValueError(f"workspace.created.v1 has no {', '.join(sorted(early))}")
    return {**fields, **added}


UPCASTERS: Final[Upcasters] = {
    "workspace.created.v1": Upcaster("workspace.created.v2", _workspace_created_v2),
}
"""Of this release: every event that was ever stored in another shape than today's."""

_bodies: Final = msgspec.json.Decoder(dict[str, Any])


def upcast(topic: str, state: bytes, upcasters: Upcasters) -> tuple[str, bytes]:
    """The name and the bytes that this release would store the event with; its metadata stay unchanged.

    Raises `msgspec.DecodeError`, or `ValueError` for bytes that are not those of an event of this name.
    """
    if topic not in upcasters:
        return topic, state
    body = _bodies.decode(state)
    event = msgspec.convert(body.get("event"), dict[str, Any])
    if event.pop("type", None) != topic:
        raise ValueError(f"the bytes are not those of a {topic!r}")
    fields = event
    while (step := upcasters.get(topic)) is not None:
        topic, fields = step.to, step.change(fields)
    return topic, msgspec.json.encode({**body, "event": {"type": topic, **fields}})


def names_before(topic: str, upcasters: Upcasters = UPCASTERS) -> list[str]:
    """The old names of stored events that are read as `topic`."""
    older = [name for name, step in upcasters.items() if step.to == topic]
    return [*older, *(name for old in older for name in names_before(old, upcasters))]
