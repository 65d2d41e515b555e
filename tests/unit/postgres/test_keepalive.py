import socket
from types import SimpleNamespace
from typing import Any, cast

from wvs.postgres import pool


def _connection_over(sock: socket.socket | None) -> Any:
    return SimpleNamespace(_transport=SimpleNamespace(get_extra_info=lambda _name: sock))


def test_a_tcp_connection_gets_keepalive_and_user_timeout():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        pool._enable_keepalive(_connection_over(client))
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == pool.KEEPALIVE_IDLE_S
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == pool.KEEPALIVE_INTERVAL_S
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == pool.KEEPALIVE_COUNT
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == pool.USER_TIMEOUT_MS


def test_a_unix_socket_is_left_unchanged():
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        pool._enable_keepalive(_connection_over(left))
        assert left.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_a_server_before_17_gets_no_transaction_timeout():
    def version(major: int) -> Any:
        return cast("Any", SimpleNamespace(get_server_version=lambda: SimpleNamespace(major=major)))

    assert pool._transaction_timeout(version(16), 30) == {}
    assert pool._transaction_timeout(version(17), 30) == {"transaction_timeout": "30000"}
