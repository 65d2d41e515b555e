"""Errors between an agent and the service, and between the wrapper and the kernel."""


class AgentError(Exception):
    """The base of this layer. The text says what happened, for a person."""


class Unreachable(AgentError):
    """The service could not be reached, did not answer in time, or is temporarily unavailable."""


class Rejected(AgentError):
    """The service answered with a problem: its HTTP `status`, its `code` (design §4), and a `hint` what to do."""

    def __init__(self, status: int, code: str, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.hint = hint


class CannotFreeze(AgentError):
    """The agent cannot stop, or cannot prove that it stopped. Hooks raise it too; its text is in the task's error."""


class NoFreezer(AgentError):
    """This host offers no reliable way to freeze a process tree."""


class NoRights(AgentError):
    """The user of this process lacks a right. The text names the file and the right."""


class NotThawed(AgentError):
    """The kernel did not confirm a thaw: the processes may still be frozen."""


class StillAlive(AgentError):
    """Processes survive SIGKILL, probably in an uninterruptible system call. The session must not end yet."""
