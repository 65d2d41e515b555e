"""Path parameters that several routes have, as the OpenAPI document tells them."""

from typing import Annotated, Final, TypeAlias

from litestar.params import PathParameter

GREATEST_VERSION: Final = 10**15
"""Of a workspace: more than there will ever be, and an integer wherever JSON's numbers are floating point."""

WorkspacePath: TypeAlias = Annotated[
    str,
    PathParameter(
        description="Id or name. A name means the workspace that has it now, else the newest disabled one that had it."
    ),
]
SnapshotPath: TypeAlias = Annotated[str, PathParameter(description="Id of a snapshot of this workspace.")]
TaskPath: TypeAlias = Annotated[str, PathParameter(description="Id of a task.")]
