"""A real executor without root's rights, and files in the live tree that belong to root, as containers leave them."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from tests.integration.agent.conftest import serving
from tests.integration.engines import filesystems
from tests.integration.engines.filesystems import Namespace, Unavailable
from tests.integration.executor.platform import Platform, eventually
from tests.integration.executor.processes import Executors
from tests.integration.executor.tcp_proxy import TcpProxy
from tests.skips import need_root

from wvs.cli.wvs.volumes import run_check
from wvs.domain.commands import RetryTask
from wvs.domain.errors import ErrorCode
from wvs.domain.events import SnapshotCreated
from wvs.domain.ids import SNAPSHOT, WORKSPACE, format_id
from wvs.domain.states import TaskState
from wvs.engines.volume.opening import init_volume
from wvs.eventlog.codec import decode
from wvs.postgres.pool import Pool

_UID = 65534
_SWEPT_WITHIN_S = 100.0


@pytest.fixture(scope="module")
def reachable() -> Iterator[Namespace]:
    """Mounts that another user can reach: pytest's own directory is closed to others."""
    need_root("becoming another user")
    directory = Path(tempfile.mkdtemp(prefix="wvs-without-root-", dir="/tmp"))
    directory.chmod(0o755)
    made = Namespace(directory)
    made.enter()
    directory.chmod(0o755)
    yield made
    made.close()
    shutil.rmtree(directory)


@pytest.fixture(params=["copy", "reflink", "btrfs", "juicefs"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def mounts() -> dict[str, Path]:
    return {}


def _mount(namespace: Namespace, kind: str) -> Path:
    match kind:
        case "reflink":
            return filesystems.xfs(namespace)
        case "btrfs":
            make = ("mkfs.btrfs", "-q")
            return namespace.loop("btrfs", 400, make, "noatime,user_subvol_rm_allowed")
        case "juicefs":
            return filesystems.juicefs(namespace)
        case _:
            return namespace.directory


@pytest.fixture
def volume(reachable: Namespace, mounts: dict[str, Path], kind: str) -> Path:
    if kind not in mounts:
        try:
            mounts[kind] = _mount(reachable, kind)
        except Unavailable as error:
            pytest.skip(str(error))
    volume = mounts[kind] / f"{kind}-{uuid.uuid4().hex}"
    init_volume(str(volume), uuid.uuid4(), kind)
    for directory, _, files in os.walk(volume):
        for path in (directory, *(f"{directory}/{file}" for file in files)):
            os.chown(path, _UID, _UID)
    return volume


@pytest.fixture
async def platform(pool: Pool, database_url: str, volume: Path) -> AsyncIterator[Platform]:
    async with Platform(pool, database_url, volume).hinting() as platform:
        yield platform


@pytest.fixture
async def executors(platform: Platform, reachable: Namespace) -> AsyncIterator[Executors]:
    """They reach the database by TCP: its socket is in a directory that only its user can enter."""
    directory = Path(tempfile.mkdtemp(dir=reachable.directory))
    os.chown(directory, _UID, _UID)
    async with TcpProxy(platform.url).running() as proxy:
        started = Executors(proxy.url, platform.volume, directory, mounted_here=True, user=_UID)
        yield started
        started.close()


def leave(path: Path, mode: int, content: bytes = b"secret") -> None:
    """Writes a file as a container's root leaves it."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


async def freezes(platform: Platform, workspace_id: UUID) -> int:
    counted = await platform.pool.fetchval("SELECT count(*) FROM wvs.freezes WHERE workspace_id = $1", workspace_id)
    return int(counted)


async def notes(platform: Platform, workspace_id: UUID) -> tuple[str, ...]:
    """The notes of the workspace's latest snapshot."""
    query = """SELECT topic, state FROM wvs.events WHERE originator_id = $1 AND topic = 'snapshot.created.v1'
    ORDER BY originator_version DESC LIMIT 1"""
    row = await platform.pool.fetchrow(query, workspace_id)
    assert row is not None
    event, _ = decode(row["topic"], row["state"])
    assert isinstance(event, SnapshotCreated)
    return event.report.notes


async def tree_of(platform: Platform, workspace_id: UUID, snapshot_id: UUID) -> Path:
    tree = (await platform.workspace(workspace_id)).snapshots[snapshot_id].tree
    return platform.home(workspace_id) / "trees" / str(tree) / "root"


def metric(port: int, name: str) -> float | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), None)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("kind", ["copy", "reflink", "juicefs"], indirect=True)
async def test_what_the_service_may_not_read_is_named_before_anybody_is_frozen(
    platform: Platform, executors: Executors
) -> None:
    executors.start()
    workspace_id = await platform.create()
    live = platform.live(workspace_id)
    leave(live / "build" / "key", 0o600)
    leave(live / "build" / "log", 0o644)
    (live / "cache").mkdir(mode=0o700)
    _, task_id = await platform.ask_for_snapshot(workspace_id)
    assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
    error = await platform.error(task_id)
    assert error.code is ErrorCode.CLONE_FAILED
    assert "build/key (uid 0, mode 0600)" in error.detail
    assert "cache (uid 0, mode 0700)" in error.detail
    assert "build/log" not in error.detail
    assert f"uid {_UID}" in error.detail
    assert str(platform.home(workspace_id)) in error.detail
    assert "WVS_UNREADABLE=skip" in error.hint
    assert (await platform.task_row(task_id))["attempt"] == 1, "waiting changes no owner"
    assert await freezes(platform, workspace_id) == 0

    for path in (live / "build", *(live / "build").iterdir(), live / "cache"):
        os.chown(path, _UID, _UID)
    await platform.execute(workspace_id, RetryTask(task_id))
    assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED


