"""Paths of a workspace's trees on the hosts of the agents."""

from pathlib import Path
from uuid import UUID

from wvs.domain.ids import WORKSPACE, format_id
from wvs.engines.paths import current_path, tree_root_path


def live_link(volume: Path, workspace_id: UUID) -> str:
    """The link that always points to the live tree of the workspace."""
    return current_path(str(volume), format_id(WORKSPACE, workspace_id))


def tree_root(volume: Path, workspace_id: UUID, tree: str) -> str:
    """The root of one tree of the workspace. Unlike the link, it never points to another tree."""
    return tree_root_path(str(volume), format_id(WORKSPACE, workspace_id), tree)
