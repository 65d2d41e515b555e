import asyncio
import json
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from litestar import post
from litestar.params import JSONBody

from wvs.domain.errors import ErrorCode
from wvs.http.app import Api, create_app
from wvs.telemetry.metrics import Metrics

JSON = {"content-type": "application/json"}

MALFORMED_BODIES = [
    (b"", "", "required"),
    (b"{}", "name", "missing"),
    (b"null", "", "object"),
    (b"[]", "", "object"),
    (b"[" * 60_000, "", "object"),
    (b'{"name":', "", "JSON"),
    (b'{"name":"a"} trailing', "", "JSON"),
    (b"\xef\xbb\xbf{}", "", "byte order mark"),
    (b'{"name":"\xff"}', "", "JSON"),
    (b'{"name":"\\udc00"}', "", "JSON"),
    (b'{"name":"a\x00"}', "", "JSON"),
    (b'{"name":"\\u0000"}', "", "U+0000"),
    (b'{"name":"a","labels":{"k\\u0000":"v"}}', "", "U+0000"),
    (b'{"name":7}', "name", "int"),
    (b'{"name":null}', "name", "null"),
    (b'{"name":""}', "name", "length"),
    (b'{"name":"123456789"}', "name", "length"),
    (b'{"name":"a","count":"1"}', "count", "str"),
    (b'{"name":"a","count":1.5}', "count", "float"),
    (b'{"name":"a","labels":{"k":1}}', "labels[...]", "int"),
    (b'{"name":"a","colour":"red"}', "colour", "unknown"),
]


@pytest.mark.parametrize(("body", "field", "fault"), MALFORMED_BODIES)
async def test_a_malformed_body_is_refused_by_field_and_fault(
    client: httpx.AsyncClient, body: bytes, field: str, fault: str
) -> None:
    response = await client.post("/v1/things", content=body, headers=JSON)
    assert response.status_code == 400
    problem = response.json()
    assert problem["code"] == "INVALID_REQUEST"
    [error] = problem["errors"]
    assert error["in"] == "body"
    assert error["field"] == field
    assert fault in error["problem"]
    assert error["problem"] in problem["detail"]


async def test_an_escaped_backslash_before_u0000_is_not_a_nul(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/things", content=rb'{"name":"\\u0000"}', headers=JSON)
    assert response.status_code == 202
    assert response.json()["name"] == r"\u0000"


async def test_a_refusal_of_a_route_carries_its_fields(client: httpx.AsyncClient) -> None:
    response = await client.delete("/v1/things/t")
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["blockers"] == [{"kind": "current"}]
    assert problem["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=1.5", "limit"),
        ("limit=99999999999999999999999", "limit"),
        ("cursor=" + "x" * 1025, "cursor"),
        ("lmit=5", "lmit"),
        ("State=queued", "State"),
    ],
)
async def test_a_bad_or_unknown_query_parameter_is_named(client: httpx.AsyncClient, query: str, field: str) -> None:
    response = await client.get(f"/v1/things?{query}")
    assert response.status_code == 400
    [error] = response.json()["errors"]
    assert (error["in"], error["field"]) == ("query", field)


