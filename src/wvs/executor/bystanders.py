"""The look for bystanders: processes that hold the live tree and belong to nothing that a freeze stopped (design §7).

The executor looks at its own host before a freeze opens, and for a snapshot again after the agents have resumed: no
look takes time while agents are frozen. A process that was there during the whole freeze is seen twice. One that came
after the first look and ended before the second is seen by neither; the stamps find what it wrote. A session on another
host looks there while the clone is made, and its acknowledgement brings the result.
"""

import asyncio
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from wvs.domain.errors import ErrorCode
from wvs.domain.ids import SESSION, format_id
from wvs.domain.values import Bystander, Bystanders
from wvs.engines.errors import EngineError
from wvs.engines.holders import MOUNTED, Holder, Look, hidden_below, holders_of, process_view, sees_all_users
from wvs.executor.workbench import Job
from wvs.quiesce.freezes import FreezeMember
from wvs.quiesce.member_details import SeenProcess
from wvs.telemetry.failures import survived

MAX_NAMED: Final = 20
"""The most bystanders that a certificate, a note or an error names; it says how many there are."""
MAX_PLACES: Final = 20

_MAX_HELD: Final = 5_000
BYSTANDERS_PATIENCE_S: Final = 5.0
_SHORTEST_PART: Final = 12
"""A shorter name could be a part of another cgroup's name by chance; an abbreviated id of a container has 12 digits."""


class HostSight(Struct, frozen=True):
    """What the executor saw on its own host: processes that hold the live tree, and what is mounted in the tree."""

    look: Look
    hidden: tuple[tuple[str, str], ...] = ()


class Found(Struct, frozen=True):
    """The bystanders of one freeze, and notes for the clone's report."""

    bystanders: Bystanders
    notes: tuple[str, ...]


def looked_from() -> str | None:
    """Names the processes that this executor sees; None if it may not examine those of other users."""
    return process_view() if sees_all_users() else None


async def look_at_host(job: Job, root: str) -> HostSight:
    """Looks at this host's processes. A look that fails or takes long is no failure: the certificate says so."""
    try:
        async with asyncio.timeout(BYSTANDERS_PATIENCE_S):
            return await job.bench.run(_look, root)
    except (OSError, TimeoutError) as error:
        survived(job.bench.metrics, "look_for_bystanders", error, "bystanders_not_looked_for")
        return HostSight(Look(0, (), f"the look failed: {error or f'no end within {BYSTANDERS_PATIENCE_S:g} s'}"))


def bystanders_among(sights: Sequence[HostSight], members: Sequence[FreezeMember]) -> Found:
    """What the looks saw, without what the members stopped, without their wrappers and guardians."""
    here = socket.gethostname()
    local = _of_this_host(sights, members, here)
    found, named = len(local), [_bystander(holder, here) for holder in local]
    unseen = [f"{here}: {sights[-1].look.unseen}"] if sights and sights[-1].look.unseen else []
    for member in members:
        look = member.details.bystanders
        if look is None:
            if member.host != here:
                unseen.append(f"{member.host}: {format_id(SESSION, member.session_id)} did not look there")
            continue
        left = _unstopped([_holder(each) for each in look.named], [m for m in members if m.host == member.host])
        known = set(named)
        others = [one for one in (_bystander(holder, member.host) for holder in left) if one not in known]
        found += len(others) + max(0, look.found - len(look.named))
        named += others
        if look.unseen:
            unseen.append(f"{member.host}: {look.unseen}")
    places = tuple(dict.fromkeys(unseen))[:MAX_PLACES]
    bystanders = Bystanders(found, tuple(named[:MAX_NAMED]), places)
    return Found(bystanders, (*_hidden_notes(sights, members, here), *_named(bystanders)))


def refuse_bystanders(job: Job, bystanders: Bystanders) -> None:
    """Raises QUIESCE_REFUSED, with the names of the bystanders, if the settings say that they end a freeze."""
    if job.bench.settings.bystanders == "refuse" and bystanders.found:
        raise EngineError(
            ErrorCode.QUIESCE_REFUSED,
            f"{bystanders.found} processes that are no part of any session hold the live tree: "
            f"{'; '.join(_named(bystanders))}.",
            "Nothing was published and all agents run again. End these processes, move them out of the live tree, or "
            "run them under wvsctl agent run; then retry the task. WVS_BYSTANDERS=note only notes them.",
            retryable=False,
        )


