"""The secrets of sessions: only the agent that registered a session can speak for it.

PostgreSQL stores the SHA-256 of a secret. A secret has 256 random bits, so that a slow or salted hash would add nothing
(docs/adr/0012-session-secrets.md).
"""

import hmac
import secrets
from collections import OrderedDict
from hashlib import sha256
from typing import Final
from uuid import UUID

from wvs.domain.errors import ErrorCode, Refused
from wvs.postgres.pool import Pool
from wvs.postgres.queries import sql

_HASH: Final = sql("session_secret_hash")
_SECRET_BYTES: Final = 32
_MAX_REMEMBERED: Final = 20_000


def new_secret() -> str:
    """A new secret of 256 random bits, in characters that every HTTP header can carry."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def hash_of(secret: str) -> bytes:
    """The hash of `secret`, which is all that is stored of it."""
    return sha256(secret.encode()).digest()


class SessionSecrets:
    """One per process. It remembers the hashes, which never change: a check costs a query once for each session."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._hashes: OrderedDict[UUID, bytes | None] = OrderedDict()

    def remember(self, session_id: UUID, secret_hash: bytes | None) -> None:
        """Records the hash of a session's secret."""
        self._hashes[session_id] = secret_hash
        if len(self._hashes) > _MAX_REMEMBERED:
            self._hashes.popitem(last=False)

    async def check(self, session_id: UUID, secret: str | None) -> None:
        """Refuses `SESSION_NOT_FOUND`, and `SESSION_SECRET_INVALID` unless `secret` is the one of this session."""
        if session_id not in self._hashes:
            await self._read(session_id)
        expected = self._hashes[session_id]
        # Shim for peers before 0.1.0; remove after 0.2.0.
        # A session that an older API registered has no secret. Its agent cannot send one, and must still be able to
        # freeze.
        if expected is None:
            return
        if secret is None:
            raise _refused("The request has no session secret.")
        if not hmac.compare_digest(hash_of(secret), expected):
            raise _refused("The session secret of the request is not the one of this session.")

    async def _read(self, session_id: UUID) -> None:
        row = await self._pool.fetchrow(_HASH, session_id)
        if row is None:
            raise Refused(ErrorCode.SESSION_NOT_FOUND, "There is no such session.", "Register again.")
        self.remember(session_id, row["secret_hash"])


def _refused(detail: str) -> Refused:
    return Refused(ErrorCode.SESSION_SECRET_INVALID, detail)
