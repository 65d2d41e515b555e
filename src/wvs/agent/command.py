"""The wrapped command as a process: started inside its freezer, with the terminal if there is one."""

import asyncio
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from wvs.agent.errors import AgentError
from wvs.agent.freezer import Freezer

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
_SIGNALED: Final = 128


class CannotStart(AgentError):
    """The command could not be executed. `code` is the exit code that a shell would return."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class CommandProcess:
    """One run of the command, in its own process group; in the terminal's foreground if the wrapper is."""

    def __init__(
        self,
        argv: Sequence[str],
        cwd: str,
        environment: Mapping[str, str],
        freezer: Freezer,
        *,
        default_signal: signal.Signals | int | None = None,
    ) -> None:
        """Starts the command. Raises `CannotStart`.

        The command starts with the default action for `default_signal`, even if this process ignores that signal
        (nohup, a background job of a script): a shell cannot trap a signal that was ignored when it began, sh(1p).
        """
        self._terminal = _foreground_terminal()
        if self._terminal is not None:
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # or handing over the terminal would stop this process

        def prepare() -> None:
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            if default_signal is not None and signal.getsignal(default_signal) is signal.SIG_IGN:
                signal.signal(default_signal, signal.SIG_DFL)
            freezer.enter()

        try:
            # preexec_fn, although threads may exist: it makes system calls only. A command that joined its cgroup later
            # could have forked outside of it before.
            self._process = subprocess.Popen(
                argv,
                cwd=cwd,
                env={**environment, "PWD": cwd},
                process_group=0,
                preexec_fn=prepare,  # noqa: PLW1509
            )
        except FileNotFoundError as error:
            raise CannotStart(f"{error.filename}: not found", NOT_FOUND) from None
        except OSError as error:
            raise CannotStart(f"{argv[0]}: {error.strerror}", NOT_EXECUTABLE) from None
        except subprocess.SubprocessError as error:
            raise CannotStart(f"{argv[0]} could not be added to its {freezer.name}: {error}", 1) from None
        self.pid: Final = self._process.pid
        # Opened before anything can reap the process: later its pid may be that of another.
        self._ended: Final = os.pidfd_open(self.pid)
        weakref.finalize(self, os.close, self._ended)
        self.give_terminal()

    def give_terminal(self) -> None:
        """Puts the command in the terminal's foreground if this process is there: then only it gets the keys."""
        self._set_foreground(os.getpgrp(), self.pid)

    def take_terminal(self) -> None:
        """Puts this process in the terminal's foreground again if the command is there."""
        self._set_foreground(self.pid, os.getpgrp())

    def send(self, number: int) -> None:
        """Sends a signal to the command's process group, as a terminal does, unless the command has ended."""
        if self._process.returncode is not None:
            return  # its pid may be that of another group
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def wait(self) -> int:
        """Waits for the command to end; returns its exit code as a shell does: 128 + n for signal n."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        descriptor = os.dup(self._ended)  # a loop has one reader for each descriptor
        try:
            loop.add_reader(descriptor, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return self.reap()

    def reap(self) -> int:
        """The exit code of the command. Blocks until the command has ended."""
        code = self._process.wait()
        return code if code >= 0 else _SIGNALED - code

    def is_suspended(self) -> bool:
        """Whether the command was stopped since the last call, as Ctrl-Z does."""
        stopped = None
        with suppress(ChildProcessError):
            stopped = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)
        return stopped is not None

    def _set_foreground(self, expected_group: int, group: int) -> None:
        if self._terminal is not None:
            with suppress(OSError):  # the terminal hung up, or the group has ended
                if os.tcgetpgrp(self._terminal) == expected_group:
                    os.tcsetpgrp(self._terminal, group)


def _foreground_terminal() -> int | None:
    """The descriptor of the terminal in whose foreground this process runs."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            descriptor = stream.fileno()
            if os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp():
                return descriptor
    return None
