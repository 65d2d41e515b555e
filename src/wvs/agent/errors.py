"""What goes wrong between an agent and the service, or between the wrapper and the kernel."""


class AgentError(Exception):
    """The base of this layer: what happened, for a person."""


class Unreachable(AgentError):
    """The service could not be reached, did not answer in time, or is not available for now."""


class Rejected(AgentError):
    """The service answered with a problem: its HTTP `status`, its `code` (design §4), what helps as `hint`."""

    def __init__(self, status: int, code: str, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.hint = hint


class FreezeRefused(AgentError):
    """The agent cannot stand still, or cannot prove it. Raised by hooks, too: its text reaches whoever waits."""


class NoFreezer(AgentError):
    """This host offers no way to stop a process tree for certain."""


class NotThawed(AgentError):
    """A thaw was not confirmed: the processes may still be frozen."""


class StillAlive(AgentError):
    """Processes survive SIGKILL, most likely in an uninterruptible system call; the session must not end yet."""
