"""Path parameters that several routes share, and the ids in them."""

from typing import Annotated, Final, TypeAlias
from uuid import UUID

import structlog
from litestar.params import PathParameter

from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.ids import SESSION, SNAPSHOT, TASK, InvalidId, Prefix, parse_id

MAX_VERSION: Final = 10**15
"""The largest accepted version of a workspace: larger than any real one, and exact in a 64-bit float of JSON."""

WorkspacePath: TypeAlias = Annotated[
    str,
    PathParameter(
        description="Id or name. A name selects the workspace that has it now, or the last disabled one that had it."
    ),
]
SnapshotPath: TypeAlias = Annotated[str, PathParameter(description="Id of a snapshot of this workspace.")]
TaskPath: TypeAlias = Annotated[str, PathParameter(description="Id of a task.")]
SessionPath: TypeAlias = Annotated[str, PathParameter(description="Id of a session.")]


def snapshot_id_of(text: str) -> UUID:
    """The id of a snapshot in a path; refuses `SNAPSHOT_NOT_FOUND` for anything else."""
    return _id_of(SNAPSHOT, text, ErrorCode.SNAPSHOT_NOT_FOUND)


def task_id_of(text: str) -> UUID:
    """The id of a task in a path, which is put into the log context; refuses `TASK_NOT_FOUND` for anything else."""
    task_id = _id_of(TASK, text, ErrorCode.TASK_NOT_FOUND)
    structlog.contextvars.bind_contextvars(task_id=text)
    return task_id


def session_id_of(text: str) -> UUID:
    """The id of a session in a path; refuses `SESSION_NOT_FOUND` for anything else."""
    return _id_of(SESSION, text, ErrorCode.SESSION_NOT_FOUND)


def _id_of(prefix: Prefix, text: str, code: ErrorCode) -> UUID:
    try:
        return parse_id(prefix, text)
    except InvalidId as error:
        raise Refused(code, str(error)) from None
