"""What a session adds to its acknowledgements: what it stopped, and what it saw beside it on its host."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from wvs.domain.values import TEXT_PATTERN, FrozenProcesses

MAX_SEEN: Final = 50
MAX_MOUNTS: Final = 50

_Text = Annotated[str, Meta(max_length=500, pattern=TEXT_PATTERN)]
_Path = Annotated[str, Meta(max_length=4096, pattern=TEXT_PATTERN)]
_Pid = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class SeenProcess(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A process that holds the live tree: its id on the session's host, its command, and how it holds the tree.

    With `cgroup` and `ancestors` (the ids of its parent, the parent's parent and so on) the executor leaves out what
    other sessions of that host have stopped.
    """

    pid: _Pid
    command: _Text
    how: Annotated[tuple[_Text, ...], Meta(max_length=10)]
    cgroup: _Path = ""
    ancestors: Annotated[tuple[_Pid, ...], Meta(max_length=100)] = ()


class HostLook(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a look at the processes of one host found: how many, the first of them, and what it could not see."""

    found: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    named: Annotated[tuple[SeenProcess, ...], Meta(max_length=MAX_SEEN)] = ()
    unseen: _Text = ""


class HiddenMount(Struct, frozen=True, forbid_unknown_fields=True):
    """Another filesystem that is mounted in the live tree: its place below the root, and its type.

    A clone does not contain it.
    """

    place: _Path
    filesystem: _Text


class MemberDetails(Struct, frozen=True, omit_defaults=True):
    """What the acknowledgements of one member of a freeze added, as PostgreSQL keeps it."""

    frozen: FrozenProcesses | None = None
    bystanders: HostLook | None = None
    hidden_mounts: tuple[HiddenMount, ...] = ()
