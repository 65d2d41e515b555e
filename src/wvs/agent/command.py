"""The command as a process: started inside its freezer, with the terminal if there is one, and waited for."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from wvs.agent.errors import AgentError
from wvs.agent.freezer import Freezer

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
_SIGNALED: Final = 128


class CannotStart(AgentError):
    """The command could not be executed; `code` is the exit code that shells use for it."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(what)
        self.code = code


class Command:
    """One run of the command, in a process group of its own; in the terminal's foreground if the wrapper is."""

    def __init__(
        self,
        words: Sequence[str],
        cwd: str,
        environment: Mapping[str, str],
        freezer: Freezer,
        *,
        heeded: signal.Signals | int | None = None,
    ) -> None:
        """Starts it. Raises `CannotStart`.

        The command starts with the default action for the signal `heeded`, even if this process ignores that signal
        (nohup, a background job of a script): a shell cannot trap a signal that was ignored when it began, sh(1p).
        """
        self._terminal = _terminal_in_front()
        if self._terminal is not None:
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # or giving the terminal away would stop the giver

        def prepare() -> None:
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            if heeded is not None and signal.getsignal(heeded) is signal.SIG_IGN:
                signal.signal(heeded, signal.SIG_DFL)
            freezer.enter()

        try:
            # preexec_fn, although threads may exist: it does system calls only, and a command that joined its cgroup
            # any later could have forked outside of it.
            self._process = subprocess.Popen(
                words,
                cwd=cwd,
                env={**environment, "PWD": cwd},
                process_group=0,
                preexec_fn=prepare,  # noqa: PLW1509
            )
        except FileNotFoundError as error:
            raise CannotStart(f"{error.filename}: not found", NOT_FOUND) from None
        except OSError as error:
            raise CannotStart(f"{words[0]}: {error.strerror}", NOT_EXECUTABLE) from None
        except subprocess.SubprocessError as error:
            raise CannotStart(f"{words[0]} could not be put into its {freezer.name}: {error}", 1) from None
        self.pid: Final = self._process.pid
        self.give_terminal()

    def give_terminal(self) -> None:
        """Makes the command the foreground of the terminal if this process is: its keys reach nobody else then."""
        self._set_front(os.getpgrp(), self.pid)

    def take_terminal(self) -> None:
        """Makes this process the foreground again if the command is."""
        self._set_front(self.pid, os.getpgrp())

    def send(self, number: int) -> None:
        """Sends a signal to the command's process group, as a terminal does."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def wait(self) -> int:
        """The exit code as shells tell it: 128 + n for signal n."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        descriptor = os.pidfd_open(self.pid)
        try:
            loop.add_reader(descriptor, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return self.reap()

    def reap(self) -> int:
        """The exit code of a command that has ended; waits for it if it has not."""
        code = self._process.wait()
        return code if code >= 0 else _SIGNALED - code

    def is_suspended(self) -> bool:
        """Whether the command was stopped since the last call, as Ctrl-Z does."""
        found = None
        with suppress(ChildProcessError):
            found = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)
        return found is not None

    def _set_front(self, before: int, group: int) -> None:
        if self._terminal is not None:
            with suppress(OSError):  # the terminal hung up, or the group is gone already
                if os.tcgetpgrp(self._terminal) == before:
                    os.tcsetpgrp(self._terminal, group)


def _terminal_in_front() -> int | None:
    """The descriptor of the terminal whose foreground this process is in."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            descriptor = stream.fileno()
            if os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp():
                return descriptor
    return None