@pytest.mark.parametrize("kind", ["copy", "reflink"], indirect=True)
async def test_snapshot_get_shows_which_owners_could_not_be_kept(platform: Platform, executors: Executors) -> None:
    executors.start()
    workspace_id = await platform.create()
    leave(platform.live(workspace_id) / "build" / "log", 0o644, b"readable")
    snapshot_id = await platform.ready_snapshot(workspace_id)
    tree = await tree_of(platform, workspace_id, snapshot_id)
    assert (tree / "build" / "log").stat().st_uid == _UID, "only CAP_CHOWN gives a file to another user"
    ids = (format_id(WORKSPACE, workspace_id), format_id(SNAPSHOT, snapshot_id))
    async with serving(platform) as client:
        argv = [sys.executable, "-m", "wvs.cli.wvsctl", "--url", str(client.base_url), "snapshot", "get", *ids]
        shown = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=True)
    assert re.search(r"^notes +owner: 2, first build/log$", shown.stdout, re.MULTILINE), shown.stdout


@pytest.mark.parametrize("kind", ["copy", "reflink"], indirect=True)
async def test_what_the_service_may_not_read_is_left_out_and_named_where_the_setting_says_so(
    platform: Platform, executors: Executors
) -> None:
    executors.start(unreadable="skip")
    workspace_id = await platform.create()
    live = platform.live(workspace_id)
    platform.fill(workspace_id, 1000)  # enough for the worker processes
    for number in range(25):
        leave(live / "build" / f"key{number:02}", 0o600)
    leave(live / "build" / "log", 0o644, b"readable")
    leave(live / "closed" / "below", 0o644)
    (live / "closed").chmod(0o700)
    (live / "empty").mkdir(mode=0o755)
    snapshot_id = await platform.ready_snapshot(workspace_id)
    tree = await tree_of(platform, workspace_id, snapshot_id)
    assert {path.name for path in tree.iterdir()} == {f"{n:05}" for n in range(1000)} | {"build", "empty"}
    assert {path.name: path.read_bytes() for path in (tree / "build").iterdir()} == {"log": b"readable"}
    [left_out] = [note for note in await notes(platform, workspace_id) if note.startswith("left out")]
    assert "may not read it: 26, first " in left_out
    assert re.search(r"build/key\d\d \(uid 0, mode 0600\)", left_out)
    assert left_out.count("(uid 0") == 20, "an event lasts for ever: its list has an end"


