"""A real executor killed, or stopped past its lease, at every step between an effect on disk and one in Postgres.

`make test` tries a share; `make faults` tries all and prints how many points held.
"""

import asyncio
from uuid import UUID

import pytest
from tests.integration.executor.campaign import STORIES, Scene, points, story, violations
from tests.integration.executor.platform import Platform, eventually
from tests.integration.executor.processes import Executors

from wvs import failpoints
from wvs.domain.states import TaskState
from wvs.failpoints import NAMES


@pytest.fixture
def scene(platform: Platform, executors: Executors) -> Scene:
    return Scene(platform, executors)


@pytest.mark.parametrize("point", points("kill"))
async def test_a_crash_at(point: str, scene: Scene) -> None:
    asked, _ = await story(scene, point, "kill")
    scene.executors.start()
    assert await violations(scene, asked) == []
    await scene.platform.ready_snapshot(asked.workspace_id)


@pytest.mark.parametrize("point", points("stop"))
async def test_a_zombie_at(point: str, scene: Scene) -> None:
    """Stopped past its lease, another one ends the work, and then it goes on: nothing stale is seen anywhere."""
    asked, zombie = await story(scene, point, "stop")
    second = scene.executors.start()
    assert await violations(scene, asked) == []
    await eventually(lambda: lease_over(scene.platform, asked.workspace_id))
    zombie.go_on()
    await asyncio.sleep(0.7)
    assert await violations(scene, asked) == []
    assert zombie.alive
    second.kill()
    await scene.platform.ready_snapshot(asked.workspace_id)


async def lease_over(platform: Platform, workspace_id: UUID) -> bool:
    """Or never held: a sweeper holds no lane."""
    query = "SELECT lease_until < now() FROM wvs.lanes WHERE workspace_id = $1"
    over: bool | None = await platform.pool.fetchval(query, workspace_id)
    return over is not False


async def test_every_failpoint_is_on_the_way_of_some_operation(scene: Scene) -> None:
    """One executor passes them all without acting; a name that nobody passes would be a step that nobody tests."""
    await STORIES["sweep"](scene)
    failpoints.arm(",".join(f"{name}=sleep:0" for name in NAMES))
    async with scene.platform.running():
        platform = scene.platform
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "a").write_text("a")
        one, two = [await platform.ready_snapshot(workspace_id) for _ in range(2)]
        assert await platform.set_current(workspace_id, one) is TaskState.SUCCEEDED
        assert await platform.drop(workspace_id, two) is TaskState.SUCCEEDED
        before = failpoints.passes()
        (platform.live(workspace_id) / "a").unlink()
        tree = platform.home(workspace_id) / "trees" / platform.linked_tree(workspace_id) / "root"
        tree.rename(platform.volume / "aside")
        assert (await platform.snapshot(workspace_id))[1] is TaskState.FAILED
        (platform.volume / "aside").rename(tree)
        passed = failpoints.passes()
    assert [name for name in NAMES if not passed[name]] == []
    assert passed["fail.recorded"] == before["fail.recorded"] + 1
