"""URLs and headers of the API: what is sent, and that no message has a password or a token."""

import base64
from pathlib import Path

import pytest

from wvs.endpoint import InvalidEndpoint, endpoint_of, tls_context


@pytest.fixture(autouse=True)
def without_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WVS_HEADERS", raising=False)


def test_a_url_without_a_user_is_taken_as_it_is() -> None:
    found = endpoint_of("http://[::1]:8787/behind/a/proxy/")
    assert (found.url, found.host, found.port, found.prefix) == (
        *("http://[::1]:8787/behind/a/proxy/", "::1", 8787, "/behind/a/proxy"),
    )
    assert (found.authority, found.secure, found.headers) == ("[::1]:8787", False, {})
    assert endpoint_of("https://wvs.example").authority == "wvs.example"


@pytest.mark.parametrize(
    ("user", "pair"),
    [("alice:s3cret", "alice:s3cret"), ("alice", "alice:"), ("a%40b:p%2Fw%3A%C3%BC", "a@b:p/w:ü"), ("a:b:c", "a:b:c")],
)
def test_a_user_becomes_basic_authorization_and_leaves_the_url(user: str, pair: str) -> None:
    found = endpoint_of(f"https://{user}@wvs.example:8443/wvs")
    scheme, _, encoded = found.headers["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(encoded).decode()) == ("Basic", pair)
    assert found.url == "https://wvs.example:8443/wvs"
    assert found.authority == "wvs.example:8443"


def test_headers_of_the_variable_and_of_the_command_line_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WVS_HEADERS", "X-Api-Key: a, b; c=d\n\n  Authorization:Bearer t\nX-Empty:\n")
    found = endpoint_of("http://u:p@h", ["x-api-key: other"])
    assert found.headers == {"x-api-key": "other", "Authorization": "Bearer t", "X-Empty": ""}


@pytest.mark.parametrize(
    "header",
    ["geheim", "X Key: geheim", ": geheim", "X-Key: geheim\r\nX-Actor: root", "X-Key: geheimü", "Host: geheim"],
)
def test_a_bad_header_is_named_by_its_number_and_not_shown(header: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidEndpoint, match="header 2 of --header") as failure:
        endpoint_of("http://h", ["X-A: b", header])
    assert "geheim" not in str(failure.value) + failure.value.help
    monkeypatch.setenv("WVS_HEADERS", header.partition("\r")[0].replace("X-Key: geheim", "X-Key geheim"))
    with pytest.raises(InvalidEndpoint, match="header 1 of WVS_HEADERS") as failure:
        endpoint_of("http://h")
    assert "geheim" not in str(failure.value) + failure.value.help


@pytest.mark.parametrize(
    "url",
    [
        "http://alice:geheim@h:port",
        "http://alice:geh/eim@h",
        "http://alice:geh#eim@h",
        "http://alice:geh?eim@h",
        "http://alice:geh eim@h",
        "http://alice:geh@eim@h?x",
        "http://alice:[geheim@h",
        "ftp://alice:geheim@h",
        "alice:geheim@h",
        "http://alice:geheim@h/?q",
        "http://alice:geheim@hüst",
    ],
)
def test_a_bad_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidEndpoint) as failure:
        endpoint_of(url)
    shown = str(failure.value) + failure.value.help
    assert "alice" not in shown
    assert "eim" not in shown
    assert failure.value.__cause__ is None


def test_a_file_that_holds_no_certificates_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tmp_path / "ca.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(wrong))
    with pytest.raises(InvalidEndpoint, match=f"SSL_CERT_FILE={wrong} cannot be used: No such file"):
        tls_context()
    wrong.write_text("no certificate")
    with pytest.raises(InvalidEndpoint, match="it holds no certificate"):
        tls_context()
