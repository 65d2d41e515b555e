import socket

import asyncpg
import pytest

from wvs.postgres.migrate import pending
from wvs.postgres.pool import Pool, close, connect


async def test_the_test_database_is_migrated_and_private(pool: Pool):
    async with pool.acquire() as connection:
        assert await pending(connection) == []
        await connection.execute("create table wvs.only_here (id int)")


async def test_no_test_sees_the_tables_of_another(pool: Pool):
    with pytest.raises(asyncpg.UndefinedTableError):
        await pool.fetch("select * from wvs.only_here")


async def test_jsonb_values_are_the_bytes_of_their_json_text(pool: Pool):
    assert await pool.fetchval("select $1::jsonb", b'{"a":[1,2]}') == b'{"a": [1, 2]}'
    assert await pool.fetchval("select $1::jsonb[]", [b"1", '"x"']) == [b"1", b'"x"']


async def test_limits_are_set_and_still_hold_after_the_return_to_the_pool(pool: Pool):
    for _ in range(2):
        async with pool.acquire() as connection:
            assert await connection.fetchval("show idle_in_transaction_session_timeout") == "10s"
            assert await connection.fetchval("show application_name") == "wvs test"
            if connection.get_server_version().major >= 17:
                assert await connection.fetchval("show transaction_timeout") == "30s"


async def test_a_transaction_left_open_is_rolled_back_on_return(pool: Pool):
    await pool.execute("create table wvs.t (id int)")
    async with pool.acquire() as connection:
        await connection.transaction().start()
        await connection.execute("insert into wvs.t values (1)")
    assert await pool.fetchval("select count(*) from wvs.t") == 0


async def test_a_direct_connection_may_have_a_transaction_timeout(database_url: str):
    connection = await connect(database_url, application_name="wvs x", transaction_timeout_s=2)
    try:
        if connection.get_server_version().major >= 17:
            assert await connection.fetchval("show transaction_timeout") == "2s"
        assert await connection.fetchval("show timezone") == "UTC"
    finally:
        await connection.close()


async def test_closing_a_connection_whose_server_has_gone_hides_no_result(database_url: str, pool: Pool):
    connection = await connect(database_url, application_name="wvs x")
    transport = connection._transport  # closed below the client, as a reset by the network closes it
    transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    await close(connection)

    assert connection.is_closed()
