import socket

import pytest
import structlog

from wvs.http.server import RemoteAddressError, listen, url_of


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://127.0.0.1:"), ("127.0.0.2", "http://127.0.0.2:"), ("::1", "http://[::1]:")]
)
def test_port_zero_takes_a_free_port_on_loopback(host: str, url: str) -> None:
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        assert port > 0
        assert url_of(listener) == f"{url}{port}"


def test_accepted_connections_detect_vanished_peers_and_buffer_little_for_slow_ones() -> None:
    with listen("127.0.0.1", 0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()[:2]):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 128 * 1024


def test_localhost_is_loopback() -> None:
    with listen("localhost", 0) as listener:
        assert listener.getsockname()[0] in {"127.0.0.1", "::1"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1"])
def test_an_address_that_other_machines_can_reach_is_refused(host: str) -> None:
    with pytest.raises(RemoteAddressError, match="--insecure-allow-remote"):
        listen(host, 0)


def test_allowing_remote_access_is_logged_as_a_warning(log: "list[structlog.typing.EventDict]") -> None:
    with listen("0.0.0.0", 0, allow_remote=True) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
    [entry] = log
    assert entry["log_level"] == "warning"
    assert entry["host"] == "0.0.0.0"


def test_a_port_in_use_is_an_error_of_the_system() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", taken.getsockname()[1])
