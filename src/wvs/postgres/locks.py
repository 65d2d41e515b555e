"""The classes of our advisory locks, all in the two-int key space.

The single-bigint space belongs to the watermark of the event log (`pg_locks.objsubid = 1`): a lock of ours in there
would hold every follower back. SQL has two of the numbers, as `wvs.command_lock()` and `wvs.holder_lock()`; a test
compares them with these.
"""

from typing import Final

MIGRATION: Final = 0x77_76_73_01
COMMAND: Final = 0x77_76_73_02
HOLDER: Final = 0x77_76_73_03
SWEEPER: Final = 0x77_76_73_04
REBUILD: Final = 0x77_76_73_05
