"""The documents that an agent and the service exchange, as far as the agent reads them."""

from enum import StrEnum
from typing import Final

from msgspec import Struct


class DirectiveKind(StrEnum):
    """What a session is to do."""

    RUN = "run"
    FREEZE = "freeze"
    CONFIRM = "confirm"
    SWITCH = "switch"
    END = "end"


class Directive(Struct, frozen=True):
    """What a session is to do now.

    `budget_s` are the seconds that freeze number `freeze` still holds; `path` is the live tree's root in `epoch`;
    `member` is false for a session that joined during the freeze. `resume`, with `CONFIRM`: it may go on as soon as it
    has looked whether it stood still, and answers `answer_after_s` seconds later.
    """

    number: int
    kind: DirectiveKind
    epoch: int
    freeze: int | None = None
    member: bool = False
    resume: bool = False
    answer_after_s: float = 0.0
    budget_s: float | None = None
    path: str | None = None
    reason: str | None = None


class SessionDocument(Struct, frozen=True):
    """A session, as registration answers it."""

    id: str
    workspace_id: str


class RegistrationDocument(Struct, frozen=True):
    """The answer to a registration."""

    session: SessionDocument
    directive: Directive


class ProblemDocument(Struct, frozen=True):
    """A refusal."""

    code: str = ""
    detail: str = ""
    hint: str = ""


class Tree(Struct, frozen=True):
    """A live tree: its real `path`, and its `epoch` where that is known (not while the service cannot be reached)."""

    path: str
    epoch: int | None


STALE: Final = "FREEZE_STALE"
UNKNOWN: Final = "SESSION_NOT_FOUND"
