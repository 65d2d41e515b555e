"""Errors that occur before any query is sent."""


class DatabaseSetupError(Exception):
    """Base of these errors: WVS cannot start the database, reach it or migrate its schema."""


class DataDirInUse(DatabaseSetupError):
    """Another running process holds the data directory."""


class EmbeddedPostgresFailed(DatabaseSetupError):
    """The embedded server could not be created, started or stopped; the message ends with the server's output."""


class InvalidDatabaseUrl(DatabaseSetupError):
    """The database URL is not usable. The message gives the reason and never contains the password."""


class UnfitDatabase(DatabaseSetupError):
    """The database cannot serve WVS as it is. `code` names the cause, `hint` says what to do."""

    def __init__(self, code: str, detail: str, hint: str) -> None:
        super().__init__(f"{code}: {detail}. {hint}")
        self.code = code
        self.detail = detail
        self.hint = hint


class ReadOnlyDatabase(UnfitDatabase):
    """The database is a standby, or read-only for this role: a failover or a person can change that at any time."""

    def __init__(self, detail: str, hint: str) -> None:
        super().__init__("DATABASE_READ_ONLY", detail, hint)


class MigrationFailed(DatabaseSetupError):
    """The schema could not be migrated. The message names the failing file and quotes the server's error."""


class SchemaTooOld(DatabaseSetupError):
    """The schema lacks migrations that this program needs."""


class SchemaTooNew(DatabaseSetupError):
    """The schema does not support a program of this age any more."""