def taken_away(bystanders: Bystanders) -> tuple[str, ...]:
    """Notes on the bystanders whose working directory goes away with the live tree that is replaced."""
    return tuple(
        f"the working directory of {one.pid} on {one.host} ({one.command}) was in the live tree that was replaced; "
        "what it writes there is lost: cd into the new one or start it again"
        for one in bystanders.named
        if any(how.startswith("working directory") for how in one.how)
    )


def _look(root: str) -> HostSight:
    return HostSight(holders_of(root, _MAX_HELD, {os.getpid()}), tuple(hidden_below(root)))


def _of_this_host(sights: Sequence[HostSight], members: Sequence[FreezeMember], here: str) -> list[Holder]:
    """The bystanders of all looks, each once. What only an earlier look saw in a session's cgroup has ended since."""
    seen: dict[int, Holder] = {}
    for index, sight in enumerate(sights):
        is_last = index == len(sights) - 1
        for holder in sight.look.holders:
            if is_last or not any("/wvs-sess_" in cgroup for cgroup in holder.cgroups):
                seen[holder.pid] = holder
    return _unstopped(list(seen.values()), members, here)


def _unstopped(holders: list[Holder], members: Sequence[FreezeMember], here: str | None = None) -> list[Holder]:
    """Those of one host's `holders` that no member stopped and that are no member's wrapper or guardian."""
    stopped = {holder.pid for holder in holders if any(_is_stopped(holder, member, here) for member in members)}
    above = {pid for holder in holders if holder.pid in stopped for pid in holder.ancestors}
    ids = {member.pid for member in members if member.pid is not None and here in (None, member.host)}
    inner = {member.pid for member in members if member.pid is not None}
    wrappers = {
        holder.pid: holder.cgroups
        for holder in holders
        if holder.pid in ids or (holder.pid in above and holder.inner_pid in inner)
    }
    return [
        holder
        for holder in holders
        if holder.pid not in stopped and holder.pid not in wrappers and not _is_guardian(holder, wrappers)
    ]


def _is_guardian(holder: Holder, wrappers: Mapping[int, tuple[str, ...]]) -> bool:
    """Whether it is a child of a wrapper in that one's cgroup, and holds nothing but its container's mount."""
    beside_wrapper = bool(holder.ancestors) and wrappers.get(holder.ancestors[0]) == holder.cgroups
    return beside_wrapper and all(how.startswith(MOUNTED) for how in holder.how)


def _is_stopped(holder: Holder, member: FreezeMember, here: str | None) -> bool:
    frozen = member.details.frozen
    name = frozen.name if frozen is not None else f"wvs-{format_id(SESSION, member.session_id)}"
    if any(_is_named(cgroup, name) for cgroup in holder.cgroups):
        return True
    # SIGSTOP and a program's own freeze stop the whole tree of processes below the session's process.
    is_tree = frozen is None or frozen.kind in ("sigstop", "program")
    is_same_host = here in (None, member.host)
    return is_tree and is_same_host and member.pid is not None and member.pid in holder.ancestors


def _is_named(cgroup: str, name: str) -> bool:
    """Whether the cgroup's path contains the frozen one's: as a part of the path, or a container's id in a part."""
    wanted = name.strip("/")
    if not wanted:
        return False
    return f"/{wanted}/" in f"{cgroup}/" or (len(wanted) >= _SHORTEST_PART and wanted in cgroup)


def _holder(seen: SeenProcess) -> Holder:
    return Holder(seen.pid, seen.command, seen.how, (seen.cgroup,), seen.ancestors, seen.pid)


def _bystander(holder: Holder, host: str) -> Bystander:
    return Bystander(holder.pid, holder.command, host, holder.how)


def _named(bystanders: Bystanders) -> Iterator[str]:
    for one in bystanders.named:
        yield f"bystander {one.pid} on {one.host}: {one.command} ({', '.join(one.how)})"
    if bystanders.found > len(bystanders.named):
        yield f"and {bystanders.found - len(bystanders.named)} more bystanders"


def _hidden_notes(sights: Sequence[HostSight], members: Sequence[FreezeMember], here: str) -> Iterable[str]:
    seen = [(here, place, kind) for sight in sights for place, kind in sight.hidden]
    seen += [(m.host, mount.place, mount.filesystem) for m in members for mount in m.details.hidden_mounts]
    return dict.fromkeys(
        f"not in the snapshot: {place}, where another filesystem ({kind}) is mounted on {host}"
        for host, place, kind in seen
    )
