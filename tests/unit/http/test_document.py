"""The OpenAPI document is valid, and its examples are requests and answers that the service accepts and returns."""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import jsonschema_rs
import msgspec
import pytest
from litestar.routes import HTTPRoute
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from wvs.domain.errors import STATUS, ErrorCode
from wvs.http import wiring
from wvs.http.requests.strict_json import decode_strictly
from wvs.http.wiring import EXAMPLES


class Shown(NamedTuple):
    """An example and its schema."""

    where: str
    schema: Any
    value: Any


@cache
def document() -> dict[str, Any]:
    return wiring.document()


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    _, _, kind, name = value["$ref"].split("/")
    return document()["components"][kind][name]


def operations() -> Iterator[dict[str, Any]]:
    for item in document()["paths"].values():
        yield from item.values()


def examples_of(where: str, message: dict[str, Any]) -> Iterator[Shown]:
    for media_type, content in message["content"].items():
        for name, example in content.get("examples", {}).items():
            yield Shown(f"{where} {media_type} {name}", content["schema"], example["value"])


def shown() -> Iterator[Shown]:
    for operation in operations():
        where = operation["operationId"]
        if "requestBody" in operation:
            yield from examples_of(f"{where} request", operation["requestBody"])
        for status, answer in operation["responses"].items():
            yield from examples_of(f"{where} {status}", answer)
            for name, header in answer["headers"].items():
                if "example" in (declared := resolved(header)):
                    yield Shown(f"{where} {status} {name}", declared["schema"], declared["example"])
        for parameter in map(resolved, operation["parameters"]):
            if "example" in parameter:
                yield Shown(f"{where} {parameter['name']}", parameter["schema"], parameter["example"])


def faults(case: Shown) -> list[str]:
    schema = {"components": document()["components"], "allOf": [case.schema]}
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    return [f"{case.where}: {error.message}" for error in validator.iter_errors(case.value)]


def test_the_document_is_valid_openapi() -> None:
    assert [error.message for error in OPENAPI_31_VALIDATOR.iter_errors(document())] == []
    assert document()["openapi"].startswith("3.1.")


def test_every_example_fits_its_schema() -> None:
    cases = list(shown())
    assert len(cases) > 300
    assert [fault for case in cases for fault in faults(case)] == []


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ("WorkspaceView", {}),
        ("NewWorkspace", {"name": "-a"}),
        ("NewWorkspace", {"name": "a", "labels": {"k=": "v"}}),
        ("NewWorkspace", {"name": "a", "labels": {"k": "v" * 256}}),
        ("NewWorkspace", {"name": "a", "labels": {f"k{n}": "" for n in range(33)}}),
        ("NewWorkspace", {"name": "a", "colour": "red"}),
        ("NewSession", {"agent": "a", "host": "h", "pid": 0}),
        ("Frozen", {"kind": "frozen", "freeze": 1, "token": "t"}),
        ("Frozen", {"kind": "refused", "freeze": 1, "token": "t", "flush": "ok"}),
    ],
)
def test_a_value_that_the_service_refuses_or_never_returns_does_not_fit_its_schema(schema: str, value: Any) -> None:
    assert faults(Shown("", {"$ref": f"#/components/schemas/{schema}"}, value)) != []


def test_every_operation_has_examples_of_its_body_and_its_answers() -> None:
    bare: list[str] = []
    for operation in operations():
        name = operation["operationId"]
        messages = {status: answer for status, answer in operation["responses"].items() if status < "400"}
        messages |= {"request": operation["requestBody"]} if "requestBody" in operation else {}
        bare += [f"{name} {which}" for which, message in messages.items() if not list(examples_of("", message))]
    assert bare == [], "give these an example in its module of wvs.http.resources"
    assert set(EXAMPLES) == {operation["operationId"] for operation in operations()}


def test_every_parameter_of_an_example_is_declared() -> None:
    for operation in operations():
        declared = {resolved(parameter)["name"] for parameter in operation["parameters"]}
        assert set(EXAMPLES[operation["operationId"]].parameters) <= declared


def test_every_example_of_a_request_is_what_its_handler_decodes() -> None:
    handlers = {
        handler.operation_id: handler
        for route in wiring.bare_api().litestar.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
    }
    decoded = 0
    for operation in operations():
        name = operation["operationId"]
        for case in examples_of(name, operation.get("requestBody", {"content": {}})):
            field = handlers[name].parsed_data_field
            assert field is not None
            body = decode_strictly(msgspec.json.encode(case.value), field.annotation)
            assert body in EXAMPLES[name].bodies.values()
            decoded += 1
    assert decoded == sum(len(example.bodies) for example in EXAMPLES.values()) > 15


def test_a_user_interface_masks_every_secret() -> None:
    secrets = {"Registered": document()["components"]["schemas"]["Registered"]["properties"]["secret"]}
    for operation in operations():
        for parameter in map(resolved, operation["parameters"]):
            if "secret" in parameter["name"].lower():
                secrets[operation["operationId"]] = parameter["schema"]
    assert set(secrets) == {"Registered", "getDirective", "acknowledge", "endSession"}
    assert {schema.get("format") for schema in secrets.values()} == {"password"}


def test_every_problem_of_an_operation_is_shown_under_its_status() -> None:
    for operation in operations():
        for status, answer in operation["responses"].items():
            codes = list(answer["content"].get("application/problem+json", {}).get("examples", {}))
            assert (status >= "400") == bool(codes), (operation["operationId"], status)
            for code in codes:
                assert str(STATUS[ErrorCode(code)]) == status


def test_every_answer_declares_its_request_id_and_when_to_repeat() -> None:
    for operation in operations():
        for status, answer in operation["responses"].items():
            headers = {name: resolved(header) for name, header in answer["headers"].items()}
            assert headers["X-Request-Id"]["required"]
            assert ("Retry-After" in headers) >= (status in {"202", "429", "503"})
            if status in {"202", "429", "503"}:
                assert headers["Retry-After"]["required"]
            if status == "202":
                assert headers["Location"]["required"]
                assert not headers["Idempotent-Replayed"]["required"]
    current = document()["paths"]["/v1/workspaces/{workspace}/current"]
    assert current["get"]["responses"]["200"]["headers"]["ETag"]["required"]
    assert "Idempotent-Replayed" in current["put"]["responses"]["200"]["headers"]
    assert current["put"]["responses"]["409"]["headers"]["Retry-After"]["required"] is False


def test_a_key_is_required_where_a_missing_key_is_a_problem() -> None:
    required: dict[str, bool] = {}
    for operation in operations():
        for parameter in map(resolved, operation["parameters"]):
            if parameter["name"] == "Idempotency-Key":
                required[operation["operationId"]] = parameter["required"]
    assert {name for name, needed in required.items() if not needed} == {"disableWorkspace", "evictSession"}
    assert {"createWorkspace", "createSnapshot", "dropSnapshot", "setCurrent", "retryTask"} <= set(required)
