"""Names, directories, and the trash: the base of the commit protocol."""

import errno
import fcntl
import os
import re
import stat
from pathlib import Path

import pytest
from tests.integration.engines.conftest import Bench

from wvs.domain.errors import ErrorCode
from wvs.engines.base import TreeOwner
from wvs.engines.errors import EngineError
from wvs.engines.volume import identity, layout
from wvs.engines.volume.identity import LogPosition
from wvs.engines.volume.layout import Retired
from wvs.engines.volume.opening import open_volume


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_intended_tree_is_closed_and_has_no_root(bench: Bench) -> None:
    name = bench.intend()
    assert mode_of(bench.path(name).parent) == 0o700
    assert not bench.has_tree(name)


def test_intending_a_name_twice_is_fatal(bench: Bench) -> None:
    name = bench.intend()
    with pytest.raises(EngineError) as raised:
        bench.volume.intend(bench.workspace, name)
    assert raised.value.code is ErrorCode.CLONE_FAILED
    assert not raised.value.retryable


def test_a_new_live_root_has_the_owner_and_mode_asked_for(bench: Bench) -> None:
    name = bench.intend()
    owner = TreeOwner(1234, 4321) if os.geteuid() == 0 else TreeOwner(os.geteuid(), os.getegid())
    old = os.umask(0o077)
    try:
        bench.volume.create_root(bench.workspace, name, owner, 0o2775)
    finally:
        os.umask(old)
    status = bench.path(name).stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (owner.uid, owner.gid, 0o2775)


def test_agents_are_admitted_to_a_live_tree_and_to_no_clone_of_it(bench: Bench) -> None:
    name = bench.live()
    bench.volume.admit_agents(bench.workspace, name)
    assert mode_of(bench.path(name).parent) == 0o711
    assert mode_of(bench.path(bench.clone(name)).parent) == 0o700


def test_others_pass_through_the_workspace_but_list_nothing(bench: Bench) -> None:
    workspace = Path(bench.volume.path) / bench.workspace
    assert mode_of(workspace) == 0o711
    assert mode_of(workspace / "trees") == 0o711
    assert mode_of(workspace / "trash") == 0o700
    assert mode_of(workspace / "switch") == 0o700
    assert mode_of(Path(bench.volume.path) / ".wvs") == 0o700


def test_a_tree_has_a_file_with_its_name_that_all_can_read(bench: Bench) -> None:
    name = bench.intend()
    file = bench.path(name).parent / "name"
    assert (file.read_text(), mode_of(file)) == (f"{name}\n", 0o644)


@pytest.mark.parametrize("another", ["01h455vb4pex5vsknk084sn02q.9", "01h455vb4pex5vsknk084sn02q.8"])
def test_a_directory_that_holds_another_tree_is_never_removed(bench: Bench, another: str) -> None:
    name = bench.live()
    (bench.path(name) / "kept").touch()
    (bench.path(name).parent / "name").write_text(another)
    assert not bench.has_tree(name)
    assert bench.volume.misnamed(bench.workspace) == [name]
    home = Path(bench.volume.path) / bench.workspace
    for place, call in (("trees", bench.volume.retire), ("trash", bench.volume.purge)):
        if place == "trash":
            (home / "trees" / name).rename(home / "trash" / name)
        with pytest.raises(EngineError) as raised:
            call(bench.workspace, name)
        assert raised.value.code is ErrorCode.REMOVE_FAILED
        assert another in raised.value.detail
        assert (home / place / name / "root" / "kept").exists()


def test_the_rest_of_a_removal_that_was_killed_is_removed(bench: Bench) -> None:
    name = bench.live()
    (bench.path(name) / "file").touch()
    bench.volume.retire(bench.workspace, name)
    (Path(bench.volume.path) / bench.workspace / "trash" / name / "name").unlink()
    bench.volume.purge(bench.workspace, name)
    assert bench.volume.trash(bench.workspace) == []


def test_a_volume_of_an_older_layout_is_refused_with_the_command_that_helps(bench: Bench) -> None:
    file = Path(bench.volume.path, ".wvs", "volume.json")
    for version, help_ in ((1, "wvs volume upgrade"), (3, "the version of wvs that made the volume")):
        file.write_text(re.sub(r'"layout": \d', f'"layout": {version}', file.read_text()))
        with pytest.raises(EngineError) as raised:
            open_volume(bench.volume.path)
        assert raised.value.code is ErrorCode.VOLUME_UNAVAILABLE
        assert help_ in raised.value.hint


def test_retiring_is_re_entrant(bench: Bench) -> None:
    name = bench.live()
    (bench.path(name) / "file").touch()
    assert bench.volume.retire(bench.workspace, name) is Retired.MOVED
    assert bench.volume.retire(bench.workspace, name) is Retired.ALREADY
    assert bench.volume.trash(bench.workspace) == [name]

    bench.volume.purge(bench.workspace, name)
    bench.volume.purge(bench.workspace, name)
    assert bench.volume.trash(bench.workspace) == []
    assert bench.volume.retire(bench.workspace, name) is Retired.ABSENT


