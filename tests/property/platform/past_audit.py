"""Compares what each workspace was at a version with what `history` shows of that version at the end."""

from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from tests.property.platform.client import Client
from tests.property.platform.log_audit import Look
from wvs.domain.ids import WORKSPACE, format_id
from wvs.http.resources.snapshots import snapshot_view
from wvs.http.resources.tasks import task_view
from wvs.http.resources.workspaces import workspace_view
from wvs.readmodel.rows import decode_snapshot, decode_task, decode_workspace

Past = dict[str, Any]


class PastAudit:
    """Keeps the rows of each workspace, by version, and compares them later with the answers of `history`."""

    def __init__(self, volume: Path) -> None:
        self._volume = volume
        self._seen: dict[UUID, dict[int, Past]] = {}

    def note(self, look: Look) -> None:
        """Keeps the rows of a look, which were read in one database snapshot together with the version."""
        seen = self._seen.setdefault(look.workspace.id, {})
        if look.workspace.version not in seen:
            seen[look.workspace.version] = self._shown(look)

    def check(self, client: Client) -> int:
        """Requests the history of every version seen; raises `AssertionError` at the first that differs.

        Returns the number of versions.
        """
        compared = 0
        for workspace_id, seen in self._seen.items():
            path = f"/v1/workspaces/{format_id(WORKSPACE, workspace_id)}/history?limit=1000&at_version="
            for version, past in seen.items():
                answer = client.read(f"{path}{version}")
                found: Past = {
                    "workspace": answer["workspace"],
                    "snapshots": {it["id"]: it for it in answer["snapshots"]["items"]},
                    "tasks": {it["id"]: it for it in answer["tasks"]["items"]},
                }
                assert answer["live_tree"] == past["live_tree"], f"the live tree at version {version}"
                for part, rows in found.items():
                    assert rows == past[part], f"{part} at version {version}: {rows} are not {past[part]}"
                compared += 1
        return compared

    def _shown(self, look: Look) -> Past:
        """The rows as the API shows them at this moment."""
        (row,) = look.rows["workspaces"]
        workspace = decode_workspace(msgspec.json.encode(row))
        snapshots = [decode_snapshot(msgspec.json.encode(it)) for it in look.rows["snapshots"]]
        tasks = [decode_task(msgspec.json.encode(it), None) for it in look.rows["tasks"]]
        return {
            "live_tree": workspace.live_tree,
            "workspace": _as_answered(workspace_view(workspace, self._volume)),
            "snapshots": {it["id"]: it for it in map(_as_answered, map(snapshot_view, snapshots))},
            "tasks": {it["id"]: it for it in map(_as_answered, (task_view(row, None) for row in tasks))},
        }


def _as_answered(view: msgspec.Struct) -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(view))
