"""Cancel, the meter, and the memory of hard links."""

import os
from pathlib import Path

import pytest

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel, CloneProgress, Totals
from wvs.engines.errors import EngineError
from wvs.engines.trees.descent import TreePath
from wvs.engines.trees.hardlinks import HardLinks
from wvs.engines.trees.meter import Meter


def test_the_first_reason_to_cancel_is_kept() -> None:
    cancel = Cancel(deadline_s=0)
    cancel.request("by hand")
    cancel.request("again", ErrorCode.LEASE_LOST)
    with pytest.raises(EngineError, match="by hand") as raised:
        cancel.check()
    assert raised.value.code is ErrorCode.CANCELLED
    assert not raised.value.retryable


def test_a_deadline_ends_work_without_a_cancel() -> None:
    Cancel().check()
    Cancel(deadline_s=60).check()
    with pytest.raises(EngineError) as raised:
        Cancel(deadline_s=0).check()
    assert raised.value.code is ErrorCode.DEADLINE_EXCEEDED


def test_the_meter_reports_the_end_and_rarely_before() -> None:
    reports: list[CloneProgress] = []
    meter = Meter(reports.append, Totals(1000, 5000, 0, 0))
    for _ in range(1000):
        meter.add(1, 5)
    meter.report()
    assert reports[-1] == CloneProgress(1000, 5000, 1000, 5000)
    assert len(reports) < 10


def test_an_inode_is_forgotten_after_its_last_name(tmp_path: Path) -> None:
    (tmp_path / "first").write_text("content")
    for name in ("second", "third"):
        os.link(tmp_path / "first", tmp_path / name)
    status = (tmp_path / "first").stat()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "first").write_text("copied")
    root = os.open(tmp_path / "copy", os.O_RDONLY)
    links = HardLinks(root)

    assert not links.link(status, root, "first")
    links.record(status, TreePath(None, ""), "first")
    assert links.link(status, root, "second")
    assert links.knows(status)
    assert links.link(status, root, "third")
    assert not links.knows(status)
    os.close(root)
    assert (tmp_path / "copy" / "third").samefile(tmp_path / "copy" / "first")


def test_a_long_path_is_shown_short_and_printable() -> None:
    place = TreePath(None, "")
    for _ in range(500):
        place = TreePath(place, "directory")
    shown = place.shown("file\n\udcff")
    assert len(shown) < 320
    assert shown.isprintable()
    assert TreePath(None, "").shown() == "."
