"""The database that a command works on, and the environment that `wvs up` gives its children."""

import os

from wvs.settings import InvalidSetting, Settings


def database_url(settings: Settings) -> str:
    """The URL in the settings, or else that of the `wvs up` that runs on the data directory.

    Raises `InvalidSetting` if neither exists.
    """
    if settings.database_url is not None:
        return settings.database_url
    from wvs.postgres.discovery import find_running_server  # noqa: PLC0415 - costs time; an executor mostly has the URL

    url = find_running_server(settings.data_dir)
    if url is None:
        raise InvalidSetting(
            f"WVS_DATABASE_URL is not set, and no `wvs up` runs on WVS_DATA_DIR={settings.data_dir}: "
            "set WVS_DATABASE_URL, or set WVS_DATA_DIR to the data directory of the running `wvs up`"
        )
    return url


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of a child of `wvs up`: environment variables carry every setting to it."""
    return {
        **os.environ,
        "WVS_DATABASE_URL": settings.database_url or "",
        "WVS_VOLUME": str(settings.volume_path),
        "WVS_DATA_DIR": str(settings.data_dir),
        "WVS_HOST": settings.host,
        "WVS_PORT": str(settings.port),
    }
