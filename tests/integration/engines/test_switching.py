"""The path of the live tree: one for ever, whatever tree is brought there, on every engine."""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from tests.integration.engines.conftest import Bench, attempt, on
from tests.integration.engines.filesystems import Namespace, juicefs_again

from wvs.engines.paths import SWITCH, TREES
from wvs.engines.volume.opening import open_volume
from wvs.engines.volume.switching import Held, Stranger
from wvs.engines.volume.volume import Volume


def home(bench: Bench) -> Path:
    return Path(bench.volume.path) / bench.workspace


def switch(bench: Bench, name: str) -> Held | None:
    """Brings a tree to the path, as an executor does. Returns what came out, still in the slot."""
    held = bench.volume.take(bench.workspace, TREES, name)
    assert held is not None
    assert held.tree == name
    out = bench.volume.bring(bench.workspace, held.slot)
    bench.volume.make_link(bench.workspace)
    return out


def with_file(bench: Bench, content: str) -> str:
    name = bench.live()
    (bench.path(name) / "which").write_text(content)
    return name


def test_the_path_is_the_same_before_and_after_a_switch_for_every_look(bench: Bench) -> None:
    assert bench.volume.standing(bench.workspace) is None
    path = home(bench) / "live" / "root"
    assert str(path) == bench.volume.live_path(bench.workspace)
    for content in ("first", "second", "third"):
        name = with_file(bench, content)
        out = switch(bench, name)
        if out is not None:
            assert bench.volume.standing(bench.workspace) is None, "the switch has not ended"
            bench.volume.put_away(bench.workspace, out, obsolete=True)
        assert bench.volume.standing(bench.workspace) == name
        assert (path / "which").read_text() == (home(bench) / "current" / "which").read_text() == content
        for start in (path, home(bench) / "current"):
            seen = subprocess.run(["pwd", "-P"], cwd=start, capture_output=True, text=True, check=True).stdout.strip()
            assert seen == os.path.realpath(start) == str(path)
    assert os.readlink(home(bench) / "current") == "live/root"
    assert len(bench.volume.trash(bench.workspace)) == 2


def test_what_came_out_is_purged_under_its_own_name(bench: Bench) -> None:
    first, second = with_file(bench, "first"), with_file(bench, "second")
    switch(bench, first)
    out = switch(bench, second)
    assert out is not None
    assert out.tree == first
    bench.volume.put_away(bench.workspace, out, obsolete=True)
    assert bench.volume.trash(bench.workspace) == [first]
    bench.volume.purge(bench.workspace, first)
    assert bench.volume.trash(bench.workspace) == bench.volume.slots(bench.workspace) == []
    assert bench.volume.standing(bench.workspace) == second


def test_a_late_hand_exchanges_nothing_once_its_slot_was_taken_from_it(bench: Bench) -> None:
    first, second = with_file(bench, "first"), with_file(bench, "second")
    switch(bench, first)
    late = bench.volume.take(bench.workspace, TREES, second)
    assert late is not None
    taken = bench.volume.take(bench.workspace, SWITCH, late.slot)
    assert taken is not None
    assert taken.tree == second
    assert bench.volume.bring(bench.workspace, late.slot) is None
    assert bench.volume.live_tree(bench.workspace) == first
    out = bench.volume.bring(bench.workspace, taken.slot)
    assert bench.volume.bring(bench.workspace, late.slot) is None
    assert bench.volume.live_tree(bench.workspace) == second
    assert out is not None
    assert out.tree == first


def test_a_tree_is_found_wherever_a_switch_has_put_it(bench: Bench) -> None:
    name = with_file(bench, "first")
    bench.volume.admit_agents(bench.workspace, name)
    held = bench.volume.take(bench.workspace, TREES, name)
    assert held is not None
    assert bench.has_tree(name)
    bench.volume.bring(bench.workspace, held.slot)
    assert bench.has_tree(name)
    assert bench.volume.whole_trees(bench.workspace) == {name}
    clone = bench.clone(name)
    assert (bench.path(clone) / "which").read_text() == "first"


def test_a_tree_whose_maker_was_killed_before_it_wrote_the_name_gets_it_with_its_first_move(bench: Bench) -> None:
    name = bench.live()
    (bench.path(name).parent / "name").unlink()
    switch(bench, name)
    assert bench.volume.standing(bench.workspace) == name


