"""The names of workspaces and trees on a volume. Every name is checked here before it becomes part of a path."""

import re
from typing import Final
from uuid import UUID

from wvs.domain.errors import ErrorCode
from wvs.domain.ids import WORKSPACE, InvalidId, parse_id, suffix_of
from wvs.engines.errors import EngineError

_TREE_NAME: Final = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}\.(?:0|[1-9][0-9]{0,18})")


def tree_name(task_id: UUID, fence: int) -> str:
    """The name of the tree that a task makes under a fence. No name is used twice."""
    return f"{suffix_of(task_id)}.{fence}"


def is_tree_name(name: str) -> bool:
    """Whether `name` could have been made by `tree_name`."""
    return _TREE_NAME.fullmatch(name) is not None


def is_workspace_name(name: str) -> bool:
    """Whether `name` is the typed id of a workspace."""
    try:
        parse_id(WORKSPACE, name)
    except InvalidId:
        return False
    return True


def checked_workspace(name: str) -> str:
    """`name`; raises `EngineError` unless it is the typed id of a workspace."""
    if not is_workspace_name(name):
        raise _refuse(f"{name[:80]!r} is not the id of a workspace")
    return name


def checked_tree(name: str) -> str:
    """`name`; raises `EngineError` unless it has the form of a tree's name."""
    if not is_tree_name(name):
        raise _refuse(f"{name[:80]!r} is not the name of a tree")
    return name


def _refuse(detail: str) -> EngineError:
    return EngineError(ErrorCode.CLONE_FAILED, detail, retryable=False)
