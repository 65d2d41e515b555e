"""Runs a command as another user although its files lie in directories that this user may not search.

This file is run by its path and never imported.

PostgreSQL refuses to run as root. If the operator is root, the binaries and the data may lie below directories that
only root may search (`/root`). Opening those directories to everyone would change the operator's machine. Instead the
command keeps one ambient capability, CAP_DAC_READ_SEARCH, and only if it needs it (capabilities(7): "Ambient",
PR_SET_KEEPCAPS). PostgreSQL looks for its own programs with access(2), which ignores the capabilities of a user other
than root unless the securebit SECBIT_NO_SETUID_FIXUP is set.

Usage: python drop_root.py UID GID PATH… -- COMMAND ARG…
"""

import ctypes
import os
import sys

_PR_SET_KEEPCAPS = 8
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2
_CAP_SETPCAP = 8
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")


def _capset(capabilities: int, inheritable: int) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # effective, permitted, inheritable; low words, then high words
    sets = (ctypes.c_uint32 * 6)(capabilities, capabilities, inheritable, 0, 0, 0)
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(sets)), "capset")


def _keep_search_capability() -> None:
    """Keeps the weaker capability if possible: containers often grant CAP_DAC_OVERRIDE but not CAP_DAC_READ_SEARCH."""
    for capability in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE):
        mask = 1 << capability
        try:
            _capset(mask | 1 << _CAP_SETPCAP, mask)
        except PermissionError:
            continue
        _check(_libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "prctl(PR_SET_SECUREBITS)")
        _capset(mask, mask)
        _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0), "prctl(PR_CAP_AMBIENT)")
        return


def become(uid: int, gid: int, paths: list[str]) -> None:
    """Switches this process to `uid`:`gid` for good, able to search each of `paths`."""
    _check(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl(PR_SET_KEEPCAPS)")
    os.setgroups([gid])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if not all(os.access(path, os.R_OK | os.X_OK) for path in paths):
        _keep_search_capability()
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def main(arguments: list[str]) -> None:
    end = arguments.index("--")
    uid, gid, *paths = arguments[:end]
    command = arguments[end + 1 :]
    become(int(uid), int(gid), paths)
    os.execv(command[0], command)  # noqa: S606 - the purpose of this program


if __name__ == "__main__":
    main(sys.argv[1:])
