"""The parts that the examples of all operations share: the ids and the times of one workspace."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct


class Examples(Struct, frozen=True):
    """Examples of one operation: answers by status and bodies, each by a short name, and the values of parameters."""

    answers: Mapping[int, Mapping[str, Any]]
    bodies: Mapping[str, Any] = {}
    parameters: Mapping[str, Any] = {}


WORKSPACE_ID: Final = "ws_01kax3y0c8ecf8xg6d2dpjy7xq"
SNAPSHOT_ID: Final = "snap_01kax40tvae8ets4x7w4s1x6gp"
INIT_TASK_ID: Final = "task_01kax3y0c8ecf8xg6d5sn1ytfw"
CREATE_TASK_ID: Final = "task_01kax40tvae8ets4x7wv6n0q3c"
SET_TASK_ID: Final = "task_01kax42k3reyvb5tq9m5q9w3k8"
DROP_TASK_ID: Final = "task_01kax45b6mfrqt8xz1ebq3s7zn"
SESSION_ID: Final = "sess_01kax3z9f1f6ktv1n2k0h9r5da"
SESSION_SECRET: Final = "q5XkV1c0m9Zr3yT8bH2sJ6uN4wE7oA_dF1gK5iL9pQs"  # noqa: S105 - an example
IDEMPOTENCY_KEY: Final = "8f14e45f-ceea-467f-a3d2-b1c1b6d9a1b7"
LIVE_PATH: Final = f"/srv/wvs/{WORKSPACE_ID}/live/root"
TREE_NAME: Final = "01kax3y0c8ecf8xg6d5sn1ytfw.1"

OF_WORKSPACE: Final = {"workspace": "agent-7"}
KEYED_WRITE: Final = {**OF_WORKSPACE, "Idempotency-Key": IDEMPOTENCY_KEY}
OF_SESSION: Final = {"session": SESSION_ID}


def at(minute: int, second: int, millisecond: int = 0) -> datetime:
    """A time on the day of the examples."""
    return datetime(2026, 11, 23, 9, minute, second, millisecond * 1000, tzinfo=UTC)
