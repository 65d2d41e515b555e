"""Ids in addresses and bodies: a prefix that names the kind, and 26 characters of base 32."""

from typing import Annotated, Final
from uuid import UUID

from msgspec import Meta

from wvs.domain.ids import SESSION, SNAPSHOT, TASK, WORKSPACE, Prefix, format_id

_SUFFIX: Final = "[0-7][0-9a-hjkmnp-tv-z]{25}"

ID_PATTERNS: Final[dict[Prefix, str]] = {kind: f"^{kind}_{_SUFFIX}$" for kind in (WORKSPACE, SNAPSHOT, TASK, SESSION)}

WorkspaceId = Annotated[str, Meta(pattern=ID_PATTERNS[WORKSPACE], examples=["ws_01h455vb4pex5vsknk084sn02q"])]
SnapshotId = Annotated[str, Meta(pattern=ID_PATTERNS[SNAPSHOT], examples=["snap_01h455vb4pex5vsknk084sn02q"])]
TaskId = Annotated[str, Meta(pattern=ID_PATTERNS[TASK], examples=["task_01h455vb4pex5vsknk084sn02q"])]
SessionId = Annotated[str, Meta(pattern=ID_PATTERNS[SESSION], examples=["sess_01h455vb4pex5vsknk084sn02q"])]


def format_optional_id(prefix: Prefix, value: UUID | None) -> str | None:
    """The typed id of `value`; None for None."""
    return None if value is None else format_id(prefix, value)
