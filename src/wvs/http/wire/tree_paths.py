"""The path of a workspace's live tree on the hosts of the agents."""

from pathlib import Path
from uuid import UUID

from wvs.domain.ids import WORKSPACE, format_id
from wvs.engines.paths import live_root_path


def live_root(volume: Path, workspace_id: UUID) -> str:
    """The live tree of the workspace: the same real path before and after every switch."""
    return live_root_path(str(volume), format_id(WORKSPACE, workspace_id))
