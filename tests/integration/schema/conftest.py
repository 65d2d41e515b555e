from collections.abc import Iterator
from typing import Any

import psycopg
import pytest


@pytest.fixture
def migrated(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a migrated database for this test only."""
    with psycopg.connect(database_url) as connection:
        yield connection
