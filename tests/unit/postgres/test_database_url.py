import socket
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from wvs.postgres.database_url import CONNECT_TIMEOUT_S, KEEPALIVE, Host, dbmate_url, enable_keepalive, parse_url
from wvs.postgres.errors import InvalidDatabaseUrl


@pytest.fixture(autouse=True)
def _no_sslmode_of_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGSSLMODE", raising=False)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u@db/wvs", [Host("db")]),
        ("postgres://u@db:5433/wvs", [Host("db", 5433)]),
        ("postgresql://u@[::1]:5433/wvs", [Host("::1", 5433)]),
        ("postgresql://u@[fe80::1]/wvs", [Host("fe80::1")]),
        ("postgresql://u@%2Frun%2Fpostgresql:5433/wvs", [Host("/run/postgresql", 5433)]),
        ("postgresql://u@/wvs?host=/run/postgresql&port=5433", [Host("/run/postgresql", 5433)]),
        ("postgresql://u@a:1,[::1]:2,c/wvs", [Host("a", 1), Host("::1", 2), Host("c")]),
        ("postgresql://u@/wvs?host=a,b&port=7", [Host("a", 7), Host("b", 7)]),
        ("postgresql://u@a/wvs?host=b", [Host("b")]),
        ("postgresql://", [Host()]),
    ],
)
def test_hosts_and_ports_are_read_as_libpq_reads_them(url: str, hosts: list[Host]):
    assert list(parse_url(url).hosts) == hosts


def test_user_password_and_database_are_percent_decoded_and_a_plus_is_a_plus():
    url = parse_url("postgresql://we%20ird:p%40ss%2Fw+%C3%A9@db/d%2Fb")
    assert (url.user, url.password, url.database) == ("we ird", "p@ss/w+é", "d/b")


@pytest.mark.parametrize("password", ["a?b", "a#b", "a:b", "a&b=c", "a?b=c&d"])
def test_a_password_may_have_the_characters_that_libpq_takes_bare(password: str):
    url = parse_url(f"postgresql://u:{password}@db/wvs?application_name=x")
    assert (url.password, url.hosts, url.database) == (password, (Host("db"),), "wvs")


def test_the_last_of_two_values_counts_and_an_empty_one_is_the_default():
    assert parse_url("postgresql://u@db/wvs?user=v&user=w").user == "w"
    assert parse_url("postgresql://u@db/wvs?user=&sslmode=").user is None


def test_timeouts_and_keepalives_have_the_effect_of_libpq():
    url = parse_url("postgresql://u@db/wvs?connect_timeout=17&keepalives_idle=30&keepalives_count=7&tcp_user_timeout=0")
    assert url.connect_timeout_s == 17
    assert url.keepalive == {**KEEPALIVE, "keepalives_idle": 30, "keepalives_count": 7, "tcp_user_timeout": 0}
    assert parse_url("postgresql://u@db/wvs").connect_timeout_s == CONNECT_TIMEOUT_S
    assert parse_url("postgresql://u@db/wvs?connect_timeout=0").connect_timeout_s == CONNECT_TIMEOUT_S


def test_a_required_channel_binding_needs_encryption_and_is_marked_as_not_bound():
    weak = parse_url("postgresql://u@db/wvs?channel_binding=require")
    assert (weak.driver["sslmode"], weak.unbound_channel) == ("require", True)
    strong = parse_url("postgresql://u@db/wvs?sslmode=verify-full&channel_binding=require")
    assert (strong.driver["sslmode"], strong.unbound_channel) == ("verify-full", True)
    assert not parse_url("postgresql://u@db/wvs?channel_binding=prefer").unbound_channel


def test_the_application_name_of_the_url_follows_ours():
    assert parse_url("postgresql://u@db/wvs?application_name=blue").application_name("wvs-api") == "wvs-api blue"
    assert parse_url("postgresql://u@db/wvs").application_name("wvs-api") == "wvs-api"


