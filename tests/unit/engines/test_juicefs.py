"""What the engine makes of the one line that `juicefs clone` prints when it fails."""

import pytest

from wvs.domain.errors import ErrorCode
from wvs.engines.base import TreeDir
from wvs.engines.juicefs import _refused


@pytest.mark.parametrize(
    ("said", "code", "retryable"),
    [
        ("clone /jfs/a: operation not permitted", ErrorCode.CLONE_FAILED, False),
        ("clone /jfs/a: file name too long", ErrorCode.CLONE_FAILED, False),
        ("clone /jfs/a: disk quota exceeded", ErrorCode.VOLUME_FULL, True),
        ("clone /jfs/a: input/output error", ErrorCode.VOLUME_UNAVAILABLE, True),
        ("metadata engine is not reachable", ErrorCode.CLONE_FAILED, True),
    ],
)
def test_the_text_of_an_errno_decides_code_cure_and_repetition(said: str, code: ErrorCode, retryable: bool) -> None:
    error = _refused(said, TreeDir(-1, "/jfs/vol/ws/trees/t"))
    assert (error.code, error.retryable) == (code, retryable)
    assert error.detail.startswith(f"juicefs clone of /jfs/vol/ws/trees/t/root: {said}")
    assert error.hint
