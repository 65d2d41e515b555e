"""The look for bystanders: processes that hold the live tree and belong to nothing that a freeze stopped (design §7).

The executor looks at its own host before a freeze opens or after the agents have resumed: no look takes time while
agents are frozen. A process that is there before the freeze and after it is seen. One that has ended before the look is
not; the stamps find what it wrote. A session on another host looks there while the clone is made, and its
acknowledgement brings the result (ADR 0044).
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
    found, named, known = len(local), [_bystander(holder, here) for holder in local], set[Bystander]()
    known.update(named)
    stopped: dict[str, _Stopped] = {}
    unseen = [f"{here}: {sights[-1].look.unseen}"] if sights and sights[-1].look.unseen else []
    for member in members:
        look = member.details.bystanders
        if look is None:
            if member.host != here:
                unseen.append(f"{member.host}: {format_id(SESSION, member.session_id)} did not look there")
            continue
        if member.host not in stopped:
            stopped[member.host] = _Stopped([m for m in members if m.host == member.host])
        left = stopped[member.host].rest_of([_holder(each) for each in look.named])
        others = [one for one in (_bystander(holder, member.host) for holder in left) if one not in known]
        known.update(others)
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
    return _Stopped(members, here).rest_of(list(seen.values()))


class _Stopped:
    """What the members stopped, on the host `here` or, without it, on the host that all members share.

    It asks each process about all members at once: a freeze may have a thousand, and agents may be frozen meanwhile.
    """

    def __init__(self, members: Sequence[FreezeMember], here: str | None = None) -> None:
        ids = [m for m in members if m.pid is not None]
        local = [m for m in ids if here in (None, m.host)]
        self._names = {name for m in members if (name := _frozen_name(m).strip("/"))}
        self._trees = {m.pid for m in local if _stops_a_tree(m)}
        self._ids = {m.pid for m in local}
        self._inner_ids = {m.pid for m in ids}
        self._is_frozen: dict[str, bool] = {}

    def rest_of(self, holders: list[Holder]) -> list[Holder]:
        """Those of one host's `holders` that no member stopped and that are no member's wrapper or guardian."""
        stopped = {holder.pid for holder in holders if self._covers(holder)}
        above = {pid for holder in holders if holder.pid in stopped for pid in holder.ancestors}
        wrappers = {
            holder.pid: holder.cgroups
            for holder in holders
            if holder.pid in self._ids or (holder.pid in above and holder.inner_pid in self._inner_ids)
        }
        return [
            holder
            for holder in holders
            if holder.pid not in stopped and holder.pid not in wrappers and not _is_guardian(holder, wrappers)
        ]

    def _covers(self, holder: Holder) -> bool:
        return not self._trees.isdisjoint(holder.ancestors) or any(map(self._freezes, holder.cgroups))

    def _freezes(self, cgroup: str) -> bool:
        if cgroup not in self._is_frozen:
            parts = cgroup.split("/")
            self._is_frozen[cgroup] = not self._names.isdisjoint(parts) or any(
                _is_named(cgroup, name) for name in self._names
            )
        return self._is_frozen[cgroup]


def _is_guardian(holder: Holder, wrappers: Mapping[int, tuple[str, ...]]) -> bool:
    """Whether it is a child of a wrapper in that one's cgroup, and holds nothing but its container's mount."""
    beside_wrapper = bool(holder.ancestors) and wrappers.get(holder.ancestors[0]) == holder.cgroups
    return beside_wrapper and all(how.startswith(MOUNTED) for how in holder.how)


def _frozen_name(member: FreezeMember) -> str:
    frozen = member.details.frozen
    return frozen.name if frozen is not None else f"wvs-{format_id(SESSION, member.session_id)}"


def _stops_a_tree(member: FreezeMember) -> bool:
    """Whether SIGSTOP or a program's own freeze stops the whole tree of processes below the session's process."""
    frozen = member.details.frozen
    return frozen is None or frozen.kind in ("sigstop", "program")


def _is_named(cgroup: str, name: str) -> bool:
    """Whether the cgroup's path contains the frozen one's: as a part of the path, or a container's id in a part."""
    return f"/{name}/" in f"{cgroup}/" or (len(name) >= _SHORTEST_PART and name in cgroup)


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
