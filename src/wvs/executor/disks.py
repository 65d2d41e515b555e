"""How full the disks are of the volume and of an embedded PostgreSQL on this host: a metric and a warning."""

from typing import Final, Literal

import structlog

from wvs.engines.errors import EngineError
from wvs.executor.workbench import Workbench
from wvs.postgres.reserve import DiskReserve, disk_of, used_ratio
from wvs.telemetry.failures import survived

WARN_USED_RATIO: Final = 0.9

log = structlog.get_logger(__name__)


class DiskWatch:
    """Sets the metric at each look, and logs when a disk becomes nearly full and when it has room again."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._reserve = DiskReserve(bench.settings.data_dir)
        self._nearly_full: set[str] = set()

    async def look(self) -> None:
        """Looks at the disks. A failure is counted and logged."""
        bench = self._bench
        try:
            space = await bench.run(bench.volume.space)
            bench.metrics.volume_free_bytes.set(space.free)
            self._saw("volume", bench.volume.path, used_ratio(space.total, space.free))
            if self._reserve.exists:
                path = self._reserve.data_dir
                self._saw("database", str(path), (await bench.run(disk_of, path)).used_ratio)
        except (EngineError, OSError) as error:
            survived(bench.metrics, "disks", error, "disks_not_seen")

    def _saw(self, disk: Literal["volume", "database"], path: str, used: float) -> None:
        self._bench.metrics.disk_used_ratio.labels(disk=disk).set(used)
        if used >= WARN_USED_RATIO and disk not in self._nearly_full:
            self._nearly_full.add(disk)
            log.warning("disk_nearly_full", disk=disk, path=path, used=f"{used:.0%}", read="wvs runbook disk-full")
        elif used < WARN_USED_RATIO and disk in self._nearly_full:
            self._nearly_full.discard(disk)
            log.info("disk_has_room_again", disk=disk, path=path, used=f"{used:.0%}")