@pytest.mark.parametrize("kind", ["btrfs"], indirect=True)
async def test_a_snapshot_of_a_subvolume_keeps_what_the_service_may_not_read(
    platform: Platform, executors: Executors
) -> None:
    """The kernel copies the whole tree by one call, and removes one likewise (mount option user_subvol_rm_allowed)."""
    executors.start()
    workspace_id = await platform.create()
    live = platform.live(workspace_id)
    leave(live / "build" / "key", 0o600)
    leave(live / "closed" / "below", 0o600)
    (live / "closed").chmod(0o700)
    snapshot_id = await platform.ready_snapshot(workspace_id)
    for root in (await tree_of(platform, workspace_id, snapshot_id), live):
        (live / "build" / "key").write_bytes(b"changed")
        assert await platform.set_current(workspace_id, snapshot_id, reset=True) is TaskState.SUCCEEDED
        assert (root / "build" / "key").read_bytes() == b"secret"
        assert (root / "closed" / "below").stat().st_uid == 0
    other = await platform.ready_snapshot(workspace_id)
    assert await platform.drop(workspace_id, other) is TaskState.SUCCEEDED
    await platform.until_swept(workspace_id)


@pytest.mark.parametrize("kind", ["btrfs"], indirect=True)
async def test_a_subvolume_of_another_user_is_refused_before_anybody_is_frozen(
    platform: Platform, executors: Executors
) -> None:
    executors.start()
    workspace_id = await platform.create()
    os.chown(platform.live(workspace_id), 1234, 1234)
    _, task_id = await platform.ask_for_snapshot(workspace_id)
    assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
    error = await platform.error(task_id)
    assert "belongs to uid 1234" in error.detail
    assert await freezes(platform, workspace_id) == 0
    command = re.search(r"as root: (chown .*?), or", error.hint)
    assert command is not None
    await asyncio.to_thread(subprocess.run, ["sh", "-c", command[1]], check=True)
    await platform.execute(workspace_id, RetryTask(task_id))
    assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED


@pytest.mark.parametrize("kind", ["copy", "reflink", "juicefs"], indirect=True)
async def test_a_restore_away_from_directories_of_root_reports_what_stays_and_the_command_that_clears_it(
    platform: Platform, executors: Executors, capsys: pytest.CaptureFixture[str]
) -> None:
    first = executors.start()
    workspace_id = await platform.create()
    snapshot_id = await platform.ready_snapshot(workspace_id)
    home, old = platform.home(workspace_id), platform.live_tree(workspace_id)
    leave(platform.live(workspace_id) / "build" / "key", 0o600)
    assert await platform.set_current(workspace_id, snapshot_id, reset=True) is TaskState.SUCCEEDED
    assert not (platform.live(workspace_id) / "build").exists()
    said = await first.logged("tree_not_discarded")
    assert "root/build/key is in a directory of uid 0" in said["error"]
    first.kill()

    port = free_port()
    executors.start(executor_metrics_port=str(port))

    async def counted() -> bool:
        return metric(port, "wvs_volume_stuck_trees") == 1

    await eventually(counted, _SWEPT_WITHIN_S)
    settings = msgspec.structs.replace(platform.settings_with_volume(), database_url=platform.url)
    await asyncio.to_thread(run_check, settings, repair=False)
    printed = capsys.readouterr().out
    assert str(home / "trash" / old) in printed
    command = re.search(r"as root: (chattr .*?); then", printed)
    assert command is not None
    await asyncio.to_thread(subprocess.run, ["sh", "-c", command[1]], check=True)
    await platform.until_swept(workspace_id)
    await asyncio.to_thread(run_check, settings, repair=False)
    assert capsys.readouterr().out.endswith("the volume matches the log\n")
