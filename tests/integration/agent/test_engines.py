"""Snapshots of programs that never rest, on every engine's own filesystem: with the freeze, and without it.

`make test` takes a few of each. `make freeze` takes WVS_FREEZE_SNAPSHOTS (200) with the freeze and WVS_FREEZE_UNFROZEN
(60) without it, and prints the results.
"""

import asyncio
import os
import statistics
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.agent.conftest import Service, service_on
from tests.integration.agent.writing import __file__ as program
from tests.integration.agent.writing import broken
from tests.integration.engines import filesystems
from tests.integration.engines.filesystems import Namespace, Unavailable

from wvs.domain.states import TaskState
from wvs.engines.base import Engine, EngineName, Stamp
from wvs.engines.volume.opening import init_volume
from wvs.postgres.pool import Pool

SNAPSHOTS = int(os.environ.get("WVS_FREEZE_SNAPSHOTS", "3"))
UNFROZEN = int(os.environ.get("WVS_FREEZE_UNFROZEN", "3"))
TIMEOUT_S = 600 + 10 * (SNAPSHOTS + UNFROZEN)
BALLAST = 300
"""Number of additional files, which make a clone take longer."""

RecordProperty = Callable[[str, object], None]


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    made = Namespace(tmp_path_factory.mktemp("mounts"), "12g")
    yield made
    made.close()


MAKE: dict[EngineName, Callable[[Namespace], Path]] = {
    "copy": lambda namespace: filesystems.ext4(namespace, size_mb=2000),
    "reflink": lambda namespace: filesystems.xfs(namespace, size_mb=2000),
    "btrfs": lambda namespace: filesystems.btrfs(namespace, "btrfs", 2000),
    "juicefs": filesystems.juicefs,
}


Site = tuple[EngineName, Path]


@pytest.fixture(scope="module", params=MAKE)
def site(request: pytest.FixtureRequest, namespace: Namespace) -> Site:
    try:
        return request.param, MAKE[request.param](namespace)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
async def service(kernel_holds: None, site: Site, pool: Pool, database_url: str) -> AsyncIterator[Service]:
    engine, place = site
    volume = place / f"volume-{uuid.uuid4().hex[:8]}"
    volume.mkdir()
    init_volume(str(volume), uuid.uuid4(), engine)
    async with service_on(volume, pool, database_url) as made:
        (made.live / "ballast").mkdir()
        for number in range(BALLAST):
            (made.live / "ballast" / str(number)).write_bytes(number.to_bytes(4, "big") * 100)
        yield made


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The verdict of the stamps on each clone, in order."""
    recorded: list[str | None] = []
    real = Engine.torn

    def torn(self: Engine, before: Stamp, after: Stamp, clone: Stamp | None) -> str | None:
        recorded.append(real(self, before, after, clone))
        return recorded[-1]

    monkeypatch.setattr(Engine, "torn", torn)
    return recorded


@pytest.mark.timeout(TIMEOUT_S)
async def test_no_published_snapshot_breaks_an_invariant(
    service: Service, site: Site, tmp_path: Path, verdicts: list[str | None], record_property: RecordProperty
) -> None:
    wrapped = await service.run(sys.executable, program)
    assert await wrapped.line() == "ready"
    windows: list[float] = []
    counts: set[bytes] = set()
    for _ in range(SNAPSHOTS):
        await asyncio.sleep(0.05)
        snapshot_id, task_id = await service.platform.ask_for_snapshot(service.workspace_id)
        assert await service.platform.wait(service.workspace_id, task_id, 120) is TaskState.SUCCEEDED
        tree = await service.tree(snapshot_id)
        assert await breaches(tree, tmp_path) == []
        counts.add((tree / "first").read_bytes())
        certificate = (await service.document(snapshot_id))["certificate"]
        assert len(certificate["members"]) == 1
        windows.append(await window_s(service, snapshot_id))
        await service.platform.ask_for_drop(service.workspace_id, snapshot_id)
    assert len(counts) == SNAPSHOTS, "the program did not run between two snapshots"
    assert set(verdicts) == {None}, "the stamps raised a false alarm"
    median, worst = statistics.median(windows), max(windows)
    record_property(
        "summary",
        f"{site[0]}: {SNAPSHOTS} snapshots under the freeze, 0 broken, 0 false alarms of the stamps; "
        f"all agents frozen together for p50 {median * 1000:.0f} ms, at most {worst * 1000:.0f} ms",
    )


@pytest.mark.timeout(TIMEOUT_S)
async def test_without_the_freeze_every_broken_clone_is_caught_by_the_stamps(
    service: Service,
    site: Site,
    tmp_path: Path,
    verdicts: list[str | None],
    monkeypatch: pytest.MonkeyPatch,
    record_property: RecordProperty,
) -> None:
    """The program has no session, so it is never frozen. The verdict of the stamps is recorded and not acted on."""
    judge = Engine.torn
    monkeypatch.setattr(Engine, "torn", lambda *stamps: judge(*stamps) and None)
    free = await asyncio.create_subprocess_exec(
        sys.executable, program, cwd=service.live.resolve(), stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    found: Counter[tuple[bool, bool]] = Counter()
    failed = 0
    try:
        assert free.stdout is not None
        await free.stdout.readline()
        for _ in range(UNFROZEN):
            del verdicts[:]
            snapshot_id, task_id = await service.platform.ask_for_snapshot(service.workspace_id)
            if await service.platform.wait(service.workspace_id, task_id, 120) is not TaskState.SUCCEEDED:
                failed += 1  # a file vanished while it was cloned
                continue
            is_broken = bool(await breaches(await service.tree(snapshot_id), tmp_path))
            found[is_broken, verdicts[-1] is not None] += 1
            await service.platform.ask_for_drop(service.workspace_id, snapshot_id)
    finally:
        os.killpg(free.pid, 9)
        await free.wait()
    alarms = await alarms_at_rest(service, verdicts)
    torn = found[True, True] + found[True, False]
    record_property(
        "summary",
        f"{site[0]}: {UNFROZEN} snapshots without the freeze, {torn} broken, {found[True, True]} of them caught by "
        f"the stamps; {found[False, True]} more changed while they were cloned, {found[False, False]} did not, "
        f"{failed} failed; at rest {alarms} false alarms of {UNFROZEN}",
    )
    assert found[True, False] == 0, "the stamps accepted a broken clone"
    assert alarms == 0


async def alarms_at_rest(service: Service, verdicts: list[str | None]) -> int:
    del verdicts[:]
    for _ in range(UNFROZEN):
        snapshot_id, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
        await service.platform.ask_for_drop(service.workspace_id, snapshot_id)
    return sum(verdict is not None for verdict in verdicts)


async def breaches(tree: Path, tmp_path: Path) -> list[str]:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return await asyncio.to_thread(broken, tree, scratch)


async def window_s(service: Service, snapshot_id: uuid.UUID) -> float:
    """How long all members were frozen together, as recorded in the event."""
    query = "SELECT report ->> 'freeze_s' FROM wvs.snapshots WHERE id = $1"
    return float(await service.platform.pool.fetchval(query, snapshot_id))
