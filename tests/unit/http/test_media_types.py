"""Which writes need a media type, and which one."""

import httpx
import pytest

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(("body", "reason"), [(b"", "none"), (b'{"reason":"r"}', "r")])
async def test_an_optional_body_may_be_left_out(client: httpx.AsyncClient, body: bytes, reason: str) -> None:
    response = await client.post("/v1/things/t/disable", content=body, headers=JSON)
    assert response.json() == {"id": "t", "reason": reason}


async def test_an_optional_body_is_not_null(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/things/t/disable", content=b"null", headers=JSON)
    assert response.status_code == 400
    assert response.json()["errors"] == [{"in": "body", "field": "", "problem": "Expected `object`, got `null`"}]


@pytest.mark.parametrize("path", ["/v1/things/t/disable", "/v1/things"])
@pytest.mark.parametrize("origin", [{}, {"origin": "http://localhost:8787"}, {"origin": "HTTP://LOCALHOST:8787"}])
async def test_a_write_without_a_body_needs_no_media_type(
    client: httpx.AsyncClient, path: str, origin: dict[str, str]
) -> None:
    response = await client.post(path, headers=origin)
    if path == "/v1/things":
        assert response.status_code == 400
        assert response.json()["detail"] == "body: a JSON body is required"
    else:
        assert response.json() == {"id": "t", "reason": "none"}


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost", "localhost:8787", ""])
async def test_a_web_page_of_another_origin_cannot_write_without_a_media_type(
    client: httpx.AsyncClient, origin: str
) -> None:
    """`fetch(url, {method: "POST", mode: "no-cors"})` needs no permission of the service."""
    response = await client.post("/v1/things/t/disable", headers={"origin": origin})
    assert response.status_code == 415
    assert f"the web page {origin!r} sent it" in response.json()["detail"]
    assert (await client.post("/v1/things/t/disable", headers={"origin": origin, **JSON})).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json ;charset="UTF-8"'],
)
async def test_json_in_utf8_is_the_one_media_type(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post("/v1/things", content=b'{"name":"a"}', headers={"content-type": content_type})
    assert response.status_code == 202


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin-1",
        "application/jsonx",
        "application/json, text/plain",
        "application/msgpack",
    ],
)
@pytest.mark.parametrize("body", [b'{"name":"a"}', b""])
async def test_a_write_of_any_other_media_type_is_refused(
    client: httpx.AsyncClient, content_type: str, body: bytes
) -> None:
    response = await client.post("/v1/things", content=body, headers={"content-type": content_type})
    assert response.status_code == 415
    assert response.json()["code"] == "UNSUPPORTED_MEDIA_TYPE"


async def test_a_body_without_a_media_type_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/things", content=b'{"name":"a"}')
    assert response.status_code == 415
    assert response.json()["code"] == "UNSUPPORTED_MEDIA_TYPE"


async def test_a_delete_needs_a_media_type_only_with_a_body(client: httpx.AsyncClient) -> None:
    assert (await client.delete("/v1/things/t")).status_code == 409
    response = await client.request("DELETE", "/v1/things/t", content=b"x", headers={"content-type": "text/plain"})
    assert response.status_code == 415
