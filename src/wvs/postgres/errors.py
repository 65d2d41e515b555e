"""Errors that occur before any query is sent."""


class DatabaseSetupError(Exception):
    """Base of these errors: WVS cannot start the database, reach it or migrate its schema."""


class DataDirInUse(DatabaseSetupError):
    """Another running process holds the data directory."""


class EmbeddedPostgresFailed(DatabaseSetupError):
    """The embedded server could not be created, started or stopped; the message ends with the server's output."""


class InvalidDatabaseUrl(DatabaseSetupError):
    """The database URL is not usable. The message gives the reason and never contains the password."""


class MigrationFailed(DatabaseSetupError):
    """The schema could not be migrated. The message names the failing file and quotes the server's error."""


class SchemaTooOld(DatabaseSetupError):
    """The schema lacks migrations that this program needs."""


class SchemaTooNew(DatabaseSetupError):
    """The schema does not support a program of this age any more."""
