"""Sessions for agents: the API that a program uses to take part in freezes (docs/agents.md)."""

from wvs.agent.errors import AgentError, FreezeRefused, Rejected, Unreachable
from wvs.agent.protocol import Tree
from wvs.agent.session import Session, register

__all__ = ["AgentError", "FreezeRefused", "Rejected", "Session", "Tree", "Unreachable", "register"]
