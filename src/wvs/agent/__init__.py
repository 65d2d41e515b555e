"""Sessions for agents: the API with which a program takes part in freezes (docs/agents.md)."""

from wvs.agent.errors import AgentError, CannotFreeze, Rejected, Unreachable
from wvs.agent.protocol import Tree
from wvs.agent.registration import register
from wvs.agent.session import Session

__all__ = ["AgentError", "CannotFreeze", "Rejected", "Session", "Tree", "Unreachable", "register"]
