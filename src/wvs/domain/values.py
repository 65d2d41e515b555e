"""Values that commands, events and read models share."""

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from wvs.domain.errors import ErrorCode

# Written for JSON Schema, whose `$` is the end. Python's `$` also matches before a trailing newline, so `decide` checks
# the name again with fullmatch.
NAME_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
LABEL_KEY_PATTERN: Final = r"^[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,61}[a-zA-Z0-9])?$"
# U+0000 cannot be stored in Postgres text or jsonb, so it is refused at the edge.
TEXT_PATTERN: Final = r"^[^\u0000]*$"

DEFAULT_TENANT: Final = "default"
"""The only tenant today, and the tenant of every workspace that was created before events named one."""

WorkspaceName = Annotated[
    str,
    Meta(
        pattern=NAME_PATTERN,
        description="1 to 63 of the characters a-z, 0-9 and -; the first and the last must not be a -.",
        examples=["agent-7"],
    ),
]
LabelKey = Annotated[str, Meta(pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, Meta(max_length=255, pattern=TEXT_PATTERN)]
Labels = Annotated[dict[LabelKey, LabelValue], Meta(max_length=32, description="At most 32 labels.")]
Message = Annotated[
    str, Meta(max_length=2000, pattern=TEXT_PATTERN, description="Free text: why the snapshot is taken.")
]
Reason = Annotated[str, Meta(max_length=2000, pattern=TEXT_PATTERN, description="Free text: the reason.")]


class TaskError(Struct, frozen=True, forbid_unknown_fields=True):
    """Why an attempt or a task failed. `retryable` says whether WVS retries automatically while attempts are left."""

    code: ErrorCode
    detail: str
    hint: str = ""
    retryable: bool = False


FrozenKind = Literal["cgroup", "container", "sigstop", "program"]


class FrozenProcesses(Struct, frozen=True, forbid_unknown_fields=True):
    """What a session stopped: a cgroup or a container by its name, a tree of processes by SIGSTOP, or a program itself.

    `processes` counts what was in it while it was frozen.
    """

    kind: FrozenKind
    name: Annotated[str, Meta(max_length=500, pattern=TEXT_PATTERN)]
    processes: Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Member(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One session's part in a freeze: its token, the result of its flush, and what it stopped.

    `frozen` is None if its agent did not report it.
    """

    session_id: UUID
    token: str
    flush: str
    frozen: FrozenProcesses | None = None


class Bystander(Struct, frozen=True, forbid_unknown_fields=True):
    """A process outside everything that was frozen, and how it holds the live tree."""

    pid: int
    command: str
    host: str
    how: tuple[str, ...]


class Bystanders(Struct, frozen=True, forbid_unknown_fields=True):
    """What the look for bystanders found: how many, the first of them, and where it could not look and why."""

    found: int
    named: tuple[Bystander, ...]
    unseen: tuple[str, ...]


class Certificate(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Proof that nothing wrote while a tree was cloned (design §7).

    `vacuous` says that no session was registered, so that only the stamps prove it. The engine takes the stamps: equal
    stamps mean that the source did not change in between. All members were frozen from `frozen_at` to `resumed_at`:
    each stopped before the first and resumed after the second. `bystanders` is None if nobody looked for them.
    """

    freeze: int
    vacuous: bool
    members: tuple[Member, ...]
    stamp_before: str
    stamp_after: str
    engine: str
    frozen_at: datetime
    resumed_at: datetime
    bystanders: Bystanders | None = None


class CloneReport(Struct, frozen=True, forbid_unknown_fields=True):
    """What a clone did: the engine really used, counts, and seconds for freeze, clone and the whole attempt.

    `files` and `bytes` are None where the engine clones without looking at files; `sockets` were skipped.
    """

    engine: str
    files: int | None
    bytes: int | None
    sockets: int
    freeze_s: float
    clone_s: float
    total_s: float
    notes: tuple[str, ...] = ()


class Metadata(Struct, frozen=True):
    """Where an event came from; part of the stored bytes, hence of the hash chain.

    Readers ignore fields that they do not know: a newer release may write them before this one is gone. The last three
    are reserved. No release writes them yet and nothing decides on them; unset, they are left out of the stored bytes.
    `actor_verified` says whether `issuer` vouched for the actor, `on_behalf_of` names whom the actor acted for.
    """

    occurred_at: datetime
    actor: str
    request_id: str
    idempotency_key: str | None = None
    traceparent: str | None = None
    causation: str | None = None
    actor_verified: bool | UnsetType = UNSET
    issuer: str | UnsetType = UNSET
    on_behalf_of: str | UnsetType = UNSET
