"""Cancel, the meter, and the memory of hard links."""

import os
import threading
from pathlib import Path

import pytest

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel, Progress, Totals
from wvs.engines.descent import Place
from wvs.engines.errors import EngineError
from wvs.engines.hardlinks import HardLinks
from wvs.engines.meter import Meter


def test_the_first_reason_to_cancel_stands() -> None:
    cancel = Cancel(deadline_s=0)
    cancel.request("by hand")
    cancel.request("again", ErrorCode.LEASE_LOST)
    with pytest.raises(EngineError, match="by hand") as raised:
        cancel.check()
    assert raised.value.code is ErrorCode.CANCELLED
    assert not raised.value.retryable


def test_a_deadline_ends_what_nobody_cancels() -> None:
    Cancel().check()
    Cancel(deadline_s=60).check()
    with pytest.raises(EngineError) as raised:
        Cancel(deadline_s=0).check()
    assert raised.value.code is ErrorCode.DEADLINE_EXCEEDED


def test_the_meter_tells_the_end_and_little_before() -> None:
    told: list[Progress] = []
    meter = Meter(told.append, Totals(1000, 5000, 0, 0))
    for _ in range(1000):
        meter.add(1, 5)
    meter.end()
    assert told[-1] == Progress(1000, 5000, 1000, 5000)
    assert len(told) < 10


def status_with(tmp_path: Path, links: int) -> os.stat_result:
    (tmp_path / "0").touch()
    for number in range(1, links):
        os.link(tmp_path / "0", tmp_path / str(number))
    return (tmp_path / "0").stat()


def test_an_inode_is_forgotten_after_its_last_name(tmp_path: Path) -> None:
    status = status_with(tmp_path, 3)
    links = HardLinks(-1)
    root = Place(None, "")
    assert [links.claim(status, root, name)[0] for name in "abc"] == [True, False, False]
    assert links.claim(status, root, "another inode with the number")[0]


def test_who_waits_for_a_copy_gets_its_error(tmp_path: Path) -> None:
    status = status_with(tmp_path, 2)
    links = HardLinks(-1)
    _, copy = links.claim(status, Place(None, ""), "first")
    _, same = links.claim(status, Place(None, ""), "second")
    threading.Timer(0.02, lambda: copy.failed(OSError(28, "full"))).start()
    with pytest.raises(OSError, match="full"):
        links.link(same, -1, "second")


def test_a_long_path_is_shown_short_and_printable() -> None:
    place = Place(None, "")
    for _ in range(500):
        place = Place(place, "directory")
    shown = place.shown("file\n\udcff")
    assert len(shown) < 320
    assert shown.isprintable()
    assert Place(None, "").shown() == "."