@pytest.mark.parametrize(
    ("parameter", "named"),
    [
        ("require_auth=scram-sha-256", "require_auth"),
        ("hostaddr=127.0.0.1", "hostaddr"),
        ("service=x", "service"),
        ("requirepeer=postgres", "requirepeer"),
        ("statement_timeout=5", "options=-c%20NAME"),
        ("target_session_attrs=standby", "read-write or primary"),
        ("gssencmode=require", "gssencmode"),
        ("load_balance_hosts=random", "load_balance_hosts"),
        ("client_encoding=latin1", "client_encoding"),
        ("sslmode=on", "verify-full"),
        ("connect_timeout=soon", "connect_timeout"),
        ("sslrootcert=/nowhere/ca.pem", "/nowhere/ca.pem"),
        ("sslmode", "NAME=VALUE"),
        ("port=1,2", "1 hosts and 2 ports"),
        ("port=65536", "65535"),
    ],
)
def test_what_the_driver_cannot_do_is_refused_by_name(parameter: str, named: str):
    with pytest.raises(InvalidDatabaseUrl, match=named):
        parse_url(f"postgresql://u@db/wvs?{parameter}")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:geh@eim@db/wvs",
        "postgresql://u:geh/eim@db/wvs",
        "postgresql://u:12/eim@db/wvs",
        "postgresql://u:geh@e/im?wort=1@db/wvs",
        "postgresql://u:geh@e/im?wort@db/wvs",
        "postgresql://u:geh%eim@db/wvs",
    ],
)
def test_a_password_that_is_not_encoded_gets_a_hint_and_is_not_repeated(url: str):
    with pytest.raises(InvalidDatabaseUrl, match="%40") as caught:
        parse_url(url)
    assert not any(piece in str(caught.value) for piece in ("geh", "eim", "wort"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host=h dbname=d password=geheim",
        "mysql://u:geheim@h/d",
        "postgresql+asyncpg://u:geheim@h/d",
        "postgresql://[geheim/d",
        "postgresql://[::1]geheim/d",
        "postgresql://::1:geheim/d",
        "postgresql://u:geheim%FF@h/d",
        "postgresql://u:geheim@h/d\0",
    ],
)
def test_an_error_for_a_malformed_url_does_not_repeat_it(url: str):
    with pytest.raises(InvalidDatabaseUrl) as caught:
        parse_url(url)
    assert "geheim" not in str(caught.value)


def test_dbmate_gets_the_server_that_was_reached_and_the_tls_default_of_libpq():
    url = parse_url(
        "postgresql://u:p%40w@down,db:5433/wvs?gsslib=gssapi&target_session_attrs=primary&options=-c%20a%3D1"
    )
    parts = urlsplit(dbmate_url(url, "::1", 5433))
    assert (parts.scheme, parts.netloc, parts.path) == ("postgres", "u@", "/wvs")
    assert parse_qs(parts.query) == {
        "host": ["::1"],
        "port": ["5433"],
        "sslmode": ["prefer"],
        "options": ["-c a=1"],
        "connect_timeout": ["5"],
    }


def test_dbmate_gets_the_sslmode_of_the_url_or_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert "sslmode=verify-full" in dbmate_url(parse_url("postgres://u@db/wvs"), "db", 5432)
    assert "sslmode=require" in dbmate_url(parse_url("postgres://u@db/wvs?sslmode=require"), "db", 5432)


def test_dbmate_uses_no_tls_on_a_socket_and_encodes_its_directory():
    url = dbmate_url(parse_url("postgresql://wvs@/wvs"), "/srv/a b%/run", 5440)
    assert parse_qs(urlsplit(url).query)["host"] == ["/srv/a b%/run"]
    assert "sslmode=disable" in url
    assert "+" not in url


def test_a_tls_file_that_exists_goes_to_both_drivers(tmp_path: Path):
    (tmp_path / "ca.pem").write_text("certificate")
    url = parse_url(f"postgresql://u@db/wvs?sslmode=verify-ca&sslrootcert={tmp_path}/ca.pem")
    for text in (url.dsn, dbmate_url(url, "db", 5432)):
        assert parse_qs(urlsplit(text).query)["sslrootcert"] == [f"{tmp_path}/ca.pem"]


def test_a_tcp_connection_gets_the_keepalive_of_the_url():
    keepalive = {**KEEPALIVE, "keepalives_idle": 33, "tcp_user_timeout": 0}
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        default_ms = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        enable_keepalive(client, keepalive)
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 33
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == KEEPALIVE["keepalives_interval"]
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == KEEPALIVE["keepalives_count"]
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == default_ms


def test_keepalive_that_is_turned_off_and_a_unix_socket_are_left_unchanged():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        enable_keepalive(client, {**KEEPALIVE, "keepalives": 0})
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        enable_keepalive(left, KEEPALIVE)
        assert left.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
