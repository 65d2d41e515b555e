"""Failpoints: named places between two effects where a test can really kill, stop, fail or delay the process.

They are off in production: an unarmed failpoint costs one check of an empty dict. `WVS_FAILPOINTS` arms them, for
example `create.cloned=kill` or `set.committed=stop,drop.retired=sleep:2`. With `@N` an action acts only when the
process passes the failpoint for the N-th time.
"""

import os
import signal
import time
from typing import Final

from msgspec import Struct

NAMES: Final = (
    "init.started",
    "init.workspace_made",
    "init.tree_intended",
    "init.root_made",
    "init.synced",
    "init.committed",
    "init.switched",
    "freeze.opened",
    "freeze.asked_again",
    "freeze.confirmed",
    "freeze.closing",
    "freeze.closed",
    "create.started",
    "create.tree_intended",
    "create.frozen",
    "create.stamped",
    "create.cloning",
    "create.cloned",
    "create.proven",
    "create.resumed",
    "create.syncing",
    "create.synced",
    "create.sealed",
    "create.committed",
    "set.started",
    "set.tree_intended",
    "set.frozen",
    "set.stamped",
    "set.cloning",
    "set.cloned",
    "set.proven",
    "set.syncing",
    "set.synced",
    "set.opened",
    "set.committed",
    "set.switched",
    "set.resumed",
    "drop.started",
    "drop.retired",
    "drop.removing",
    "drop.purged",
    "drop.committed",
    "fail.recorded",
    "discard.retired",
    "discard.purged",
    "switch.asked",
    "switch.cleared",
    "switch.taken",
    "switch.asked_again",
    "switch.exchanged",
    "switch.put_away",
    "switch.seen",
    "sweep.listed",
    "sweep.retired",
    "sweep.purged",
    "sweep.quarantined",
    "sweep.reported",
    "sweep.switched",
)
"""Every step between filesystem and Postgres operations, in the order in which an operation passes them.

A name that ends in -ing is a place within a step: the step's thread passes it. The event loop passes all others, and an
action there blocks the event loop.
"""

OF_UPGRADES: Final = (
    "upgrade.started",
    "upgrade.naming",
    "upgrade.named",
    "upgrade.moved",
    "upgrade.linking",
    "upgrade.workspace_done",
    "upgrade.finished",
)
"""The same for `wvs volume upgrade`, which no executor passes."""
_KNOWN: Final = frozenset((*NAMES, *OF_UPGRADES))


class InjectedFault(OSError):
    """The action `error` raises this: an EIO that no disk reported."""

    def __init__(self, name: str) -> None:
        super().__init__(5, f"injected at {name}")


class _Armed(Struct):
    action: str
    seconds: float
    on_pass: int | None
    passes: int = 0


_armed: Final[dict[str, _Armed]] = {}


class UnknownFailpoint(LookupError):
    """A call names a failpoint that is not known."""


def arm(specification: str) -> None:
    """Arms the failpoints in `specification` and disarms all others; raises `ValueError` if it cannot be parsed."""
    _armed.clear()
    for part in filter(None, (p.strip() for p in specification.split(","))):
        name, _, action = part.partition("=")
        action, _, on_pass = action.partition("@")
        action, _, seconds = action.partition(":")
        if name not in _KNOWN or action not in ("kill", "stop", "error", "sleep"):
            raise ValueError(
                f"{part!r} is not a failpoint: use NAME=kill|stop|error|sleep:SECONDS, with @N to act on pass N only"
            )
        _armed[name] = _Armed(action, float(seconds or 0), int(on_pass) if on_pass else None)


def failpoint(name: str) -> None:
    """Acts if `name` is armed. While any failpoint is armed, it raises `UnknownFailpoint` for an unknown name."""
    if _armed:
        _pass(name)


def passes() -> dict[str, int]:
    """How often the process passed each armed failpoint."""
    return {name: armed.passes for name, armed in _armed.items()}


def _pass(name: str) -> None:
    if name not in _KNOWN:
        raise UnknownFailpoint(name)
    if name in _armed:
        _act(name, _armed[name])


def _act(name: str, armed: _Armed) -> None:
    armed.passes += 1
    if armed.on_pass is not None and armed.passes != armed.on_pass:
        return
    match armed.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "sleep":
            time.sleep(armed.seconds)
        case _:
            raise InjectedFault(name)
