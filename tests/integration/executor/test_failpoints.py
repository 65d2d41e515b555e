"""A real executor killed, stopped past its lease, or cut off from its database, at every step between an effect on
disk and one in Postgres, on every engine.

`make test` tries a share; `make faults` tries all and prints how many points held.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.engines.conftest import Sites
from tests.integration.executor.campaign import STORIES, WITHOUT_MOUNT, Scene, points, story, violations
from tests.integration.executor.conftest import volume_of
from tests.integration.executor.platform import Platform, eventually
from tests.integration.executor.processes import Executors
from tests.integration.executor.tcp_proxy import TcpProxy

from wvs import failpoints
from wvs.domain.states import TaskState
from wvs.failpoints import NAMES
from wvs.postgres.pool import Pool

pytestmark = pytest.mark.timeout(400)

Place = tuple[str, str]
"""An engine on a filesystem, and a failpoint."""


def shown(place: Place) -> str:
    return "-".join(place)


@pytest.fixture
async def scene(
    request: pytest.FixtureRequest, sites: Sites, pool: Pool, database_url: str, tmp_path: Path
) -> AsyncIterator[Scene]:
    """A volume of the engine that the test's `place` names, and executors that see it."""
    kind, _ = request.node.callspec.params["place"]
    with volume_of(kind, sites, tmp_path) as volume:
        executors = Executors(database_url, volume, tmp_path, mounted_here=kind != WITHOUT_MOUNT)
        try:
            async with Platform(pool, database_url, volume).hinting() as platform:
                yield Scene(platform, executors)
        finally:
            executors.close()


@pytest.mark.parametrize("place", points("kill"), ids=shown)
async def test_a_crash_at(place: Place, scene: Scene) -> None:
    asked, _ = await story(scene, place[1], "kill")
    scene.executors.start()
    assert await violations(scene, asked) == []
    await scene.platform.ready_snapshot(asked.workspace_id)


@pytest.mark.parametrize("place", points("stop"), ids=shown)
async def test_a_zombie_at(place: Place, scene: Scene) -> None:
    """It is stopped past its lease, another executor finishes, then it resumes: nothing stale shows anywhere."""
    asked, zombie = await story(scene, place[1], "stop")
    second = scene.executors.start()
    assert await violations(scene, asked) == []
    await eventually(lambda: lease_over(scene.platform, asked.workspace_id))
    zombie.go_on()
    await asyncio.sleep(0.7)
    assert await violations(scene, asked) == []
    assert zombie.alive
    second.kill()
    await scene.platform.ready_snapshot(asked.workspace_id)


@pytest.mark.parametrize("place", points("cut"), ids=shown)
async def test_a_cut_at(place: Place, scene: Scene) -> None:
    """The executor loses its database at that step and keeps working; another one finishes; then it reconnects."""
    async with TcpProxy(scene.platform.url).running() as proxy:
        asked, first = await story(scene, place[1], "stop", database_url=proxy.url)
        proxy.cut()
        first.go_on()
        second = scene.executors.start()
        assert await violations(scene, asked) == []
        proxy.restore()
        await asyncio.sleep(0.7)
        assert await violations(scene, asked) == []
        assert first.alive
        second.kill()
        await scene.platform.ready_snapshot(asked.workspace_id)


async def lease_over(platform: Platform, workspace_id: UUID) -> bool:
    """True also if it never held one: a sweeper holds no lane."""
    query = "SELECT lease_until < now() FROM wvs.lanes WHERE workspace_id = $1"
    over: bool | None = await platform.pool.fetchval(query, workspace_id)
    return over is not False


async def _link_swept() -> bool:
    return failpoints.passes()["sweep.linked"] > 0


async def test_every_failpoint_is_on_the_way_of_some_operation(platform: Platform, executors: Executors) -> None:
    """One executor passes every failpoint; a name that it never passes would be an untested step."""
    scene = Scene(platform, executors)
    await STORIES["sweep"](scene)
    failpoints.arm(",".join(f"{name}=sleep:0" for name in NAMES))
    async with platform.running():
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "a").write_text("a")
        one, two = [await platform.ready_snapshot(workspace_id) for _ in range(2)]
        assert await platform.set_current(workspace_id, one) is TaskState.SUCCEEDED
        assert await platform.drop(workspace_id, two) is TaskState.SUCCEEDED
        before = failpoints.passes()
        (platform.live(workspace_id) / "a").unlink()
        tree = platform.home(workspace_id) / "trees" / platform.live_tree(workspace_id) / "root"
        tree.rename(platform.volume / "aside")
        assert (await platform.snapshot(workspace_id))[1] is TaskState.FAILED
        (platform.volume / "aside").rename(tree)
        await eventually(_link_swept)  # a sweep acts after its second look
        passed = failpoints.passes()
    assert [name for name in NAMES if not passed[name]] == []
    assert passed["fail.recorded"] == before["fail.recorded"] + 1
