"""`wvs migrate`."""

import asyncio
import sys

from wvs.cli.wvs.environment import database_url
from wvs.postgres.migrate import migrate
from wvs.settings import Settings


def run_migrate(settings: Settings) -> int:
    """Applies the pending migrations and prints the name of each."""
    applied = asyncio.run(migrate(database_url(settings), database_wait_s=settings.database_wait_s))
    for name in applied:
        sys.stdout.write(f"applied {name}\n")
    if not applied:
        sys.stdout.write("the schema is up to date\n")
    return 0