async def test_declared_query_parameters_reach_the_handler(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/things?limit=1000&state=queued&cursor=c")
    assert response.json() == {"limit": "1000", "state": "queued", "cursor": "c"}


@pytest.mark.parametrize("address", ["/v1/things?state=a%00", "/v1/things/a%00b/disable"])
async def test_a_nul_in_the_address_is_refused(client: httpx.AsyncClient, address: str) -> None:
    response = await client.post(address, headers=JSON)
    assert response.status_code == 400
    assert "U+0000" in response.json()["detail"]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/nothing", "/schema/nothing", "/schema/assets/x", "/problems/NOT_ONE"]
)
async def test_an_unrouted_path_is_a_problem_whatever_the_method(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await client.request(method, path)
    expected = {404, 405} if path.count("/") > 1 and method != "GET" else {404}
    assert response.status_code in expected
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
async def test_a_wrong_method_is_refused_with_the_allowed_methods_before_other_checks(
    client: httpx.AsyncClient, method: str
) -> None:
    response = await client.request(method, "/v1/things")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert response.json()["code"] == "METHOD_NOT_ALLOWED"


async def test_options_names_every_method_of_the_path(client: httpx.AsyncClient) -> None:
    response = await client.options("/v1/things")
    assert response.status_code == 204
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"


async def test_no_answer_allows_another_origin(client: httpx.AsyncClient) -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    for response in (
        await client.options("/v1/things", headers=headers),
        await client.get("/v1/things", headers=headers),
    ):
        assert not [name for name in response.headers if name.startswith("access-control-")]


async def test_the_context_reaches_the_handler(client: httpx.AsyncClient) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {
        "x-request-id": "mine-1",
        "traceparent": f"00-{trace}-b7ad6b7169203331-01",
        "x-actor": "alice",
        "idempotency-key": '"k"',
    }
    response = await client.post("/v1/things", json={"name": "a"}, headers=headers)
    assert response.json() == {
        "name": "a",
        "actor": "alice",
        "request_id": "mine-1",
        "trace_id": trace,
        "idempotency_key": '"k"',
    }
    assert response.headers["x-request-id"] == "mine-1"
    assert response.headers["traceparent"].startswith(f"00-{trace}-")
    assert response.headers["traceparent"] != headers["traceparent"]


async def test_a_malformed_actor_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/things", json={"name": "a"}, headers={"x-actor": "a b"})
    assert response.status_code == 400
    assert response.json()["errors"][0]["field"] == "X-Actor"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8787", "127.0.0.1@evil.example", ""])
async def test_another_host_is_refused_before_routing(client: httpx.AsyncClient, host: str) -> None:
    response = await client.get("/v1/crash", headers={"host": host})
    assert response.status_code == 400
    assert response.json()["errors"][0]["field"] == "Host"


async def test_a_crash_is_a_problem_without_details_and_one_log_line_with_them(
    client: httpx.AsyncClient, log: list[structlog.typing.EventDict]
) -> None:
    response = await client.get("/v1/crash", headers={"x-request-id": "crashed-1"})
    assert response.status_code == 500
    assert response.json()["code"] == "INTERNAL"
    assert "secret" not in response.text
    [crashed] = [entry for entry in log if entry["log_level"] == "error"]
    assert crashed["event"] == "http.crashed"
    assert crashed["request_id"] == "crashed-1"
    assert isinstance(crashed["exc_info"], ZeroDivisionError)


async def test_a_lost_database_is_503_with_retry_after(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/unavailable")
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["code"] == "UNAVAILABLE"
    assert "secret" not in response.text


async def test_every_request_is_one_line_under_its_route_template(
    client: httpx.AsyncClient, log: list[structlog.typing.EventDict]
) -> None:
    headers = {"x-request-id": "r-9", "idempotency-key": "k" * 300}
    response = await client.delete("/v1/things/an-id", headers=headers)
    [line] = [entry for entry in log if entry["event"] == "http.request"]
    assert line.pop("duration_ms") > 0
    assert line == {
        "event": "http.request",
        "log_level": "info",
        "request_id": "r-9",
        "trace_id": response.headers["traceparent"].split("-")[1],
        "route": "/v1/things/{thing_id}",
        "method": "DELETE",
        "status": 409,
        "code": "SNAPSHOT_IN_USE",
        "idempotency_key": "k" * 255,
    }


async def test_requests_and_refusals_are_counted_without_ids(client: httpx.AsyncClient, metrics: Metrics) -> None:
    await client.delete("/v1/things/secret-id")
    await client.delete("/v1/things/secret-id")
    await client.get("/v1/secret-id")
    await client.head("/v1/things")
    text = (await client.get("/metrics")).text
    assert 'wvs_http_requests_total{method="DELETE",route="/v1/things/{thing_id}",status="409"} 2.0' in text
    assert 'wvs_http_requests_total{method="GET",route="unrouted",status="404"} 1.0' in text
    assert 'wvs_http_requests_total{method="HEAD",route="/v1/things",status="200"} 1.0' in text
    assert 'wvs_http_request_duration_seconds_count{method="DELETE",route="/v1/things/{thing_id}"} 2.0' in text
    assert 'wvs_refusals_total{code="SNAPSHOT_IN_USE"} 2.0' in text
    assert 'wvs_refusals_total{code="ROUTE_NOT_FOUND"} 1.0' in text
    assert "secret-id" not in text


async def test_every_code_is_explained_under_the_type_of_its_problem(client: httpx.AsyncClient) -> None:
    problem = (await client.delete("/v1/things/t")).json()
    assert (await client.get(problem["type"])).json()["status"] == 409
    for code in ErrorCode:
        explained = (await client.get(f"/problems/{code}")).json()
        assert set(explained) == {"code", "status", "title", "meaning", "hint"}
        page = await client.get(f"/problems/{code}", headers={"accept": "text/html,*/*;q=0.8"})
        assert page.headers["content-type"].startswith("text/html")
        assert code in page.text


async def test_the_document_is_openapi_31_with_problems_on_every_operation(client: httpx.AsyncClient) -> None:
    document: dict[str, Any] = (await client.get("/schema/openapi.json")).json()
    assert document["openapi"].startswith("3.1.")
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert {"createThing", "listThings", "getLiveness", "getReadiness", "getMetrics", "explainProblem"} <= set(ids)
    assert len(ids) == len(set(ids))
    for operation in operations:
        failures = {status: answer for status, answer in operation["responses"].items() if status >= "4"}
        assert {"400", "404", "413", "415", "500", "503"} <= set(failures)
        for answer in failures.values():
            [media_type] = answer["content"]
            assert media_type == "application/problem+json"
            assert answer["content"][media_type]["examples"]


async def test_the_document_forbids_unknown_fields_and_null_parameters(client: httpx.AsyncClient) -> None:
    document: dict[str, Any] = (await client.get("/schema/openapi.json")).json()
    schemas = document["components"]["schemas"]
    [thing] = [schema for name, schema in schemas.items() if name.endswith("NewThing")]
    [why] = [schema for name, schema in schemas.items() if name.endswith("Why")]
    assert thing["additionalProperties"] is False
    assert why["additionalProperties"] is False
    assert thing["properties"]["labels"]["additionalProperties"] == {"type": "string"}
    [problem] = [schema for name, schema in schemas.items() if name.endswith("ProblemDocument")]
    assert "additionalProperties" not in problem
    declared = document["paths"]["/v1/things"]["get"]["parameters"]
    parameters = {parameter["name"]: parameter for parameter in declared if "name" in parameter}
    assert parameters["state"]["schema"] == {"type": "string"}
    assert parameters["cursor"]["schema"]["type"] == "string"
    assert parameters["cursor"]["schema"]["maxLength"] == 1024
    assert not any(parameter["required"] for parameter in parameters.values())


def test_a_body_that_accepts_unknown_fields_cannot_be_served() -> None:
    class Inner(msgspec.Struct):
        value: int

    class Closed(msgspec.Struct, forbid_unknown_fields=True):
        inner: dict[str, list[Inner]]

    @post("/v1/open", signature_types=[Closed])
    async def open_body(data: JSONBody[Closed]) -> None:
        """Never called."""

    async def ready() -> list[str]:
        return []

    with pytest.raises(TypeError, match="open_body: Inner must forbid unknown fields"):
        create_app(route_handlers=[open_body], readiness=ready, draining=asyncio.Event(), metrics=Metrics())


async def test_the_schema_page_loads_nothing_from_other_hosts(client: httpx.AsyncClient) -> None:
    page = await client.get("/schema")
    assert page.headers["content-type"].startswith("text/html")
    assert "//" not in page.text.replace("<!doctype html>", "")
    for name in ("swagger-ui.css", "swagger-ui-bundle.js"):
        assert f"/schema/assets/{name}" in page.text
        assert len((await client.get(f"/schema/assets/{name}")).content) > 10_000


async def test_alive_does_not_depend_on_ready(client: httpx.AsyncClient, api: Api, readiness: Any) -> None:
    assert (await client.get("/readyz")).json() == {"status": "ready", "waiting_for": None, "warnings": []}
    readiness.reasons = ["the database cannot be reached"]
    response = await client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["reasons"] == ["the database cannot be reached"]
    assert response.headers["retry-after"]
    readiness.reasons = RuntimeError("password=secret")
    response = await client.get("/readyz")
    assert response.status_code == 503
    assert "secret" not in response.text
    readiness.reasons = ()
    api.draining.set()
    assert (await client.get("/readyz")).json()["reasons"] == ["the service is draining"]
    assert (await client.get("/livez")).json() == {"status": "alive"}


async def test_head_answers_like_get_without_a_body(client: httpx.AsyncClient) -> None:
    assert (await client.head("/v1/things")).status_code == 200
    assert (await client.head("/v1/things?limit=0")).status_code == 400


async def test_a_refusal_is_json_that_any_parser_reads(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/things?limit=0")
    assert json.loads(response.content)["status"] == 400
    assert int(response.headers["content-length"]) == len(response.content)
