"""A database with every migration of this tree applied, on a server of its own."""

import asyncio
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.migrate import migrate


@contextmanager
def migrated_database() -> Generator[psycopg.Connection[Any]]:
    """A connection to it; the server is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="wvs-schema-") as directory:
        Path(directory).chmod(0o755)  # the embedded server drops root
        with EmbeddedPostgres(Path(directory) / "server", durable=False) as server:
            asyncio.run(migrate(server.url()))
            with psycopg.connect(server.url()) as connection:
                yield connection
