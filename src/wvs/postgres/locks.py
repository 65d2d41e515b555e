"""The numbers that make our advisory locks ours, whatever other applications of the same database lock.

All but one are classes in the two-int key space. `WATERMARK` is the high 16 bits of a key in the single-bigint space
(`pg_locks.objsubid = 1`), whose other bits are a position of the event log (docs/adr/0035-positions-of-events.md). SQL
has three of the numbers, as `wvs.command_lock()`, `wvs.holder_lock()` and `wvs.watermark_lock()`; a test compares them
with these.
"""

from typing import Final

MIGRATION: Final = 0x77_76_73_01
COMMAND: Final = 0x77_76_73_02
HOLDER: Final = 0x77_76_73_03
SWEEPER: Final = 0x77_76_73_04
REBUILD: Final = 0x77_76_73_05
WATERMARK: Final = 0x77_76
