"""Where things are on a volume: the one module that spells out these names (docs/engines.md, "Layout").

Text only. The API shows paths, and the agent finds its live tree, without a volume at hand: this module imports nothing
that they would have to pay for.
"""

from typing import Final

ROOT: Final = "root"
"""The tree itself, inside the directory that the service keeps around it."""
TREES: Final = "trees"
TRASH: Final = "trash"
NAME: Final = "name"
"""Beside the root: a file that says which tree this is. Only the service can write it."""
LIVE: Final = "live"
"""The directory around the live tree. A switch exchanges it with the directory around another tree."""
SWITCH: Final = "switch"
"""Where an executor holds the tree that it is about to exchange with `LIVE`, and then the one that came out."""
CURRENT: Final = "current"
"""A link to the root of `LIVE`, which never changes."""
LINK_TARGET: Final = f"{LIVE}/{ROOT}"
"""What `CURRENT` holds: relative, so that a volume can be mounted anywhere."""
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
    """The link to the live tree."""
    return f"{workspace_path(volume, workspace)}/{CURRENT}"


def live_root_path(volume: str, workspace: str) -> str:
    """The path of the live tree: its real path, the same before and after every switch."""
    return root_path(live_path(workspace_path(volume, workspace)))


def live_path(workspace_path: str) -> str:
    """The service's directory around the live tree, below a workspace's."""
    return f"{workspace_path}/{LIVE}"


def tree_path(workspace_path: str, tree: str) -> str:
    """The service's directory around a tree, below a workspace's."""
    return f"{workspace_path}/{TREES}/{tree}"


def trashed_path(workspace_path: str, tree: str) -> str:
    """The same directory in the trash."""
    return f"{workspace_path}/{TRASH}/{tree}"


def root_path(tree_path: str) -> str:
    """The tree itself, inside the service's directory around it."""
    return f"{tree_path}/{ROOT}"


def service_path(volume: str) -> str:
    """The directory of the service's own files."""
    return f"{volume}/{SERVICE_DIRECTORY}"


def quarantine_path(workspace: str, name: str) -> str:
    """Where quarantine keeps a directory, relative to the volume."""
    return f"{SERVICE_DIRECTORY}/{QUARANTINE}/{workspace}/{name}"


def lock_path(volume: str) -> str:
    """The lock of the volume's identity file."""
    return f"{service_path(volume)}/{LOCK_FILE}"


def name_beside(root: str) -> str:
    """The file that says which tree is at `root`, such as the path of the live tree."""
    return f"{root.rsplit('/', 1)[0]}/{NAME}"
