"""`wvsctl audit`: it prints the events, and it detects and names every manipulation of the stored log."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.conftest import private_database
from tests.integration.eventlog.commanding import ORIGIN, activated, cancel, now, snapshot, write_path
from tests.integration.wvsctl.consoles import Result, Wvsctl, serving

from wvs.domain.commands import DisableWorkspace
from wvs.domain.ids import WORKSPACE, format_id
from wvs.eventlog.chain import GENESIS, next_hash
from wvs.postgres.pool import create_pool


class Audited:
    """A console, its service's database, and two workspaces in it: `one` with ten events, `two` with three."""

    def __init__(self, wvsctl: Wvsctl, database_url: str, one: UUID, two: UUID) -> None:
        self.wvsctl = wvsctl
        self.database_url = database_url
        self.ids = {"one": one, "two": two}

    @contextmanager
    def tampered(self, *statements: str) -> Iterator[None]:
        """Runs these statements on the log and restores it afterwards. `$one` and `$two` stand for the workspaces."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            tables = ("events", "streams", "workspaces")
            for table in tables:
                connection.execute(f"CREATE TABLE wvs.kept_{table} AS TABLE wvs.{table}".encode())
            try:
                for statement in statements:
                    text = statement.replace("$one", f"'{self.ids['one']}'").replace("$two", f"'{self.ids['two']}'")
                    connection.execute(text.encode())
                yield
            finally:
                for table in tables:
                    connection.execute(f"TRUNCATE wvs.{table}".encode())
                    connection.execute(f"INSERT INTO wvs.{table} SELECT * FROM wvs.kept_{table}".encode())
                    connection.execute(f"DROP TABLE wvs.kept_{table}".encode())


async def _past(database_url: str) -> tuple[UUID, UUID]:
    pool = await create_pool(database_url, application_name="wvs test", size=2)
    try:
        path = write_path(pool)
        one, two = await activated(path, "one"), await activated(path, "two")
        for _ in range(2):
            await cancel(path, one, await snapshot(path, one))
        await snapshot(path, one)
        await path.execute(one, DisableWorkspace("over"), at=now(), origin=ORIGIN)
        await path.close()
        return one, two
    finally:
        await pool.close()


@pytest.fixture(scope="module")
def audited(admin_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    directory = tmp_path_factory.mktemp("audit")
    with private_database(admin_url, template_database) as database_url:
        one, two = asyncio.run(_past(database_url))
        environment = {"WVS_DATABASE_URL": database_url, "WVS_VOLUME": str(directory / "volume")}
        with serving("api", "--port", "0", environment=environment, log=directory / "log") as url:
            yield Audited(Wvsctl(url), database_url, one, two)


EDIT = "UPDATE wvs.events SET state = convert_to(replace(convert_from(state, 'UTF8'), 'tester', 'nobody'), 'UTF8')"
COPY = """INSERT INTO wvs.events (originator_id, originator_version, topic, state, hash, occurred_at, actor, request_id,
    task_id, snapshot_id) SELECT originator_id, {version}, topic, state, {hash}, occurred_at, actor, request_id,
    task_id, snapshot_id FROM wvs.events WHERE originator_id = $one AND originator_version = 4"""


def move_versions(by: str, after: int) -> str:
    """A statement that moves the versions of `one` after a version."""
    changed = f"UPDATE wvs.events SET originator_version = originator_version {by}"
    return f"{changed} WHERE originator_id = $one AND originator_version > {after}"


# The manipulation, the version of `one` that a fault must name, and a part of the fault's text.
DAMAGES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "edited": ((f"{EDIT} WHERE originator_id = $one AND originator_version = 5",), 5, "was changed"),
    "edited with its column": (
        (f"{EDIT}, actor = 'nobody' WHERE originator_id = $one AND originator_version = 5",),
        5,
        "was changed",
    ),
    "renamed": (
        ("UPDATE wvs.events SET topic = 'task.retried.v1' WHERE originator_id = $one AND originator_version = 4",),
        4,
        "was changed",
    ),
    "edited in the column only": (
        ("UPDATE wvs.events SET actor = 'nobody' WHERE originator_id = $one AND originator_version = 6",),
        6,
        "the column was changed",
    ),
    "moved to another time": (
        ("UPDATE wvs.events SET occurred_at = now() WHERE originator_id = $one AND originator_version = 6",),
        6,
        "the column was changed",
    ),
    "given another hash": (
        ("UPDATE wvs.events SET hash = sha256('x') WHERE originator_id = $one AND originator_version = 3",),
        3,
        "was changed",
    ),
    "removed": (
        ("DELETE FROM wvs.events WHERE originator_id = $one AND originator_version = 5",),
        6,
        "missing: event 5",
    ),
    "removed and the rest moved up": (
        (
            "DELETE FROM wvs.events WHERE originator_id = $one AND originator_version = 5",
            move_versions("+ 1000", after=5),
            move_versions("- 1001", after=1000),
            "UPDATE wvs.streams SET version = version - 1 WHERE workspace_id = $one",
        ),
        5,
        "was changed",
    ),
    "inserted": (
        (
            move_versions("+ 1000", after=5),
            move_versions("- 999", after=1000),
            COPY.format(version=6, hash="sha256('forged')"),
            "UPDATE wvs.streams SET version = version + 1 WHERE workspace_id = $one",
        ),
        7,
        "event 6 was inserted",
    ),
    "inserted at the end": ((COPY.format(version=11, hash="sha256('forged')"),), 11, "was changed"),
    "reordered": (
        (
            "UPDATE wvs.events SET originator_version = 1000 WHERE originator_id = $one AND originator_version = 4",
            "UPDATE wvs.events SET originator_version = 4 WHERE originator_id = $one AND originator_version = 5",
            "UPDATE wvs.events SET originator_version = 5 WHERE originator_id = $one AND originator_version = 1000",
        ),
        4,
        "was changed",
    ),
    "reordered in the log": (
        (
            """UPDATE wvs.events e SET notification_id = -o.notification_id FROM wvs.events o
            WHERE e.originator_id = $one AND o.originator_id = $one
              AND (e.originator_version, o.originator_version) IN ((4, 6), (6, 4))""",
            "UPDATE wvs.events SET notification_id = -notification_id WHERE notification_id < 0",
        ),
        5,
        "the order was changed",
    ),
    "cut": (
        ("DELETE FROM wvs.events WHERE originator_id = $one AND originator_version >= 8",),
        8,
        "missing at the end",
    ),
    "cut to nothing": (("DELETE FROM wvs.events WHERE originator_id = $one",), 1, "missing at the end"),
    "without its head": (("DELETE FROM wvs.streams WHERE workspace_id = $one",), 10, "has no head"),
    "removed from the log with its head": (
        (
            "DELETE FROM wvs.events WHERE originator_id = $one",
            "DELETE FROM wvs.streams WHERE workspace_id = $one",
        ),
        0,
        "has no head",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("scope", ["all", "one"])
def test_a_manipulated_log_is_detected_and_the_event_is_named(audited: Audited, scope: str, damage: str) -> None:
    statements, version, text = DAMAGES[damage]
    if (scope, damage) == (
        "all",
        "inserted",
    ):  # the pass over the whole log reads in log order, in which the insertion is last
        version, text = 6, "the order was changed"
    chosen = () if scope == "all" else (format_id(WORKSPACE, audited.ids["one"]),)
    assert audited.wvsctl("audit", "verify", *chosen).code == 0
    with audited.tampered(*statements):
        result = audited.wvsctl("--json", "audit", "verify", *chosen)
        text_result = audited.wvsctl("audit", "verify", *chosen)
    assert result.code == text_result.code == 1
    assert result.document["intact"] is False
    found = [fault for fault in result.document["faults"] if fault["version"] == version and text in fault["what"]]
    assert found, result.document["faults"]
    assert {fault["workspace_id"] for fault in result.document["faults"]} == {format_id(WORKSPACE, audited.ids["one"])}
    assert found[0]["what"] in text_result.out
    assert "BROKEN" in text_result.out


def test_an_intact_log_is_reported_as_intact(audited: Audited) -> None:
    verdict = audited.wvsctl.json("audit", "verify")
    assert (verdict["intact"], verdict["events"], verdict["workspaces"]) == (True, 13, 2)
    assert "13 events in 2 chains, intact" in audited.wvsctl.ok("audit", "verify").out
    assert "10 events in 1 chain, intact" in audited.wvsctl.ok("audit", "verify", "one").out


def export(audited: Audited, path: Path, *options: str) -> Path:
    audited.wvsctl.ok("audit", "export", "-o", str(path), *options)
    return path


def rewrite_statements(audited: Audited) -> list[str]:
    """Statements that change the actor of event 4 and recompute all later hashes and the head: the chain is intact."""
    with psycopg.connect(audited.database_url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT originator_version, topic, state FROM wvs.events WHERE originator_id = %s ORDER BY 1",
            [audited.ids["one"]],
        ).fetchall()
    statements: list[str] = []
    previous = GENESIS
    for version, topic, state in rows:
        new = state.replace(b"tester", b"nobody") if version == 4 else state
        previous = next_hash(previous, audited.ids["one"], version, topic, new)
        statements.append(
            f"UPDATE wvs.events SET state = '\\x{new.hex()}', hash = '\\x{previous.hex()}' "
            f"WHERE originator_id = $one AND originator_version = {version}"
        )
    return [
        *statements,
        "UPDATE wvs.events SET actor = 'nobody' WHERE originator_id = $one AND originator_version = 4",
        f"UPDATE wvs.streams SET hash = '\\x{previous.hex()}' WHERE workspace_id = $one",
    ]


def test_an_export_reveals_a_rewritten_chain(audited: Audited, tmp_path: Path) -> None:
    kept = export(audited, tmp_path / "kept.jsonl")
    assert "compared with 13 events of the export" in audited.wvsctl.ok("audit", "verify", "--against", str(kept)).out
    with audited.tampered(*rewrite_statements(audited)):
        assert audited.wvsctl("audit", "verify").code == 0
        for chosen in ((), ("one",)):
            result = audited.wvsctl("--json", "audit", "verify", *chosen, "--against", str(kept))
            assert result.code == 1
            assert [fault["version"] for fault in result.document["faults"]] == [4, 5, 6, 7, 8, 9, 10]
            assert "rewritten" in result.document["faults"][0]["what"]


def test_an_export_reveals_events_that_were_cut_off_with_their_head(audited: Audited, tmp_path: Path) -> None:
    kept = export(audited, tmp_path / "kept.jsonl")
    cut = (
        "DELETE FROM wvs.events WHERE originator_id = $one AND originator_version > 7",
        """UPDATE wvs.streams s SET version = 7, hash = e.hash FROM wvs.events e
        WHERE s.workspace_id = $one AND e.originator_id = $one AND e.originator_version = 7""",
    )
    with audited.tampered(*cut):
        assert audited.wvsctl("audit", "verify").code == 0
        result = audited.wvsctl("--json", "audit", "verify", "--against", str(kept))
    assert result.code == 1
    assert [(fault["version"], "events 8 to 10" in fault["what"]) for fault in result.document["faults"]] == [(8, True)]


def test_an_export_reveals_a_workspace_that_was_removed_completely(audited: Audited, tmp_path: Path) -> None:
    kept = export(audited, tmp_path / "kept.jsonl")
    gone = [f"DELETE FROM wvs.{table} WHERE {key} = $two" for table, key in
            (("events", "originator_id"), ("streams", "workspace_id"), ("workspaces", "id"))]  # fmt: skip
    with audited.tampered(*gone):
        assert audited.wvsctl("audit", "verify").code == 0
        result = audited.wvsctl("--json", "audit", "verify", "--against", str(kept))
    assert result.code == 1
    assert result.document["faults"][0]["workspace_id"] == format_id(WORKSPACE, audited.ids["two"])


def edit_line(lines: list[str], number: int, change: Callable[[dict[str, Any]], None]) -> list[str]:
    document = json.loads(lines[number])
    change(document)
    return [*lines[:number], json.dumps(document, separators=(",", ":")), *lines[number + 1 :]]


def with_new_digest(lines: list[str]) -> list[str]:
    """The lines with a matching trailer, as a forger would write it."""
    digest = sha256("".join(f"{line}\n" for line in lines[:-1]).encode()).hexdigest()
    return edit_line(lines, len(lines) - 1, lambda it: it["end"].update(sha256=digest))


def verify_lines(path: Path, lines: list[str], *options: str) -> Result:
    """Verifies these lines with a console that can reach no service."""
    path.write_text("".join(f"{line}\n" for line in lines))
    return Wvsctl("http://127.0.0.1:1")("--json", "audit", "verify", "--file", str(path), *options)


def test_an_export_is_verified_without_service_and_database(audited: Audited, tmp_path: Path) -> None:
    lines = export(audited, tmp_path / "all.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 13 + 2 + 1
    verdict = verify_lines(tmp_path / "copy", lines)
    assert (verdict.code, verdict.document["events"], verdict.document["faults"]) == (0, 13, [])
    third = next(n for n, line in enumerate(lines) if '"version":3,' in line)
    name = json.loads(lines[third])["event"]["workspace_id"]

    def another_actor(document: dict[str, Any]) -> None:
        document["event"]["actor"] = "nobody"

    for forged in (edit_line(lines, third, another_actor), with_new_digest(edit_line(lines, third, another_actor))):
        faults = verify_lines(tmp_path / "copy", forged).document["faults"]
        assert (name, 3) in {(fault["workspace_id"], fault["version"]) for fault in faults}
    for forged, text in (
        ([*lines[:third], *lines[third + 1 :]], "removed or added"),
        (lines[:-1], "cut off"),
        ([*lines, lines[3]], "after the end"),
        ([*lines[:3], "{}", *lines[3:]], "cannot be read"),
        ([*lines[:3], lines[3][:-9], *lines[4:]], "cannot be read"),
        (with_new_digest([*lines[:-3], *lines[-2:]]), "has no head"),
    ):
        result = verify_lines(tmp_path / "copy", forged)
        assert result.code == 1
        assert any(text in fault["what"] for fault in result.document["faults"]), (text, result.document)


def test_a_signature_is_valid_only_for_its_key(audited: Audited, tmp_path: Path) -> None:
    for name, content in (("key", "correct horse battery staple\n"), ("other", "x" * 16), ("short", "x" * 15)):
        (tmp_path / name).write_text(content)
    lines = export(audited, tmp_path / "s.jsonl", "--sign-key", str(tmp_path / "key")).read_text().splitlines()
    assert verify_lines(tmp_path / "copy", lines, "--sign-key", str(tmp_path / "key")).code == 0
    assert verify_lines(tmp_path / "copy", lines).code == 0
    other = verify_lines(tmp_path / "copy", lines, "--sign-key", str(tmp_path / "other"))
    assert (other.code, "signature" in other.document["faults"][0]["what"]) == (1, True)
    unsigned = export(audited, tmp_path / "u.jsonl").read_text().splitlines()
    assert verify_lines(tmp_path / "copy", unsigned, "--sign-key", str(tmp_path / "key")).code == 1
    assert verify_lines(tmp_path / "copy", lines, "--sign-key", str(tmp_path / "short")).code == 2


def test_a_file_that_is_not_an_export_is_a_usage_error(audited: Audited, tmp_path: Path) -> None:
    assert verify_lines(tmp_path / "copy", ['{"items":[]}']).code == 2
    assert verify_lines(tmp_path / "copy", []).code == 2
    assert audited.wvsctl("audit", "verify", "--file", str(tmp_path / "none")).code == 1
    assert audited.wvsctl("audit", "verify", "one", "--file", str(tmp_path / "copy")).code == 2
    assert audited.wvsctl("audit", "verify", "--sign-key", str(tmp_path / "copy")).code == 2
    assert audited.wvsctl("audit", "export", "-o", str(tmp_path / "copy")).code == 2
    assert audited.wvsctl("audit", "verify", "none").code == 3


def test_a_broken_export_is_not_used_for_a_comparison(audited: Audited, tmp_path: Path) -> None:
    lines = export(audited, tmp_path / "all.jsonl").read_text().splitlines()
    (tmp_path / "copy").write_text("\n".join(lines[:-1]))
    result = audited.wvsctl("audit", "verify", "--against", str(tmp_path / "copy"))
    assert result.code == 1
    assert "itself not intact" in result.err


def test_the_log_shows_who_did_what_and_why_and_the_request(audited: Audited) -> None:
    everything = audited.wvsctl.ok("audit", "log").out
    assert everything.count("tester") == 13
    out = audited.wvsctl.ok("audit", "log", "one", "--type", "workspace.disabled.v1", "--since", "1h").out
    assert re.search(r"tester +disabled the workspace: over .*req-1", out)
    assert len(audited.wvsctl.json("audit", "log", "--by", "nobody")["items"]) == 0
    task = audited.wvsctl.json("audit", "log", "one", "--type", "task.cancelled.v1")["items"][0]["data"]["task_id"]
    of_task = audited.wvsctl.json("audit", "log", "--task", task)["items"]
    assert [event["type"] for event in of_task] == ["snapshot.requested.v1", "task.cancelled.v1"]
    lines = audited.wvsctl.ok("--json", "audit", "log", "one", "--all", "--limit", "2").out.splitlines()
    assert [json.loads(line)["version"] for line in lines] == list(range(1, 11))
    first = audited.wvsctl("audit", "log", "one", "--by", "tester", "--limit", "2")
    cursor = re.search(r"--cursor (\S+)", first.err)
    assert cursor is not None
    rest = audited.wvsctl.json("audit", "log", "one", "--by", "tester", "--cursor", cursor[1])
    assert [event["version"] for event in rest["items"]] == list(range(3, 11))
    assert audited.wvsctl("audit", "log", "--type", "no.such.v1").code == 2
    assert audited.wvsctl("audit", "log", "none").code == 3


def test_one_event_is_shown_with_its_request_and_its_result(audited: Audited) -> None:
    out = audited.wvsctl.ok("audit", "show", "one", "4").out
    for text in ("snapshot.requested.v1", "not verified", "req-1", "snapshot_create cancelled"):
        assert text in out
    assert audited.wvsctl.json("audit", "show", "one", "9")["data"] == {"reason": "over"}
    assert audited.wvsctl("audit", "show", "one", "11").code == 3


def test_a_workspace_is_shown_at_an_earlier_version(audited: Audited) -> None:
    out = audited.wvsctl.ok("audit", "at", "one", "--version", "4").out
    assert re.search(r"as of +event 4 of 10", out)
    assert re.search(r"state +active", out)
    assert re.search(r"snap_\S+ +creating", out)
    assert re.search(r"task_\S+ +snapshot_create +queued", out)
    assert audited.wvsctl.json("audit", "at", "one", "--time", "0s")["version"] == 10
    assert audited.wvsctl("audit", "at", "one", "--time", "1h").code == 3
    assert audited.wvsctl("audit", "at", "one", "--version", "11").code == 3
    assert audited.wvsctl("audit", "at", "one").code == 2
    assert audited.wvsctl("audit", "at", "one", "--version", "1", "--time", "1h").code == 2
