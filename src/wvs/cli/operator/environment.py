"""What commands take from the settings, and what `wvs up` hands on to its children."""

import os
from pathlib import Path

from wvs.settings import InvalidSetting, Settings


def database_url(settings: Settings) -> str:
    """The database's URL; raises `InvalidSetting` where only `wvs up` could do without."""
    if settings.database_url is None:
        raise InvalidSetting("WVS_DATABASE_URL is not set (only `wvs up` brings its own database)")
    return settings.database_url


def volume_path(settings: Settings) -> Path:
    """The volume's directory."""
    return (settings.volume or settings.data_dir / "volume").absolute()


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of a child process of `wvs up`, which is told everything by variables."""
    return {
        **os.environ,
        "WVS_DATABASE_URL": settings.database_url or "",
        "WVS_VOLUME": str(volume_path(settings)),
        "WVS_DATA_DIR": str(settings.data_dir),
        "WVS_HOST": settings.host,
        "WVS_PORT": str(settings.port),
    }
