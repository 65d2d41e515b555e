"""The documents that an agent and the service exchange, with the fields that the agent reads."""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from wvs.agent.errors import AgentError


class Instruction(StrEnum):
    """What a directive asks the session to do."""

    RUN = "run"
    FREEZE = "freeze"
    CONFIRM = "confirm"
    SWITCH = "switch"
    END = "end"


class DirectiveDocument(Struct, frozen=True):
    """What the session has to do now.

    `budget_s`: the seconds for which freeze number `freeze` still holds. `path`: the root of the live tree, the same
    for every tree. `tree`: the name of the tree of `epoch`; the file beside the root says which tree is there.
    `member`: false for a session that joined during the freeze. `resume` comes with `CONFIRM`: the agent checks whether
    it stayed frozen, resumes at once, and answers `answer_after_s` seconds later.
    """

    number: int
    kind: Instruction
    epoch: int
    freeze: int | None = None
    member: bool = False
    # Shim for peers before 0.1.0; remove after 0.2.0.
    # Older APIs send neither field. Without `resume` the agent answers first and resumes with a later directive.
    resume: bool = False
    answer_after_s: float = 0.0
    budget_s: float | None = None
    path: str | None = None
    tree: str | None = None
    reason: str | None = None
    # Shim for peers before 0.1.0; remove after 0.2.0.
    # Older APIs do not send it, and refuse acknowledgements with the fields that came with it.
    looked_from: str | UnsetType | None = UNSET


class SessionIds(Struct, frozen=True):
    """The session in the answer to a registration: its id and that of its workspace."""

    id: str
    workspace_id: str


class RegistrationDocument(Struct, frozen=True):
    """The answer to a registration. `secret` is sent with every later request of the session."""

    session: SessionIds
    directive: DirectiveDocument
    # Shim for peers before 0.1.0; remove after 0.2.0. Older APIs send no secret and need none.
    secret: Annotated[str, Meta(pattern="^[!-~]+$")] | None = None


class ServiceRefusal(Struct, frozen=True):
    """The service's refusal, an RFC 9457 problem document."""

    code: str = ""
    detail: str = ""
    hint: str = ""


class Tree(Struct, frozen=True):
    """A live tree. `path` is its real path, the same for every tree of the workspace, and `name` tells them apart.

    `epoch` is None while the agent cannot reach the service to learn it.
    """

    path: str
    epoch: int | None
    name: str | None = None


def tree_of(directive: DirectiveDocument) -> Tree:
    """The live tree that the directive names. Raises `AgentError` without one."""
    if directive.path is None:
        raise AgentError("the service's directive names no live tree")
    return Tree(directive.path, directive.epoch, directive.tree)


def end_directive(number: int, reason: str) -> DirectiveDocument:
    """A directive that ends the session, which this side gives itself."""
    return DirectiveDocument(number=number, kind=Instruction.END, epoch=0, reason=reason)


FREEZE_STALE: Final = "FREEZE_STALE"
SESSION_SECRET_INVALID: Final = "SESSION_SECRET_INVALID"  # noqa: S105 - the code of a problem
SESSION_NOT_FOUND: Final = "SESSION_NOT_FOUND"
