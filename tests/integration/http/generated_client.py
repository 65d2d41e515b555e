"""Calls every operation with a generated client: `generated_client.py GENERATOR DIRECTORY URL`.

It runs under the Python of the generators and prints the operations that it called, one a line. The API has the rows of
`contract.seeded`. An answer that is no success, or that the client cannot decode, ends it with a traceback.
"""

import importlib
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

Call = Callable[..., Any]


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


class PythonClient:
    """A client of openapi-python-client, which has a module for each operation."""

    def __init__(self, url: str) -> None:
        self._package = importlib.import_module("generated_by_openapi_python_client")
        self.models = importlib.import_module(f"{self._package.__name__}.models")
        self._client = importlib.import_module(f"{self._package.__name__}.client").Client(base_url=url)

    def call(self, operation: str, **parameters: Any) -> Any:
        answer = self._module(operation).sync_detailed(client=self._client, **parameters)
        assert 200 <= answer.status_code < 300, (operation, answer.status_code, answer.content)
        assert answer.parsed is not None, (operation, answer.content)
        return answer.parsed

    def stream(self) -> Iterator[str]:
        request = self._module("streamEvents")._get_kwargs(after="1:0")
        with self._client.get_httpx_client().stream(**request) as answer:
            assert answer.status_code == 200
            yield from answer.iter_text()

    def _module(self, operation: str) -> Any:
        tag = "service" if operation in SERVICE else "default"
        return importlib.import_module(f"{self._package.__name__}.api.{tag}.{snake(operation)}")


class Generator:
    """A client of openapi-generator, which has a class for each tag."""

    def __init__(self, url: str) -> None:
        package = importlib.import_module("generated_by_openapi_generator")
        self.models = package
        client = package.ApiClient(package.Configuration(host=url))
        self._default, self._service = package.DefaultApi(client), package.ServiceApi(client)

    def call(self, operation: str, *, body: Any = None, **parameters: Any) -> Any:
        if body is not None:
            name = "AcknowledgeRequest" if operation == "acknowledge" else type(body).__name__
            content = self.models.AcknowledgeRequest(body) if operation == "acknowledge" else body
            parameters[snake(name)] = content
        answer = self._method(snake(operation) + "_with_http_info")(**parameters)
        assert 200 <= answer.status_code < 300, (operation, answer)
        assert answer.data is not None, (operation, answer)
        return answer.data

    def stream(self) -> Iterator[str]:
        answer = self._method("stream_events_without_preload_content")(after="1:0")
        assert answer.status == 200
        for part in answer.stream():
            yield part.decode()

    def _method(self, name: str) -> Any:
        return getattr(self._default, name, None) or getattr(self._service, name)


SERVICE = ("getLiveness", "getReadiness", "getMetrics", "explainProblem")


def recorded(call: Call, called: set[str]) -> Call:
    def record(operation: str, **parameters: Any) -> Any:
        called.add(operation)
        return call(operation, **parameters)

    return record


def story(client: PythonClient | Generator) -> set[str]:
    called: set[str] = set()
    call, models = recorded(client.call, called), client.models

    def write(operation: str, **parameters: Any) -> Any:
        return call(operation, idempotency_key=str(uuid.uuid4()), **parameters)

    probes(call)
    workspaces(call, write, models)
    snapshots_and_tasks(call, write, models)
    log(call)
    sessions(call, models)
    called.add("streamEvents")
    client_stream, received = client.stream(), ""
    while "id: 1:1\ndata: " not in received:
        received += next(client_stream)
    return called


def probes(call: Call) -> None:
    assert call("getLiveness").status == "alive"
    assert call("getReadiness").status == "ready"
    assert "wvs_build_info" in call("getMetrics")
    assert call("explainProblem", code="SNAPSHOT_IN_USE").status == 409


def workspaces(call: Call, write: Call, models: Any) -> None:
    made = write("createWorkspace", body=models.NewWorkspace(name="generated"))
    assert made.workspace.state == "initializing"
    assert write("cancelTask", task=made.task.id).state == "cancelled"
    assert call("getWorkspace", workspace="generated").state == "init_failed"
    assert write("retryInit", workspace="generated").workspace.state == "initializing"
    assert "generated" in [
        row.name for row in call("listWorkspaces", state=models.WorkspaceState("initializing")).items
    ]
    # No key, no body, no media type.
    assert call("disableWorkspace", workspace="generated").state == "disabled"


def snapshots_and_tasks(call: Call, write: Call, models: Any) -> None:
    kept, used = (row.id for row in call("listSnapshots", workspace="one", state=models.SnapshotState("ready")).items)
    assert write("createSnapshot", workspace="one").snapshot.state == "creating"
    described = write(
        "createSnapshot", workspace="one", body=models.NewSnapshot(message="with a body"), prefer="wait=0"
    )
    assert described.snapshot.message == "with a body"
    assert call("getSnapshot", workspace="one", snapshot=kept).certificate.engine == "copy"
    assert call("getCurrent", workspace="one").epoch == 1
    assert write("setCurrent", workspace="one", body=models.NewCurrent(snapshot_id=used)).task.kind == "current_set"
    assert write("dropSnapshot", workspace="one", snapshot=kept).snapshot.state == "dropping"
    failed = next(row for row in call("listTasks", workspace="one", state=models.TaskState("failed")).items)
    assert call("getTask", task=failed.id).error.code == "CLONE_FAILED"
    assert write("retryTask", task=failed.id).state == "queued"


def log(call: Call) -> None:
    assert call("listEvents", limit=3).items[0].position == "1:1"
    of_one = call("listWorkspaceEvents", workspace="one", limit=1)
    assert call("getWorkspaceEvent", workspace="one", version=1).position == of_one.items[0].position
    assert call("getWorkspaceHistory", workspace="one", at_version=2).version == 2
    assert call("getWorkspaceChain", workspace="one").items
    assert call("listChainHeads").items
    assert call("listStoredEvents").items


def sessions(call: Call, models: Any) -> None:
    registered = []
    for pid in (1, 2):
        body = models.NewSession(agent="generated", host="h", pid=pid)
        registered.append(call("registerSession", workspace="two", body=body))
    first, second = (answer.session.id for answer in registered)
    secret = registered[0].secret
    if not isinstance(secret, str):  # openapi-generator wraps a value of the format password
        secret = secret.get_secret_value()
    own = {"session": first, "x_session_secret": secret}
    assert first in [row.id for row in call("listSessions", workspace="two").items]
    directive = call("getDirective", **own)
    assert directive.kind == "run"
    acknowledgement = models.Switched.from_dict({"kind": "switched", "epoch": directive.epoch})
    assert call("acknowledge", **own, body=acknowledgement).kind == "run"
    assert call("endSession", **own).state == "ended"
    assert call("evictSession", session=second).state == "evicted"


if __name__ == "__main__":
    generator, directory, url = sys.argv[1:]
    sys.path.insert(0, directory)
    client = {"openapi-python-client": PythonClient, "openapi-generator": Generator}[generator](url)
    sys.stdout.write("\n".join(story(client)))
