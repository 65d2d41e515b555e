"""`wvsctl agent attach --cgroup`: what another program started, and no container."""

from tests.integration.agent.attaching import COUNTER, attach, attached, cgroup_of_others, counts_on, in_cgroup
from tests.integration.agent.conftest import Service

from wvs.domain.states import TaskState


async def test_a_cgroup_of_others_is_frozen_and_ends_at_a_switch(service: Service) -> None:
    with cgroup_of_others() as cgroup:
        (service.live / "n").write_text("1\n")
        await in_cgroup(cgroup, "sh", "-c", COUNTER, cwd=service.live)
        wrapped = await attached(service, "--cgroup", str(cgroup))
        for _ in range(3):
            await counts_on(service.live / "n")
            snapshot_id, state = await service.snapshot()
            assert state is TaskState.SUCCEEDED
        assert await service.attempts_failed() == []
        assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
        code, _, err = await wrapped.ended()
        assert code == 75
        assert f"cgroup {cgroup} was ended" in err
        assert (cgroup / "cgroup.procs").read_text() == ""
    assert await service.sessions() == []


async def test_the_session_of_a_cgroup_ends_with_its_last_process(service: Service) -> None:
    wait_for = "while [ ! -e {} ]; do sleep 0.02; done"
    with cgroup_of_others() as cgroup:
        script = f"({wait_for.format('second')}) & {wait_for.format('first')}"
        first = await in_cgroup(cgroup, "sh", "-c", script, cwd=service.live)
        wrapped = await attached(service, "--cgroup", str(cgroup))
        (service.live / "first").touch()
        await first.wait()
        _, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
        assert len(await service.sessions()) == 1
        (service.live / "second").touch()
        code, _, _ = await wrapped.ended()
        assert code == 0
    assert await service.sessions() == []


async def test_a_cgroup_is_refused_in_words_that_help(service: Service) -> None:
    with cgroup_of_others() as cgroup:
        inside = ("sh", "-c", f'echo 0 > {cgroup}/cgroup.procs && exec "$@"', "sh")
        cases = (
            (("--cgroup", str(cgroup)), (), "has no process"),
            (("--cgroup", str(cgroup)), inside, "start it outside"),
            (("--cgroup", str(cgroup), "--on-switch", "restart"), inside, "start it outside"),
            (("--cgroup", str(cgroup.parent)), (), "has no cgroup.freeze: the root cgroup"),
        )
        for options, before, words in cases:
            code, _, err = await (await attach(service, *options, before=before)).ended()
            assert code == 1
            assert words in err
        await in_cgroup(cgroup, "sleep", "1000", cwd=service.live)
        wrapped = await attach(service, "--cgroup", str(cgroup), "--on-switch", "restart")
        code, _, err = await wrapped.ended()
        assert code == 1
        assert "use --on-switch exit or signal:NAME" in err
    assert await service.sessions() == []
