"""Where things are on a volume: the one module that spells out these names (docs/engines.md, "Layout").

Text only. The API shows paths, and the agent finds its workspace's link, without a volume at hand: this module imports
nothing that they would have to pay for.
"""

from typing import Final

ROOT: Final = "root"
"""The tree itself, inside the directory that the service keeps around it."""
TREES: Final = "trees"
TRASH: Final = "trash"
CURRENT: Final = "current"
"""The link that agents follow to the live tree."""
NEW_LINK: Final = ".current.new"
"""The link before the rename that makes it `CURRENT`."""
SERVICE_DIRECTORY: Final = ".wvs"
QUARANTINE: Final = "quarantine"
REASON: Final = "why-it-stays"
"""Beside the root of a tree in the trash: why it could not be removed, and the command that helps."""
IDENTITY_FILE: Final = "volume.json"
LOCK_FILE: Final = "volume.lock"


def workspace_path(volume: str, workspace: str) -> str:
    """The directory of a workspace."""
    return f"{volume}/{workspace}"


def current_path(volume: str, workspace: str) -> str:
    """The stable path at which agents find the live tree."""
    return f"{workspace_path(volume, workspace)}/{CURRENT}"


def tree_path(workspace_path: str, tree: str) -> str:
    """The service's directory around a tree, below a workspace's."""
    return f"{workspace_path}/{TREES}/{tree}"


def trashed_path(workspace_path: str, tree: str) -> str:
    """The same directory in the trash."""
    return f"{workspace_path}/{TRASH}/{tree}"


def root_path(tree_path: str) -> str:
    """The tree itself, inside the service's directory around it."""
    return f"{tree_path}/{ROOT}"


def tree_root_path(volume: str, workspace: str, tree: str) -> str:
    """The tree itself, from the volume's path."""
    return root_path(tree_path(workspace_path(volume, workspace), tree))


def service_path(volume: str) -> str:
    """The directory of the service's own files."""
    return f"{volume}/{SERVICE_DIRECTORY}"


def quarantine_path(workspace: str, name: str) -> str:
    """Where quarantine keeps a directory, relative to the volume."""
    return f"{SERVICE_DIRECTORY}/{QUARANTINE}/{workspace}/{name}"


def lock_path(volume: str) -> str:
    """The lock of the volume's identity file."""
    return f"{service_path(volume)}/{LOCK_FILE}"


def link_target(tree: str) -> str:
    """What the link `current` holds: relative, so that a volume can be mounted anywhere."""
    return f"{TREES}/{tree}/{ROOT}"


def tree_of_link(target: str) -> str | None:
    """The tree that a link with this content leads to; None for a link of another form."""
    parts = target.split("/")
    return parts[1] if len(parts) == 3 and target == link_target(parts[1]) else None


def current_beside(tree_root: str) -> str:
    """The link `current` of the workspace that the tree at `tree_root` belongs to."""
    workspace = tree_root.rsplit("/", 3)[0]  # less `trees/<tree>/root`
    return f"{workspace}/{CURRENT}"


def is_tree_beside(path: str, tree_root: str) -> bool:
    """Whether `path` is the root of a tree of the workspace that the tree at `tree_root` belongs to."""
    return path.endswith(f"/{ROOT}") and path.rsplit("/", 2)[0] == tree_root.rsplit("/", 2)[0]
