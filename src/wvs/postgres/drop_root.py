"""Run a command as another user although its files lie where that user cannot look. Run by path, never imported.

PostgreSQL refuses to run as root. When the operator is root, its binaries and data may lie below directories that
only root may search (`/root`). The tempting way, opening those directories to everyone, changes the operator's
machine. Instead the command keeps one ambient capability, CAP_DAC_READ_SEARCH, and only if it needs it
(capabilities(7): "Ambient", PR_SET_KEEPCAPS). PostgreSQL looks for its own programs with access(2), which disregards
the capabilities of a user other than root unless the securebit SECBIT_NO_SETUID_FIXUP is set.

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
    """Containers often grant CAP_DAC_OVERRIDE but not CAP_DAC_READ_SEARCH; the weaker one is tried first."""
    for capability in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE):
        kept = 1 << capability
        try:
            _capset(kept | 1 << _CAP_SETPCAP, kept)
        except PermissionError:
            continue
        _check(_libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "prctl(PR_SET_SECUREBITS)")
        _capset(kept, kept)
        _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0), "prctl(PR_CAP_AMBIENT)")
        return


def become(uid: int, gid: int, paths: list[str]) -> None:
    """Be `uid`:`gid` for good, still able to look into each of `paths`."""
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
    os.execv(command[0], command)  # noqa: S606 - the whole purpose


if __name__ == "__main__":
    main(sys.argv[1:])
