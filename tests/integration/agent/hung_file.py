"""A FUSE file system (linux/fuse.h) with one file, `hung`. A read or lookup of it blocks until `release`."""

import ctypes
import errno
import os
import struct
import threading
from enum import IntEnum
from pathlib import Path

from tests.integration.engines.filesystems import Unavailable

_ROOT, _FILE = 1, 2


class Opcode(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    RELEASE = 18
    FLUSH = 25
    INIT = 26
    INTERRUPT = 36


_IN = struct.Struct("<IIQQIIIHH")
_DIRECT_IO = 1
_UMOUNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


class HungFile:
    """Mounted at `point` in this process's mount namespace and served by a thread, until `close`."""

    def __init__(self, point: Path, hangs_at: Opcode = Opcode.READ) -> None:
        self.path = point / "hung"
        self.read = threading.Event()
        """Set when a process waits for an answer."""
        self._hangs_at = hangs_at
        self._point = str(point).encode()
        self._waiting: list[int] = []
        self._is_released = False
        try:
            self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"/dev/fuse: {error.strerror}") from None
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0".encode()
        if _libc.mount(b"hung", self._point, b"fuse", 0, options) != 0:
            os.close(self._device)
            raise Unavailable(f"no FUSE can be mounted: {os.strerror(ctypes.get_errno())}")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Answers every waiting and every later request."""
        self._is_released = True
        while self._waiting:
            self._answer(self._waiting.pop(), b"", 0 if self._hangs_at is Opcode.READ else errno.EIO)

    def close(self) -> None:
        self.release()
        _libc.umount2(self._point, _UMOUNT_DETACH)
        self._thread.join(5)
        os.close(self._device)

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, 1 << 17)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    continue
                return  # ENODEV: unmounted
            _, opcode, unique, node, *_ = _IN.unpack_from(request)
            self._handle(opcode, unique, node)

    def _handle(self, opcode: int, unique: int, node: int) -> None:
        match opcode:
            case self._hangs_at if not self._is_released:
                self._waiting.append(unique)
                self.read.set()
            case Opcode.INIT:
                self._answer(unique, struct.pack("<IIIIHHIIHHI28x", 7, 31, 65536, 0, 8, 8, 65536, 1, 16, 0, 0))
            case Opcode.LOOKUP:
                self._answer(unique, struct.pack("<QQQQII", _FILE, 0, 0, 0, 0, 0) + _attributes(_FILE))
            case Opcode.GETATTR:
                self._answer(unique, struct.pack("<QII", 0, 0, 0) + _attributes(node))
            case Opcode.OPEN:
                self._answer(unique, struct.pack("<QII", 0, _DIRECT_IO, 0))
            case Opcode.READ | Opcode.RELEASE | Opcode.FLUSH:
                self._answer(unique, b"")
            case Opcode.FORGET | Opcode.INTERRUPT:
                pass  # these have no answer; an interrupted process has to wait on
            case _:
                self._answer(unique, b"", errno.ENOSYS)

    def _answer(self, unique: int, body: bytes, error: int = 0) -> None:
        try:
            os.write(self._device, struct.pack("<IiQ", 16 + len(body), -error, unique) + body)
        except OSError:
            pass  # the process that asked has ended


def _attributes(node: int) -> bytes:
    mode = 0o40755 if node == _ROOT else 0o100644
    return struct.pack("<6Q10I", node, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
