"""What the console says of one resource."""

from datetime import UTC, datetime

import pytest

from wvs.cli.wvsctl.api.documents import SnapshotDocument, WorkspaceDocument
from wvs.cli.wvsctl.output.views import snapshot_rows, workspace_rows


@pytest.mark.parametrize("stranger", [None, "a directory"])
def test_a_workspace_whose_path_was_replaced_has_a_warning_beside_its_path(stranger: str | None) -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    rows = workspace_rows(
        WorkspaceDocument("ws_x", "one", "active", at, path="/srv/wvs/ws_x/current", path_replaced_by=stranger)
    )
    beside = rows[[label for label, _ in rows].index("path") + 1]
    assert (beside[0] == "" and "WARNING: a directory is at the path" in beside[1]) == (stranger is not None)


@pytest.mark.parametrize(("files", "content"), [(None, "-"), (1, "1 file, 3 B")])
def test_a_snapshot_without_a_clone_has_no_content(files: int | None, content: str) -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    rows = dict(snapshot_rows(SnapshotDocument("snap_x", "ws_x", "creating", at, files=files, bytes=files and 3)))
    assert rows["content"] == content
