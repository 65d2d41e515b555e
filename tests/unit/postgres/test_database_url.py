from urllib.parse import parse_qs, urlsplit

import pytest

from wvs.postgres.errors import InvalidDatabaseUrl
from wvs.postgres.migrate import dbmate_url
from wvs.postgres.pool import check_url


@pytest.fixture(autouse=True)
def _no_sslmode_of_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGSSLMODE", raising=False)


def test_a_plain_url_gets_the_tls_default_of_libpq_and_not_that_of_lib_pq():
    assert dbmate_url("postgresql://u:p%40w@db:5433/wvs") == "postgres://u:p%40w@db:5433/wvs?sslmode=prefer"


def test_an_explicit_sslmode_is_kept():
    assert dbmate_url("postgres://u@db/wvs?sslmode=verify-full") == "postgres://u@db/wvs?sslmode=verify-full"


def test_pgsslmode_applies_as_it_does_for_the_driver(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert dbmate_url("postgres://u@db/wvs") == "postgres://u@db/wvs?sslmode=verify-full"


def test_a_socket_directory_in_the_query_is_kept_and_turns_tls_off():
    url = dbmate_url("postgresql://wvs@/wvs?host=%2Fsrv%2Fa%20b%25%2Frun&port=5440")
    query = parse_qs(urlsplit(url).query)
    assert query == {"host": ["/srv/a b%/run"], "port": ["5440"], "sslmode": ["disable"]}
    assert "+" not in url


def test_a_socket_directory_given_as_the_host_moves_to_the_query():
    url = urlsplit(dbmate_url("postgresql://wvs@%2Frun%2Fpostgresql/wvs"))
    assert url.netloc == "wvs@"
    assert parse_qs(url.query)["host"] == ["/run/postgresql"]


def test_a_parameter_that_only_the_driver_knows_is_removed():
    assert "gsslib" not in dbmate_url("postgresql://u@h/d?gsslib=gssapi&sslmode=disable")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host=h dbname=d password=geheim",
        "mysql://u:geheim@h/d",
        "postgresql+asyncpg://u:geheim@h/d",
        "postgresql://[geheim/d",
        "postgresql://u:geheim@h/d\0",
    ],
)
def test_an_error_for_a_malformed_url_does_not_repeat_it(url: str):
    for check in (check_url, dbmate_url):
        with pytest.raises(InvalidDatabaseUrl) as caught:
            check(url)
        assert "geheim" not in str(caught.value)


def test_a_malformed_query_is_refused():
    with pytest.raises(InvalidDatabaseUrl, match="NAME=VALUE"):
        dbmate_url("postgresql://u@h/d?sslmode")
