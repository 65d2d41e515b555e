"""The tables of docs/design.md and docs/reference.md agree with the code: neither changes without the other."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any

import pytest

from tests.unit.markdown_tables import ROOT, codes, constants, module_with, table
from wvs.domain.errors import STATUS, ErrorCode
from wvs.domain.policy import RETRY
from wvs.domain.states import SnapshotState, TaskState, WorkspaceState
from wvs.engines.choice import ENGINES
from wvs.eventlog.codec import TOPICS
from wvs.http.wiring import document
from wvs.settings import describe_settings
from wvs.telemetry.metrics import Metrics, Program

_METHODS = {"get", "post", "put", "delete", "patch"}


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    return document()


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    spec = spec_from_file_location("docs_architecture", ROOT / "docs/architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_states_are_those_of_the_domain():
    rows = table("design.md", "state", "what it means")
    written = {(cell.split()[0], state) for cell, _ in rows for state in codes(cell)}
    known = {"workspace": WorkspaceState, "snapshot": SnapshotState, "task": TaskState}
    assert written == {(machine, state) for machine, states in known.items() for state in states}


def test_error_codes_have_the_status_of_the_table():
    written = {code: status for status, cell in table("design.md", "status", "codes") for code in codes(cell)}
    assert written == {code: str(STATUS.get(code, "in `task.error` only")) for code in ErrorCode}


def test_events_are_those_that_can_be_stored():
    written = [name for cell, _ in table("design.md", "event", "what happened") for name in codes(cell)]
    assert sorted(written) == sorted(topic.rpartition(".v")[0] for topic in TOPICS.values())


def test_retries_are_those_of_the_policy():
    rows = table("design.md", "kind", "attempts", "first delay", "longest delay", "deadline of an attempt")
    assert {codes(kind)[0]: figures for kind, *figures in rows} == {
        kind: [str(policy.max_attempts), *(f"{s:g} s" for s in (policy.base_s, policy.cap_s, policy.deadline_s))]
        for kind, policy in RETRY.items()
    }


def test_engines_are_tried_in_the_order_of_the_table():
    assert [codes(row[0])[0] for row in table("design.md", "engine", "clone", "stamp")] == list(ENGINES)


def test_routes_and_their_query_parameters_are_those_of_the_api(openapi: dict[str, Any]):
    written = {codes(call)[0]: sorted(codes(query)) for call, query, _ in table("design.md", "call", "query", "answer")}
    assert written == {
        f"{method.upper()} {path}": sorted(_query_of(openapi, operation))
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
        if method in _METHODS
    }


def test_answers_have_a_status_of_the_api(openapi: dict[str, Any]):
    for call, _, answer in table("design.md", "call", "query", "answer"):
        method, path = codes(call)[0].split()
        responses = openapi["paths"][path][method.lower()]["responses"]
        assert {status for status in responses if status < "300"} == set(re.findall(r"\b2\d\d\b", answer)), call


def test_commands_of_the_operator_are_those_of_the_program():
    app = module_with('    name="wvs",\n').app
    written = {codes(cell)[0] for cell, _ in table("design.md", "command", "what it does")}
    assert written == {f"wvs {' '.join(words)}" for words in _commands(app)}


def test_commands_of_the_console_are_those_with_a_help_text():
    texts = [path.stem.split(".") for path in (ROOT / "src").rglob("help/wvsctl.*.txt")]
    leaves = [words[1:] for words in texts if not any(o[: len(words)] == words and o != words for o in texts)]
    written = [
        [command] if group == "(no group)" else [group, command]
        for group, cell in table("design.md", "group", "commands")
        for command in codes(cell)
    ]
    assert sorted(written) == sorted(leaves)


def test_exit_codes_are_those_of_the_console():
    written = [int(code) for code, _ in table("design.md", "exit code", "meaning")]
    assert written == [int(code) for code in module_with("class Exit(IntEnum):").Exit]


def test_settings_are_those_of_the_struct():
    rows = table("reference.md", "variable", "default", "meaning")
    assert [(codes(variable)[0], "".join(codes(default))) for variable, default, _ in rows] == [
        (setting.variable, setting.default) for setting in describe_settings()
    ]


def test_metrics_are_those_that_are_exposed():
    rows = table("reference.md", "metric", "labels", "exported by", "meaning")
    written = {codes(name)[0].removesuffix("_total"): tuple(codes(labels)) for name, labels, _, _ in rows}
    ours = {name: metric for name, metric in vars(Metrics()).items() if hasattr(metric, "_labelnames")}
    # Metrics keeps no reference to wvs_build_info: it is set once.
    exposed = {metric._name: metric._labelnames for metric in ours.values()} | {  # pyright: ignore[reportAttributeAccessIssue]
        "wvs_build_info": ("version", "python")
    }
    assert written == exposed


@pytest.mark.parametrize("program", Program)
def test_a_program_exports_the_metrics_that_the_table_gives_it(program: Program):
    rows = table("reference.md", "metric", "labels", "exported by", "meaning")
    written = {codes(name)[0] for name, _, by, _ in rows if by.lower() in (program, "both")}
    families = [family for family in Metrics(program).registry.collect() if family.name.startswith("wvs_")]
    assert written == {f"{it.name}_total" if it.type == "counter" else it.name for it in families}


def test_numbers_are_those_of_the_constants_that_own_them():
    known = constants()
    for constant, value, _ in table("reference.md", "constant", "value", "what it bounds"):
        assert known.get(codes(constant)[0]) == {float(value)}, constant


def test_tables_are_those_that_the_migrations_make():
    made: set[str] = set()
    for path in sorted((ROOT / "db/migrations").glob("*.sql")):
        up = path.read_text().partition("-- migrate:down")[0]
        made |= set(re.findall(r"^CREATE TABLE wvs\.(\w+)", up, re.MULTILINE))
        made -= set(re.findall(r"^DROP TABLE wvs\.(\w+)", up, re.MULTILINE))
    assert {codes(name)[0] for name, _, _ in table("design.md", "table", "one row for", "purpose")} == made


def test_the_picture_is_what_the_script_draws(drawing: ModuleType):
    assert (ROOT / "docs/architecture.svg").read_text() == drawing.picture(), "make docs draws it"


def test_the_page_explains_every_step_of_the_picture(drawing: ModuleType):
    steps = [number for number, _ in (*drawing.REQUEST_STEPS, *drawing.TASK_STEPS)]
    page = (ROOT / "docs/architecture.md").read_text()
    assert re.findall(r"^(\d+)\. ", page, re.MULTILINE) == steps
    assert {number for arrow in drawing.ARROWS for number in arrow.number.split()} == set(steps)


def test_a_table_that_is_missing_or_occurs_twice_is_an_error():
    with pytest.raises(LookupError, match="0 tables"):
        table("design.md", "nothing", "of", "this")


def _query_of(openapi: dict[str, Any], operation: dict[str, Any]) -> list[str]:
    named = openapi["components"].get("parameters", {})
    parameters = [named[p["$ref"].rpartition("/")[2]] if "$ref" in p else p for p in operation.get("parameters", ())]
    return [parameter["name"] for parameter in parameters if parameter["in"] == "query"]


def _commands(app: Any) -> list[list[str]]:
    found: list[list[str]] = []
    for name in app:
        if name.startswith("-"):
            continue
        inner = _commands(app[name])
        found += [[name, *words] for words in inner] or [[name]]
    return found
