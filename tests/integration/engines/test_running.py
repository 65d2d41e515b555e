"""A clone while it runs: progress, cancelling, deadlines, the journal."""

import os
import threading
import uuid
from pathlib import Path

import pytest
from tests.integration.engines.conftest import KINDS, Bench, Site, attempt, on
from tests.integration.engines.journals import read_journal

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel, CloneMark, CloneProgress
from wvs.engines.trees import meter
from wvs.engines.volume.journal import journal_file
from wvs.engines.volume.opening import init_volume, open_volume


def fill(root: Path, files: int, size: int) -> None:
    for number in range(files):
        directory = root / f"dir{number % 10}"
        directory.mkdir(exist_ok=True)
        (directory / f"file{number}").write_bytes(os.urandom(size))


def test_progress_grows_and_ends_at_the_totals(bench: Bench) -> None:
    source, target = bench.live(), bench.intend()
    fill(bench.path(source), 300, 2000)
    reports: list[CloneProgress] = []
    totals = bench.volume.stamp(bench.workspace, source).totals
    result = bench.volume.clone(bench.workspace, source, target, on_progress=reports.append, totals=totals)

    if result.files is None:
        return  # at once
    if bench.volume.engine.name == "juicefs":
        assert reports[0] == CloneProgress(0, 0, 300, 600_000), "its program reports nothing while it works"
    assert reports[-1] == CloneProgress(300, 600_000, 300, 600_000)
    assert [each.bytes_done for each in reports] == sorted(each.bytes_done for each in reports)


def test_progress_is_reported_inside_one_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "_INTERVAL_S", 0.0)
    init_volume(str(tmp_path / "volume"), uuid.uuid4(), "copy")
    bench = Bench(open_volume(str(tmp_path / "volume")))
    source, target = bench.live(), bench.intend()
    with (bench.path(source) / "long").open("wb") as file:
        for _ in range(5):
            file.write(bytes(64 << 20))
    reports: list[CloneProgress] = []
    bench.volume.clone(bench.workspace, source, target, on_progress=reports.append)
    assert reports[0].files_done == 0
    assert 0 < reports[0].bytes_done < 5 * (64 << 20)
    assert reports[-1].bytes_done == 5 * (64 << 20)


@pytest.mark.parametrize("workers", [1, 2, 4])
@on(*(kind for kind in KINDS if kind != "btrfs-on-btrfs"))
def test_a_clone_is_cancelled_at_the_next_file(bench: Bench, workers: int) -> None:
    """A btrfs snapshot has no middle."""
    bench.volume.engine.workers = workers
    source, target = bench.live(), bench.intend()
    fill(bench.path(source), 1000, 100)
    cancel = Cancel()
    threading.Timer(0.02, lambda: cancel.request("by a test")).start()
    before = open_descriptors()
    error = attempt(lambda: bench.volume.clone(bench.workspace, source, target, cancel=cancel))
    if error is None:
        pytest.skip("the clone was faster than the cancel")
    assert error.code is ErrorCode.CANCELLED
    assert error.detail == "by a test"
    assert open_descriptors() == before
    bench.purge(target)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_clone_cancelled_before_it_starts_makes_nothing(bench: Bench) -> None:
    source, target = bench.live(), bench.intend()
    cancel = Cancel()
    cancel.request()
    error = attempt(lambda: bench.volume.clone(bench.workspace, source, target, cancel=cancel))
    assert error is not None
    assert error.code is ErrorCode.CANCELLED
    assert not bench.has_tree(target)


def test_a_deadline_ends_cloning_and_removing(bench: Bench) -> None:
    source, target = bench.live(), bench.intend()
    fill(bench.path(source), 20, 10)
    error = attempt(lambda: bench.volume.clone(bench.workspace, source, target, cancel=Cancel(0)))
    assert error is not None
    assert error.code is ErrorCode.DEADLINE_EXCEEDED
    if bench.volume.engine.name == "btrfs":
        return
    bench.volume.retire(bench.workspace, source)
    error = attempt(lambda: bench.volume.purge(bench.workspace, source, Cancel(0)))
    assert error is not None
    assert error.code is ErrorCode.DEADLINE_EXCEEDED


def test_descriptors_and_threads_are_given_back(bench: Bench) -> None:
    source = bench.live()
    fill(bench.path(source), 200, 10)
    descriptors, threads = open_descriptors(), threading.active_count()
    for _ in range(3):
        bench.purge(bench.clone(source))
    bench.volume.stamp(bench.workspace, source)
    assert (open_descriptors(), threading.active_count()) == (descriptors, threads)


def test_the_engine_records_begin_and_end_of_every_clone(site: Site, volume_directory: Path, tmp_path: Path) -> None:
    init_volume(str(volume_directory), uuid.uuid4(), site.engine)
    journal = tmp_path / "journal"
    bench = Bench(open_volume(str(volume_directory), journal=journal_file(journal)))
    source, target, refused = bench.live(), bench.intend(), bench.live()
    bench.volume.clone(bench.workspace, source, target)
    assert attempt(lambda: bench.volume.clone(bench.workspace, source, refused)) is not None

    marks = read_journal(journal)
    assert [(mark.phase, mark.target) for mark in marks] == [
        ("begin", target),
        ("end", target),
        ("begin", refused),
        ("end", refused),
    ]
    assert all(isinstance(mark, CloneMark) and mark.workspace == bench.workspace for mark in marks)
    assert [mark.at_ns for mark in marks] == sorted(mark.at_ns for mark in marks)
    assert {mark.pid for mark in marks} == {os.getpid()}


def test_two_workspaces_are_cloned_side_by_side(bench: Bench) -> None:
    other = Bench(bench.volume)
    sources = {each: each.live() for each in (bench, other)}
    for each, source in sources.items():
        fill(each.path(source), 100, 500)
    failures: list[BaseException] = []

    def work(each: Bench) -> None:
        try:
            for _ in range(3):
                each.purge(each.clone(sources[each]))
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(each,)) for each in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
