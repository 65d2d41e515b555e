"""`wvs volume upgrade` on the volumes that releases of layout 1 wrote, killed at each of its steps."""

import fcntl
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.integration.releases.loading import Loaded, loaded_fixture, released
from tools.release_fixture.layout import describe

from wvs.failpoints import OF_UPGRADES

UP_TO_DATE = "is up to date: layout 2"
REFUSED = "the volume has layout 1, this version of wvs supports 2"
ONCE = ("upgrade.started", "upgrade.finished")
STEPS = [(point, nth) for point in OF_UPGRADES for nth in (1, 3) if nth == 1 or point not in ONCE]

pytestmark = pytest.mark.timeout(300)


def layout_of(volume: Path) -> int:
    return json.loads((volume / ".wvs" / "volume.json").read_text())["layout"]


@pytest.fixture(scope="module")
def old(admin_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """The volume of a release of layout 1, not upgraded. Tests do not change it: see `own`."""
    release = next(path for path in released() if path.name == "0.1.0")
    with loaded_fixture(release, admin_url, tmp_path_factory.mktemp("old"), upgraded=False) as loaded:
        assert layout_of(loaded.volume) == 1
        yield loaded


@pytest.fixture
def own(old: Loaded, tmp_path: Path) -> Loaded:
    """The same database, and a copy of the volume."""
    return Loaded(old.expected, old.database_url, copied(old.volume, tmp_path / "volume"), old.export, [])


def copied(volume: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", volume, target], check=True)
    return target


def shape(volume: Path) -> dict[str, str]:
    """Everything on the volume but the service's own directory, whose files have a time and a lock."""
    return {name: line for name, line in describe(volume).items() if not name.startswith(".wvs")}


@pytest.fixture(scope="module")
def undisturbed(old: Loaded, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an upgrade makes of the volume that nobody interrupts."""
    volume = copied(old.volume, tmp_path_factory.mktemp("undisturbed") / "volume")
    done = Loaded(old.expected, old.database_url, volume, old.export, []).wvs("volume", "upgrade")
    assert done.returncode == 0, done.stderr
    return shape(volume)


def requires_whole(loaded: Loaded) -> None:
    """The layout is the new one, every tree has its content, and the check finds nothing."""
    assert layout_of(loaded.volume) == 2
    trees = loaded.trees
    assert sum(root.endswith("/live/root") for root in trees) == len(list(loaded.volume.glob("ws_*/live/root"))) > 5
    assert {root: describe(loaded.volume / root) for root in trees} == trees
    for current in loaded.volume.glob("ws_*/current"):
        assert str(current.readlink()) == "live/root"
    checked = loaded.wvs("volume", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(("point", "nth"), STEPS)
def test_an_upgrade_killed_at_each_step_ends_as_an_undisturbed_one(
    own: Loaded, undisturbed: dict[str, str], point: str, nth: int
) -> None:
    killed = own.wvs("volume", "upgrade", WVS_FAILPOINTS=f"{point}=kill@{nth}")
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    assert layout_of(own.volume) == (2 if point == "upgrade.finished" else 1)
    again = own.wvs("volume", "upgrade")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (UP_TO_DATE in again.stdout) == (point == "upgrade.finished")
    assert shape(own.volume) == undisturbed
    requires_whole(own)


def test_a_second_upgrade_says_that_the_volume_is_up_to_date(own: Loaded) -> None:
    assert own.wvs("volume", "upgrade").returncode == 0
    before = shape(own.volume)
    again = own.wvs("volume", "upgrade")
    assert (again.returncode, again.stdout) == (0, f"{own.volume} {UP_TO_DATE}\n")
    assert shape(own.volume) == before


@pytest.mark.parametrize("command", [("volume", "check"), ("volume", "rebind"), ("executor",), ("up", "--port", "0")])
def test_every_program_refuses_the_old_layout_and_names_the_command(own: Loaded, command: tuple[str, ...]) -> None:
    before = shape(own.volume)
    refused = own.wvs(*command)
    assert refused.returncode != 0
    assert REFUSED in refused.stdout + refused.stderr
    assert "wvs volume upgrade" in refused.stdout + refused.stderr
    assert shape(own.volume) == before


def test_a_newer_layout_is_refused(own: Loaded) -> None:
    identity = own.volume / ".wvs" / "volume.json"
    identity.write_text(json.dumps({**json.loads(identity.read_text()), "layout": 3}))
    refused = own.wvs("volume", "upgrade")
    assert refused.returncode == 1
    assert "layout 3" in refused.stderr
    assert "use the version of wvs that made the volume" in refused.stderr
    assert layout_of(own.volume) == 3


def a_live_workspace(loaded: Loaded, name: str = "archive") -> tuple[Path, str]:
    """The directory of a workspace, and the name of its live tree."""
    home = loaded.volume / loaded.expected.workspaces[name]
    return home, (home / "current").readlink().parts[1]


def test_a_link_that_lags_is_settled_as_the_log_says(own: Loaded) -> None:
    home, live = a_live_workspace(own)
    other = next(tree.name for tree in (home / "trees").iterdir() if tree.name != live)
    (home / "current").unlink()
    (home / "current").symlink_to(f"trees/{other}/root")
    (home / ".current.new").symlink_to("trees/left/root")
    done = own.wvs("volume", "upgrade")
    assert done.returncode == 0, done.stderr
    assert f"{home}/current led to {other}; PostgreSQL names {live} as the live tree" in done.stdout
    assert (home / "live" / "name").read_text() == f"{live}\n"
    assert not (home / ".current.new").is_symlink()
    requires_whole(own)


def test_a_stranger_at_the_path_is_left_and_named(own: Loaded) -> None:
    home, live = a_live_workspace(own)
    (home / "current").unlink()
    (home / "current").mkdir()
    (home / "current" / "precious").write_text("mine")
    done = own.wvs("volume", "upgrade")
    assert done.returncode == 0, done.stderr
    assert f"{home}/current is a directory, not the link of WVS; it was left there" in done.stdout
    assert (home / "current" / "precious").read_text() == "mine"
    assert (home / "live" / "name").read_text() == f"{live}\n"
    checked = own.wvs("volume", "check")
    assert (checked.returncode, checked.stdout.count("\n")) == (1, 2), checked.stdout


def test_a_missing_live_tree_is_named_and_stops_no_other(own: Loaded) -> None:
    home, live = a_live_workspace(own)
    shutil.rmtree(home / "trees" / live)
    gone, _ = a_live_workspace(own, "crew")
    shutil.rmtree(gone)
    done = own.wvs("volume", "upgrade")
    assert done.returncode == 0, done.stderr
    assert f"the live tree {live} of {home} is missing" in done.stdout
    assert f"the directory of {gone.name} is missing" in done.stdout
    assert layout_of(own.volume) == 2
    assert not (home / "live").exists()
    assert (own.volume / own.expected.workspaces["veteran"] / "live" / "root").is_dir()


def test_a_live_tree_that_the_old_release_replaced_between_two_runs_takes_its_place(own: Loaded) -> None:
    home, live = a_live_workspace(own)
    shutil.copytree(home / "trees" / live, home / "live", symlinks=True, ignore=lambda *_: ["pipe"])
    older = next(tree.name for tree in (home / "trees").iterdir() if tree.name != live)
    shutil.rmtree(home / "trees" / older)
    (home / "live" / "name").write_text(f"{older}\n")
    done = own.wvs("volume", "upgrade")
    assert done.returncode == 0, done.stderr
    assert (home / "live" / "name").read_text() == f"{live}\n"
    assert (home / "trees" / older / "name").read_text() == f"{older}\n"


def test_open_sessions_are_named(own: Loaded) -> None:
    (active,) = own.execute("SELECT count(*) FROM wvs.sessions WHERE state = 'active'")
    assert active[0] > 0
    assert f"{active[0]} sessions of agents are open" in own.wvs("volume", "upgrade").stdout


def test_an_executor_on_the_database_keeps_the_volume_as_it_is(own: Loaded) -> None:
    before = shape(own.volume)
    with psycopg.connect(own.database_url, application_name="wvs-executor"):
        refused = own.wvs("volume", "upgrade")
    assert refused.returncode == 1
    assert "Executors have 1 connections" in refused.stderr
    assert "Stop all executors" in refused.stderr
    assert shape(own.volume) == before


def test_two_upgrades_do_not_run_at_once(own: Loaded) -> None:
    before = shape(own.volume)
    with (own.volume / ".wvs" / "volume.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = own.wvs("volume", "upgrade")
    assert refused.returncode == 1
    assert "holds the lock of the volume" in refused.stderr
    assert shape(own.volume) == before


def test_the_volume_of_another_database_is_left_alone(own: Loaded) -> None:
    identity = own.volume / ".wvs" / "volume.json"
    other = "0190b8a0-0000-7000-8000-000000000000"
    identity.write_text(json.dumps({**json.loads(identity.read_text()), "id": other}))
    before = shape(own.volume)
    refused = own.wvs("volume", "upgrade")
    assert refused.returncode == 2, refused.stderr
    assert other in refused.stderr
    assert shape(own.volume) == before
