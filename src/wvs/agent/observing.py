"""What a session reports beside its freeze: other filesystems in the live tree, and bystanders on its own host."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from wvs.engines.holders import Holder, hidden_below, holders_of, process_view

_MOST: Final = 50
"""The service takes no more of either kind."""


def observe(root: str, pids: Iterable[int], looked_from: str | None) -> dict[str, Any]:
    """The fields of an acknowledgement that describe this host while the processes `pids` are frozen.

    It looks for bystanders only if the executor, which looks at the processes that `looked_from` names, sees others
    than this process does. Never raises: an observation that fails is left out, and the certificate says so.
    """
    own = set(pids)
    try:
        fields: dict[str, Any] = {"hidden_mounts": _hidden_mounts(root, own)}
        if looked_from != process_view():
            look = holders_of(root, _MOST, own)
            named = [_seen(holder) for holder in look.holders]
            fields["bystanders"] = {"found": look.found, "named": named, "unseen": look.unseen[:500]}
    except OSError:
        return {}
    return fields


def _hidden_mounts(root: str, pids: set[int]) -> list[dict[str, str]]:
    """The mounts in the tree as each of the processes sees it; one look at each mount namespace."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    for pid in (os.getpid(), *pids):
        try:
            namespace = str(Path(f"/proc/{pid}/ns/mnt").readlink())
            if namespace not in seen:
                seen.add(namespace)
                found.update(hidden_below(root, pid))
        except OSError:
            continue  # it has ended, or belongs to another user
    return [
        {"place": _text(place)[:4096], "filesystem": _text(kind)[:500]} for place, kind in sorted(found.items())[:_MOST]
    ]


def _seen(holder: Holder) -> dict[str, Any]:
    return {
        "pid": holder.pid,
        "command": _text(holder.command)[:500],
        "how": [_text(how)[:500] for how in holder.how],
        "cgroup": _text(max(holder.cgroups, key=len, default=""))[:4096],
        "ancestors": list(holder.ancestors),
    }


def _text(name: str) -> str:
    return name.encode(errors="backslashreplace").decode().replace("\0", r"\x00")
