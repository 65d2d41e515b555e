"""What can go wrong before a query is ever sent."""


class DatabaseSetupError(Exception):
    """Base of this room: the database cannot be started, reached or brought to the wanted schema."""


class DataDirInUse(DatabaseSetupError):
    """Another live process owns the data directory."""


class EmbeddedPostgresFailed(DatabaseSetupError):
    """The embedded server could not be created, started or stopped; the text ends with the server's own words."""


class InvalidDatabaseUrl(DatabaseSetupError):
    """The database URL cannot be used; the text says why and never repeats a password."""


class MigrationFailed(DatabaseSetupError):
    """The schema could not be brought up to date; the text carries the failing file and the server's own words."""


class SchemaTooOld(DatabaseSetupError):
    """The schema lacks migrations that this program needs."""


class SchemaTooNew(DatabaseSetupError):
    """The schema does not support a program of this age any more."""
