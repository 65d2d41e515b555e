"""What the console says of one resource."""

from datetime import UTC, datetime

import pytest

from wvs.cli.wvsctl.api.documents import WorkspaceDocument
from wvs.cli.wvsctl.output.views import workspace_rows


@pytest.mark.parametrize("stranger", [None, "a directory"])
def test_a_workspace_whose_path_was_replaced_has_a_warning_beside_its_path(stranger: str | None) -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    rows = workspace_rows(
        WorkspaceDocument("ws_x", "one", "active", at, path="/srv/wvs/ws_x/current", path_replaced_by=stranger)
    )
    beside = rows[[label for label, _ in rows].index("path") + 1]
    assert (beside[0] == "" and "WARNING: a directory is at the path" in beside[1]) == (stranger is not None)
