"""python -m tools.schema write [--take] | migration NAME FUNCTION..."""

import argparse
import sys
from datetime import UTC, datetime

from tools.schema.migrated import migrated_database
from tools.schema.migrations import Refusal, new_migration
from tools.schema.writing import DATABASE_FILES, write_schema


def main() -> int:
    """The exit code: 1 if something is left to do by hand."""
    parser = argparse.ArgumentParser(prog="python -m tools.schema", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="write db/schema.sql and db/functions")
    write.add_argument("--take", action="store_true", help="write over functions that no migration has yet")
    migration = commands.add_parser("migration", help="make a migration out of db/functions")
    migration.add_argument("name")
    migration.add_argument("functions", nargs="*")
    options = parser.parse_args()
    with migrated_database() as connection:
        if options.command == "write":
            return _write(write_schema(connection, DATABASE_FILES, take=options.take))
        try:
            path = new_migration(connection, DATABASE_FILES, options.name, options.functions, datetime.now(UTC))
        except Refusal as refusal:
            sys.stderr.write(f"{refusal}\n")
            return 1
    sys.stdout.write(f"{path}\n")
    return 0


def _write(faults: list[str]) -> int:
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    if faults:
        sys.stderr.write(
            'To bring a function into the schema: make migration NAME=what_it_does FUNCTIONS="name …". '
            "To take the migrations' text instead: make schema TAKE=1.\n"
        )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