@pytest.mark.parametrize("kind", ["a directory", "a file", "a link"])
def test_a_stranger_in_the_live_directorys_place_is_seen_and_moved_aside_whole(bench: Bench, kind: str) -> None:
    name = with_file(bench, "first")
    switch(bench, name)
    live = home(bench) / "live"
    live.rename(home(bench) / "aside")
    match kind:
        case "a directory":
            (live / "root").mkdir(parents=True)
            (live / "root" / "precious").touch()
        case "a file":
            live.touch()
        case _:
            live.symlink_to("aside")
    standing = bench.volume.standing(bench.workspace)
    assert isinstance(standing, Stranger)
    assert standing.kind.startswith(kind)
    (place,) = bench.volume.clear_path(bench.workspace)
    assert os.path.lexists(place)
    assert (kind != "a directory") or Path(place, "root", "precious").exists()
    (home(bench) / "aside").rename(live)
    assert bench.volume.standing(bench.workspace) == name


def test_a_live_tree_that_came_back_meanwhile_is_not_taken_for_a_stranger(bench: Bench) -> None:
    """Its hand looked, was stopped, and moves what is there only later."""
    name = with_file(bench, "first")
    switch(bench, name)
    held = bench.volume.take(bench.workspace, ".", "live")
    assert held is not None
    assert held.tree == name
    assert bench.volume.bring(bench.workspace, held.slot) is None
    assert bench.volume.standing(bench.workspace) == name


@pytest.mark.parametrize("target", ["trees/../../etc/root", "/etc", "trees/x/root", "live"])
def test_a_link_that_wvs_did_not_make_is_a_stranger(bench: Bench, target: str) -> None:
    switch(bench, bench.live())
    (home(bench) / "current").unlink()
    (home(bench) / "current").symlink_to(target)
    assert bench.volume.standing(bench.workspace) == Stranger(f"a link to {target!r}")


def test_a_root_that_its_owner_replaced_is_taken_as_the_path_shows_it_or_refused(bench: Bench) -> None:
    name = with_file(bench, "first")
    switch(bench, name)
    root = home(bench) / "live" / "root"
    shutil.rmtree(root)
    root.mkdir()
    (root / "which").write_text("replaced")
    if bench.volume.engine.name == "btrfs":
        for call in (lambda: bench.volume.stamp(bench.workspace, name), lambda: bench.clone(name)):
            error = attempt(call)
            assert error is not None
            assert "btrfs subvolume create" in error.hint
        return
    bench.volume.stamp(bench.workspace, name)
    assert (bench.path(bench.clone(name)) / "which").read_text() == "replaced"


@pytest.fixture(scope="session")
def second_mount(namespace: Namespace) -> Callable[[], Path]:
    return cache(lambda: juicefs_again(namespace))


@pytest.fixture
def elsewhere(bench: Bench, second_mount: Callable[[], Path]) -> Volume:
    """The same volume, as another host sees it."""
    return open_volume(str(second_mount() / Path(bench.volume.path).name))


@on("juicefs-on-juicefs", "copy-on-juicefs")
def test_another_host_sees_a_switch_at_once_although_it_has_cached_the_path(bench: Bench, elsewhere: Volume) -> None:
    """An executor that did not see it would fail the next snapshot for good: the live tree is nowhere."""
    first, second = with_file(bench, "first"), with_file(bench, "second")
    switch(bench, first)
    assert elsewhere.standing(bench.workspace) == first
    out = switch(bench, second)
    assert out is not None
    bench.volume.put_away(bench.workspace, out, obsolete=True)
    assert elsewhere.standing(bench.workspace) == second
    assert elsewhere.kind_of_root(bench.workspace, second) == "a directory"
    assert elsewhere.whole_trees(bench.workspace) == {second}


@on("juicefs-on-juicefs", "copy-on-juicefs")
def test_a_slot_is_known_by_what_it_holds_not_by_what_the_mount_has_cached(bench: Bench, elsewhere: Volume) -> None:
    """Otherwise the live tree would go to the trash under the name of the old one."""
    first, second = with_file(bench, "first"), with_file(bench, "second")
    switch(bench, first)
    held = bench.volume.take(bench.workspace, TREES, second)
    assert held is not None
    assert elsewhere.kind_of_root(bench.workspace, second) == "a directory", "the other host has looked into the slot"
    assert bench.volume.bring(bench.workspace, held.slot) == Held(held.slot, first)
    taken = elsewhere.take(bench.workspace, SWITCH, held.slot)
    assert taken is not None
    assert taken.tree == first
    assert elsewhere.live_tree(bench.workspace) == second
    elsewhere.put_away(bench.workspace, taken, obsolete=True)
    assert (home(bench) / "trash" / first / "root" / "which").read_text() == "first"
