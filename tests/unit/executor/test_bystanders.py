"""What is a bystander among the processes that a look found: nothing that a member stopped, nor its wrapper."""

import socket
import time
from uuid import UUID, uuid4

from wvs.domain.ids import SESSION, format_id
from wvs.domain.values import FrozenProcesses
from wvs.engines.holders import Holder, Look
from wvs.executor.bystanders import HostSight, bystanders_among
from wvs.quiesce.freezes import FreezeMember, MemberState
from wvs.quiesce.member_details import HostLook, MemberDetails, SeenProcess

HERE = socket.gethostname()
IN_TREE = ("working directory",)


def member(session: UUID, pid: int, host: str = HERE, look: HostLook | None = None) -> FreezeMember:
    frozen = FrozenProcesses("cgroup", f"wvs-{format_id(SESSION, session)}", 5)
    details = MemberDetails(frozen, look)
    return FreezeMember(session, MemberState.FROZEN, "t", "ok", None, "agent", host, False, pid, details)


def test_a_thousand_sessions_with_five_processes_each_are_told_apart_at_once() -> None:
    """The executor does this while agents are frozen."""
    members = [member(uuid4(), 10_000 + i) for i in range(1000)]
    holders = [
        Holder(100_000 + 5 * i + j, "sh", IN_TREE, (f"/user.slice/{one.details.frozen.name}",), (10_000 + i, 1), 0)
        for i, one in enumerate(members)
        if one.details.frozen is not None
        for j in range(5)
    ]
    vim = Holder(7, "vim", IN_TREE, ("/user.slice",), (1,), 7)
    sight = HostSight(Look(5001, (*holders, vim), ""))
    began = time.process_time()
    found = bystanders_among([sight, sight], members)
    assert time.process_time() - began < 0.5
    assert [one.pid for one in found.bystanders.named] == [7]


def test_fifty_processes_seen_by_each_of_five_hundred_sessions_of_a_host_are_told_apart_at_once() -> None:
    vim = [SeenProcess(pid, f"vim {pid}", IN_TREE, "/user.slice", (1,)) for pid in range(30)]
    agents = [SeenProcess(100 + pid, "sh", IN_TREE, "", (1_000,)) for pid in range(20)]
    members = [
        member(session, 10_000, "build-9", HostLook(50, (*vim, *(_in_cgroup(each, session) for each in agents))))
        for session in (uuid4() for _ in range(500))
    ]
    began = time.process_time()
    found = bystanders_among([], members)
    assert time.process_time() - began < 0.5
    assert found.bystanders.found == 30


def _in_cgroup(seen: SeenProcess, session: UUID) -> SeenProcess:
    return SeenProcess(seen.pid, seen.command, seen.how, f"/x/wvs-{format_id(SESSION, session)}", seen.ancestors)
