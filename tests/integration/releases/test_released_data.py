"""What every release wrote is migrated with its data, read as it was, and worked on: see tests/releases/README.md."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.releases.loading import (
    RELEASES,
    Loaded,
    Served,
    applied,
    differences,
    loaded_fixture,
    released,
    served_fixture,
)
from tests.integration.wvsctl.consoles import working
from tools.release_fixture.layout import CHECKSUMS, checksums, describe

import wvs
from wvs.postgres.migrate import migration_files

ROOT = RELEASES.parents[1]
TAMPER = """
UPDATE wvs.events SET state = convert_to(replace(convert_from(state, 'UTF8'), 'cli:release', 'cli:nobody!'), 'UTF8')
WHERE notification_id = (SELECT max(notification_id) FROM wvs.events WHERE topic = 'snapshot.requested.v1')
"""
AGE = "UPDATE wvs.lanes SET deadline_at = least(deadline_at, now() - interval '1 hour')"
"""Every fixture is soon older than the deadline of the task that it holds running; this makes a new one as old."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", params=released(), ids=lambda path: path.name)
def release(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def served(release: Path, admin_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The fixture behind an API, for tests that only read."""
    directory = tmp_path_factory.mktemp("release")
    with loaded_fixture(release, admin_url, directory) as loaded, served_fixture(loaded, directory) as served:
        yield served


@pytest.fixture
def own(release: Path, admin_url: str, tmp_path: Path) -> Iterator[Loaded]:
    """The fixture, for a test that changes it."""
    with loaded_fixture(release, admin_url, tmp_path) as loaded:
        yield loaded


def test_every_release_has_a_fixture() -> None:
    headings = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    final = [wvs.__version__] if re.fullmatch(r"\d+\.\d+\.\d+", wvs.__version__) else []
    missing = {*headings, *final} - {path.name for path in released()}
    assert not missing, f"run `make release-fixture` at these versions (tests/releases/README.md): {sorted(missing)}"


def test_the_files_are_as_they_were_released(release: Path) -> None:
    recorded = (release / CHECKSUMS).read_text()
    assert checksums(release) == recorded, "a fixture is never edited and never made again: restore its files"


def test_the_schema_is_migrated_from_the_releases_to_this_one(release: Path, served: Served) -> None:
    expected = served.loaded.expected
    assert expected.release == release.name
    assert applied(served.loaded) == list(migration_files())
    assert served.loaded.newly_applied == [name for name in migration_files() if name not in expected.migrations]
    assert served.loaded.execute("SELECT count(*) FROM wvs.events") == [(expected.events,)]


def test_every_answer_has_what_the_release_answered(served: Served) -> None:
    assert served.loaded.expected.answers
    found: list[str] = []
    for path, recorded in served.loaded.expected.answers.items():
        answer = served.client.get(path)
        assert answer.status_code == 200, (path, answer.text)
        found += [f"{path}{line}" for line in differences(served.loaded.here(recorded), answer.json())]
    assert found == []


def test_a_request_of_the_release_that_is_repeated_gets_its_answer(served: Served) -> None:
    assert served.loaded.expected.replays
    for asked in served.loaded.expected.replays:
        headers = {"idempotency-key": asked.key, "x-actor": "cli:release"}
        answer = served.client.request(asked.method, asked.path, json=asked.body, headers=headers)
        assert (answer.status_code, answer.headers.get("idempotent-replayed")) == (202, "true"), answer.text
        assert list(differences(served.loaded.here(asked.answer), answer.json())) == []
    assert served.loaded.execute("SELECT count(*) FROM wvs.events") == [(served.loaded.expected.events,)]


def test_the_read_models_match_the_log(served: Served) -> None:
    verified = served.loaded.wvs("projections", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_log_is_the_one_that_was_exported(served: Served) -> None:
    verdict = served.wvsctl.json("audit", "verify", "--against", str(served.loaded.export))
    assert (verdict["intact"], verdict["events"]) == (True, served.loaded.expected.events)


def test_the_volume_matches_the_log_and_its_trees_are_unchanged(served: Served) -> None:
    checked = served.loaded.wvs("volume", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    trees = served.loaded.trees
    assert trees
    assert {root: describe(served.loaded.volume / root) for root in trees} == trees


def test_a_fixture_with_one_changed_event_is_found(own: Loaded, tmp_path: Path) -> None:
    own.execute(TAMPER)
    with served_fixture(own, tmp_path) as served:
        verdict = served.wvsctl("--json", "audit", "verify", "--against", str(own.export))
    assert verdict.code == 1
    assert [fault for fault in verdict.document["faults"] if "was changed" in fault["what"]]


def test_an_export_with_one_changed_event_is_found(served: Served, tmp_path: Path) -> None:
    lines = served.loaded.export.read_text().splitlines(keepends=True)
    changed = tmp_path / "changed.jsonl"
    changed.write_text("".join(line.replace("cli:release", "cli:nobody!") for line in lines))
    assert changed.read_text() != served.loaded.export.read_text()
    assert served.wvsctl("audit", "verify", "--file", str(served.loaded.export)).code == 0
    assert served.wvsctl("audit", "verify", "--file", str(changed)).code == 1


def test_work_goes_on_in_the_workspaces_of_the_release(own: Loaded, tmp_path: Path) -> None:
    own.execute(AGE)
    with served_fixture(own, tmp_path) as served, working(own.environment, tmp_path / "executor.log"):
        work = _Work(served)
        work.finish_what_was_begun()
        for session in work.get("/v1/workspaces/{silent}/sessions")["items"]:
            served.wvsctl.ok("session", "evict", session["id"], "--reason", "of the release", "--yes")
        for name in ("archive", "crew", "silent", "veteran", "phoenix", "lost", "closed"):
            work.snapshot_switch_and_drop(name)
        work.retry_init_and_drops()
        verdict = served.wvsctl.json("audit", "verify", "--against", str(own.export))
        assert (verdict["intact"], verdict["events"] > own.expected.events) == (True, True)
    for command in (("projections", "verify"), ("volume", "check", "--repair"), ("volume", "check")):
        ended = own.wvs(*command)
        assert ended.returncode == 0 or command[-1] == "--repair", ended.stdout + ended.stderr


class _Work:
    """A client that goes on where those of the release ended."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._keys = 0

    def get(self, path: str) -> Any:
        return self._served.client.get(self._named(path)).raise_for_status().json()

    def run(self, method: str, path: str, body: Any = None) -> Any:
        """A write whose task succeeds."""
        self._keys += 1
        headers = {"idempotency-key": f"later-{self._keys}", "content-type": "application/json"}
        answer = self._served.client.request(method, self._named(path), json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        document = answer.json()
        self.finish(document.get("task", document)["id"])
        return document

    def finish(self, task: str) -> None:
        ended = self._ended(task)
        assert ended["state"] == "succeeded", ended

    def finish_what_was_begun(self) -> None:
        """Queued tasks run; the one whose executor died is repeated, although its deadline is long past."""
        begun = [asked.answer["task"]["id"] for asked in self._served.loaded.expected.replays]
        for task in begun:
            self.finish(task)

    def snapshot_switch_and_drop(self, name: str) -> None:
        """A new snapshot, a switch to it and, back on another one, its drop; the trees have the same content."""
        workspace = f"/v1/workspaces/{{{name}}}"
        keeping, leaving = (self.run("POST", f"{workspace}/snapshots", {})["snapshot"]["id"] for _ in range(2))
        home = self._served.loaded.volume / self._served.loaded.expected.workspaces[name]
        before = describe((home / "current").resolve())
        self.run("PUT", f"{workspace}/current", {"snapshot_id": leaving})
        self.run("PUT", f"{workspace}/current", {"snapshot_id": keeping})
        self.run("DELETE", f"{workspace}/snapshots/{leaving}")
        latest = self.get(f"{workspace}/history?at_version=1")["latest_version"]
        self._until_linked(home, self.get(f"{workspace}/history?at_version={latest}")["live_tree"])
        assert describe((home / "current").resolve()) == before
        assert self.get(f"{workspace}/snapshots/{leaving}")["state"] == "dropped"

    def retry_init_and_drops(self) -> None:
        """What had failed for good works once a person asks again."""
        self.run("POST", "/v1/workspaces/{stillborn}/retry-init")
        for name, state in (("archive", "drop_failed"), ("lost", "lost")):
            (found,) = self.get(f"/v1/workspaces/{{{name}}}/snapshots?state={state}")["items"]
            self.run("DELETE", f"/v1/workspaces/{{{name}}}/snapshots/{found['id']}")

    def _ended(self, task: str) -> Any:
        deadline = time.monotonic() + 60
        while (now := self.get(f"/v1/tasks/{task}"))["state"] in ("queued", "running"):
            assert time.monotonic() < deadline, now
            time.sleep(0.05)
        return now

    def _until_linked(self, home: Path, tree: str) -> None:
        deadline = time.monotonic() + 30
        while (home / "live" / "name").read_text().strip() != tree:
            assert time.monotonic() < deadline, f"{home}/live is not {tree}"
            time.sleep(0.05)

    def _named(self, path: str) -> str:
        return path.format_map(self._served.loaded.expected.workspaces)
