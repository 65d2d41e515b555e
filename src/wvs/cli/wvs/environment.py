"""What commands take from the settings, and what `wvs up` hands on to its children."""

import os

from wvs.postgres.discovery import url_beside
from wvs.settings import InvalidSetting, Settings


def database_url(settings: Settings) -> str:
    """The database's URL: the one that is set, or of the `wvs up` that runs on the data directory.

    Raises `InvalidSetting` where there is neither.
    """
    url = settings.database_url or url_beside(settings.data_dir)
    if url is None:
        raise InvalidSetting(
            f"WVS_DATABASE_URL is not set, and no `wvs up` runs on WVS_DATA_DIR={settings.data_dir}: "
            "name the database, or the data directory of the running `wvs up`"
        )
    return url


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of a child process of `wvs up`, which is told everything by variables."""
    return {
        **os.environ,
        "WVS_DATABASE_URL": settings.database_url or "",
        "WVS_VOLUME": str(settings.volume_path),
        "WVS_DATA_DIR": str(settings.data_dir),
        "WVS_HOST": settings.host,
        "WVS_PORT": str(settings.port),
    }
