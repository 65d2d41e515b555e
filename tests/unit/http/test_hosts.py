import pytest

from wvs.http.edge.hosts import LOOPBACK_HOSTS, HostRule


@pytest.mark.parametrize(
    "header", [b"127.0.0.1", b"127.0.0.1:8787", b"localhost:1", b"LOCALHOST", b"[::1]", b"[::1]:8787"]
)
def test_a_configured_name_is_accepted_on_any_port(header: bytes) -> None:
    assert HostRule(LOOPBACK_HOSTS).accepts(header)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"evil.example",
        b"localhost.evil.example",
        b"localhost:",
        b"localhost:80:80",
        b"localhost:123456",
        b"localhost@evil.example",
        b"localhost, evil.example",
        b" localhost",
        b"localhost\n",
        b"\xff",
        b"[::1",
        b"::1",
        b"127.0.0.1.",
    ],
)
def test_every_other_host_is_refused(header: bytes) -> None:
    assert not HostRule(LOOPBACK_HOSTS).accepts(header)


def test_a_configured_port_is_the_only_one() -> None:
    rule = HostRule(["wvs.example:443"])
    assert rule.accepts(b"wvs.example:443")
    assert not rule.accepts(b"wvs.example")
    assert not rule.accepts(b"wvs.example:444")


@pytest.mark.parametrize("host", ["", "*", "http://wvs.example", "a b", "host:", "host:port", "::1"])
def test_a_malformed_configured_host_is_an_error_that_names_it(host: str) -> None:
    with pytest.raises(ValueError, match="is not a host name") as caught:
        HostRule(["localhost", host])
    assert repr(host) in str(caught.value)
