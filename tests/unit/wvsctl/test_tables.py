import io

import msgspec
import pytest

from wvs.cli.wvsctl.api.documents import WorkspaceDocument
from wvs.cli.wvsctl.output.screen import Screen
from wvs.cli.wvsctl.output.tables import WORKSPACES, TableWriter

WORKSPACE = msgspec.convert(
    {"id": "ws_" + "0" * 26, "name": "a", "state": "active", "created_at": "2026-11-23T20:05:33Z", "epoch": 3},
    WorkspaceDocument,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _written(out: io.StringIO, *pages: list[WorkspaceDocument]) -> list[str]:
    writer = TableWriter(Screen(as_json=False, out=out, err=io.StringIO()), WORKSPACES)
    for page in pages:
        writer.write(page)
    return out.getvalue().splitlines()


def test_a_pipe_gets_plain_aligned_columns() -> None:
    longer = msgspec.structs.replace(WORKSPACE, name="longer", labels={"team": "core"})
    assert _written(io.StringIO(), [WORKSPACE, longer]) == [
        "NAME    ID                             STATE   CURRENT  EPOCH  CREATED               LABELS",
        "a       ws_00000000000000000000000000  active  -            3  2026-11-23 20:05:33Z  -",
        "longer  ws_00000000000000000000000000  active  -            3  2026-11-23 20:05:33Z  team=core",
    ]


def test_a_list_has_one_header_with_many_pages_and_with_none() -> None:
    lines = _written(io.StringIO(), [WORKSPACE], [msgspec.structs.replace(WORKSPACE, name="much-longer")], [WORKSPACE])
    assert [line.split()[0] for line in lines] == ["NAME", "a", "much-longer", "a"]
    assert _written(io.StringIO(), []) == ["NAME  ID  STATE  CURRENT  EPOCH  CREATED  LABELS"]


def test_a_narrow_terminal_truncates_no_column_and_no_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    current = msgspec.structs.replace(WORKSPACE, current_snapshot_id="snap_" + "0" * 26)
    lines = _written(Terminal(), [current])
    assert len(lines) == 2
    assert all(f"{column.title}" in lines[0] for column in WORKSPACES)
    assert f"{current.id}  " in lines[1]
    assert f" {current.current_snapshot_id}  " in lines[1]


def test_terminal_codes_in_a_name_are_escaped() -> None:
    hostile = msgspec.structs.replace(WORKSPACE, labels={"x": "\x1b[31m[bold]"})
    assert "\\x1b[31m[bold]" in _written(io.StringIO(), [hostile])[1]
    assert "\x1b[31m[" not in "".join(_written(Terminal(), [hostile]))