def test_a_name_among_the_trees_and_in_the_trash_is_an_error(bench: Bench) -> None:
    name = bench.live()
    (Path(bench.volume.path) / bench.workspace / "trash" / name).mkdir()
    with pytest.raises(EngineError) as raised:
        bench.volume.retire(bench.workspace, name)
    assert raised.value.code is ErrorCode.REMOVE_FAILED
    assert bench.has_tree(name)


def test_an_intended_tree_without_a_root_can_be_retired_and_purged(bench: Bench) -> None:
    name = bench.intend()
    bench.purge(name)
    assert bench.volume.trees(bench.workspace) == []
    assert bench.volume.trash(bench.workspace) == []


def test_cloning_a_missing_tree_says_so(bench: Bench) -> None:
    target = bench.intend()
    for source in (bench.new_name(), bench.intend()):
        with pytest.raises(EngineError) as raised:
            bench.volume.clone(bench.workspace, source, target)
        assert raised.value.code is ErrorCode.TREE_MISSING


def test_cloning_onto_an_existing_root_is_refused(bench: Bench) -> None:
    source, target = bench.live(), bench.live()
    (bench.path(source) / "file").touch()
    with pytest.raises(EngineError) as raised:
        bench.volume.clone(bench.workspace, source, target)
    assert raised.value.code is ErrorCode.CLONE_FAILED
    assert os.listdir(bench.path(target)) == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "x\0", "01h455vb4pex5vsknk084sn02q", "01h455vb4pex5vsknk084sn02q.-1"]
)
def test_a_name_that_is_no_trees_name_never_becomes_a_path(bench: Bench, name: str) -> None:
    for call in (bench.volume.intend, bench.volume.retire, bench.volume.purge, bench.volume.kind_of_root):
        with pytest.raises(EngineError):
            call(bench.workspace, name)


@pytest.mark.parametrize("workspace", ["", "..", "ws_../x", ".wvs", "snap_01h455vb4pex5vsknk084sn02q"])
def test_a_name_that_is_no_workspace_never_becomes_a_path(bench: Bench, workspace: str) -> None:
    with pytest.raises(EngineError):
        bench.volume.create_workspace(workspace)
    with pytest.raises(EngineError):
        bench.volume.trees(workspace)


def test_making_a_workspace_twice_changes_nothing(bench: Bench) -> None:
    name = bench.live()
    bench.volume.create_workspace(bench.workspace)
    assert bench.volume.trees(bench.workspace) == [name]
    assert bench.volume.workspaces() == [bench.workspace]


@pytest.mark.parametrize("name", ["stranger", "new\nline", "\udcff", "n" * 255])
def test_a_directory_without_intent_is_moved_aside_whole(bench: Bench, name: str) -> None:
    trees = Path(bench.volume.path) / bench.workspace / "trees"
    for round_ in ("first", "second"):
        (trees / name).mkdir()
        (trees / name / "kept").write_text(round_)
        moved = Path(bench.volume.quarantine(bench.workspace, name))
        assert (moved / "kept").read_text() == round_
    assert bench.volume.trees(bench.workspace) == []


def test_the_position_seen_only_grows(bench: Bench) -> None:
    assert bench.volume.seen() is None
    for seen in (LogPosition(1, 10), LogPosition(1, 9), LogPosition(2, 1), LogPosition(1, 99)):
        bench.volume.record_seen(seen)
    assert bench.volume.seen() == LogPosition(2, 1)


def test_a_volume_is_bound_to_one_database_cluster(bench: Bench) -> None:
    bench.volume.bind("7000000000000000001")
    bench.volume.bind("7000000000000000001")
    with pytest.raises(EngineError) as raised:
        bench.volume.bind("7000000000000000002")
    assert raised.value.code is ErrorCode.VOLUME_UNAVAILABLE


def test_a_stopped_holder_of_the_volumes_lock_delays_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_LOCK_WAIT_S", 0.1)
    with Path(bench.volume.path, ".wvs", "volume.lock").open("w") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        bench.volume.record_seen(LogPosition(1, 10))
        assert bench.volume.seen() == LogPosition(1, 10)
        with pytest.raises(EngineError) as raised:
            bench.volume.bind("7000000000000000001")
        assert raised.value.code is ErrorCode.VOLUME_UNAVAILABLE
        assert "fuser" in raised.value.hint
    bench.volume.bind("7000000000000000001")
    with Path(bench.volume.path, ".wvs", "volume.lock").open("w") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        bench.volume.bind("7000000000000000001")


def test_what_a_killed_writer_of_the_identity_left_is_taken_away_later(bench: Bench) -> None:
    left, young = (Path(bench.volume.path, ".wvs", f".volume.json.new.{name}") for name in ("left", "young"))
    for path in (left, young):
        path.write_text('{"half')
    os.utime(left, (1, 1))
    bench.volume.record_seen(LogPosition(1, 10))
    assert not left.exists()
    assert young.exists(), "its writer may still be at work"


def test_the_space_is_that_of_the_filesystem(bench: Bench) -> None:
    space = bench.volume.space()
    assert 0 < space.free <= space.total


def test_a_name_for_which_there_is_no_block_is_a_link(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(layout, "_write_name", full)
    name = bench.live()
    assert os.readlink(bench.path(name).parent / "name") == name
    assert bench.has_tree(name)
