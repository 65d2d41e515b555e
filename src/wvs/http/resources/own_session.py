"""The session that a request speaks for: its id, once the request has shown the session's secret."""

from typing import Annotated, Final, TypeAlias
from uuid import UUID

from litestar.params import HeaderParameter

from wvs.domain.errors import ErrorCode
from wvs.http.openapi.examples import OF_SESSION, SESSION_SECRET
from wvs.http.requests.paths import session_id_of
from wvs.http.service import Service

SECRET_HEADER: Final = "X-Session-Secret"  # noqa: S105 - the name of a header

OWN_SESSION_PROBLEMS: Final = (ErrorCode.SESSION_NOT_FOUND, ErrorCode.SESSION_SECRET_INVALID)

SessionSecret: TypeAlias = Annotated[
    str | None,
    HeaderParameter(
        name=SECRET_HEADER,
        required=False,  # so that a missing secret has a problem of its own
        description="The `secret` from the answer to the registration of this session.",
        schema_extra={"format": "password"},
    ),
]


async def own_session(service: Service, session: str, secret: str | None) -> UUID:
    """The id of the session that a request speaks for; refuses the codes in `OWN_SESSION_PROBLEMS`."""
    session_id = session_id_of(session)
    await service.sessions.check_secret(session_id, secret)
    return session_id


OF_OWN_SESSION: Final = {**OF_SESSION, SECRET_HEADER: SESSION_SECRET}
"""The parameters of an example."""
