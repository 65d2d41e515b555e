"""One request is followed by grep: from the API's log through the queue to the executor's log and the log of events."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg

from wvs.domain.ids import TASK, parse_id
from wvs.engines.volume.opening import init_volume

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
REQUEST_ID = "trail-0001"
KEY = "key-of-the-trail"
_WAIT_S = 60


@contextlib.contextmanager
def _running(program: str, log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "wvs.cli.wvs", program],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=_WAIT_S)


def _grep(word: str, *logs: Path) -> list[dict[str, Any]]:
    """The lines that `grep` finds, decoded: each is a JSON object."""
    found = subprocess.run(["grep", "-hF", word, *map(str, logs)], capture_output=True, text=True, check=False)
    return [json.loads(line) for line in found.stdout.splitlines()]


def _grep_until(word: str, log: Path, event: str) -> list[dict[str, Any]]:
    """The same, once a line with `event` is among them; a log may lag behind an answer."""
    deadline = time.monotonic() + _WAIT_S
    lines = _grep(word, log)
    while event not in {line["event"] for line in lines}:
        assert time.monotonic() < deadline, (event, lines)
        time.sleep(0.05)
        lines = _grep(word, log)
    return lines


def test_grep_follows_one_request_from_api_to_executor_and_back(database_url: str, tmp_path: Path) -> None:
    init_volume(str(tmp_path / "volume"), uuid4(), "copy")
    environment = {
        "WVS_DATABASE_URL": database_url,
        "WVS_VOLUME": str(tmp_path / "volume"),
        "WVS_PORT": "0",
        "WVS_EXECUTOR_METRICS_PORT": "0",
        "WVS_LOG_FORMAT": "json",
    }
    api_log, executor_log = tmp_path / "api.log", tmp_path / "executor.log"
    with _running("api", api_log, environment) as api:
        assert api.stdout is not None
        url = api.stdout.readline().split()[-1]
        with httpx.Client(base_url=url, timeout=_WAIT_S) as client, psycopg.connect(database_url) as database:
            with _running("executor", tmp_path / "first.log", environment):
                made = _post(client, "/v1/workspaces", {"name": "one"}, {"prefer": "wait=60"})
                assert made["task"]["state"] == "succeeded"
            accepted = _post(client, "/v1/workspaces/one/snapshots", {"message": "followed"}, _HEADERS)
            task = accepted["task"]["id"]
            _the_queue_carries_the_request(database, task)
            with _running("executor", executor_log, environment):
                ended = client.get(f"/v1/tasks/{task}", headers={"prefer": "wait=60"}).json()
            assert ended["state"] == "succeeded", ended
            events = client.get("/v1/workspaces/one/events").json()["items"]
            _the_events_carry_the_request(database, events, task)

    (request,) = _grep_until(REQUEST_ID, api_log, "http.request")
    assert (request["status"], request["trace_id"], request["idempotency_key"]) == (202, TRACE_ID, KEY)
    work = _grep_until(REQUEST_ID, executor_log, "task_succeeded")
    assert {"task_started", "task_succeeded"} <= {line["event"] for line in work}
    for line in work:
        assert (line["task_id"], line["trace_id"], line["idempotency_key"]) == (task, TRACE_ID, KEY)
        assert line["workspace_id"] == made["workspace"]["id"]
        assert line["executor_id"]
        assert line["fence"] > 0
    assert {line["request_id"] for line in _grep(TRACE_ID, api_log, executor_log)} == {REQUEST_ID}


_HEADERS = {
    "x-request-id": REQUEST_ID,
    "idempotency-key": KEY,
    "traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01",
}


def _post(client: httpx.Client, path: str, body: Any, headers: dict[str, str]) -> Any:
    response = client.post(path, json=body, headers={"idempotency-key": uuid4().hex, **headers})
    assert response.status_code == 202, response.text
    assert response.headers["x-request-id"] == headers.get("x-request-id", response.headers["x-request-id"])
    return response.json()


def _the_queue_carries_the_request(database: psycopg.Connection, task: str) -> None:
    query = "SELECT request_id, idempotency_key, split_part(traceparent, '-', 2) FROM wvs.queue WHERE task_id = %s"
    assert database.execute(query, [parse_id(TASK, task)]).fetchall() == [(REQUEST_ID, KEY, TRACE_ID)]
    database.commit()


def _the_events_carry_the_request(database: psycopg.Connection, events: list[Any], task: str) -> None:
    mine = {event["type"]: event for event in events if event["request_id"] == REQUEST_ID}
    assert set(mine) == {"snapshot.requested.v1", "task.started.v1", "snapshot.created.v1"}
    assert not mine["snapshot.requested.v1"]["actor"].startswith("executor:")
    assert mine["snapshot.created.v1"]["actor"].startswith("executor:")
    assert {event["data"]["task_id"] for event in mine.values()} == {task}
    query = "SELECT convert_from(state, 'UTF8')::jsonb -> 'metadata' FROM wvs.events WHERE request_id = %s"
    for (metadata,) in database.execute(query, [REQUEST_ID]).fetchall():
        assert metadata["traceparent"].split("-")[1] == TRACE_ID
        assert metadata["idempotency_key"] == KEY
