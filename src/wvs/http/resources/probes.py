"""The routes outside /v1: liveness, readiness, metrics, and the explanation of every error code."""

import asyncio
import html
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import structlog
from litestar import MediaType, Request, Response, Router, get
from litestar.datastructures import ResponseHeader
from litestar.exceptions import NotFoundException
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Operation, Schema
from litestar.params import FromPath

from wvs.domain.errors import STATUS, ErrorCode, Refused
from wvs.http.live.executors import ExecutorWatch, WaitingFor
from wvs.http.openapi.examples import Examples
from wvs.http.openapi.responses import problem_responses
from wvs.http.problems.explanations import EXPLANATIONS
from wvs.telemetry.failures import survived
from wvs.telemetry.metrics import CONTENT_TYPE, Metrics

Readiness = Callable[[], Awaitable[Sequence[str]]]
"""Returns the reasons why the service cannot serve, such as "the database is unreachable". Empty: it can."""

Refresh = Callable[[], Awaitable[None]]
"""Updates the metrics whose values are read from elsewhere, such as the depth of the queue."""

PROBE_TIMEOUT_S: Final = 2.0

_log = structlog.get_logger("wvs.http")


class Liveness(msgspec.Struct, frozen=True):
    status: Literal["alive"] = "alive"


class Ready(msgspec.Struct, frozen=True):
    """The service answers requests. `waiting_for` says why accepted tasks do not run; null if they do.

    `warnings` are sentences about what a person has to decide, although the service can serve.
    """

    status: Literal["ready"] = "ready"
    waiting_for: WaitingFor | None = None
    warnings: list[str] = []


class ExplainedCode(msgspec.Struct, frozen=True):
    """The explanation of a code. `status` is null for a code that occurs only in `task.error`."""

    code: ErrorCode
    status: int | None
    title: str
    meaning: str
    hint: str


class Probes(msgspec.Struct, frozen=True):
    """The checks behind the routes of this module, each with a limit of two seconds."""

    readiness: Readiness
    draining: asyncio.Event
    metrics: Metrics
    refresh: Refresh | None = None
    executors: ExecutorWatch | None = None
    warnings: Readiness | None = None

    async def warned(self) -> list[str]:
        """What a person has to decide. A check that fails or hangs is itself a warning."""
        if self.warnings is None:
            return []
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return list(await self.warnings())
        except Exception as error:  # noqa: BLE001 - counted and logged
            self._count_failure("warnings", error)
            return ["the check for warnings failed"]

    async def reasons(self) -> Sequence[str]:
        """The reasons why the service is not ready. A check that fails or hangs is itself a reason."""
        if self.draining.is_set():
            return ["the service is draining"]
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return await self.readiness()
        except Exception as error:  # noqa: BLE001 - a failed check is a reason not to be ready
            self._count_failure("readiness", error)
            return ["the readiness check failed"]

    async def rendered(self) -> bytes:
        """The text of the metrics. A failed refresh keeps old values: the other metrics matter most in an outage."""
        try:
            if self.refresh is not None:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    await self.refresh()
        except Exception as error:  # noqa: BLE001 - counted in these metrics and logged
            self._count_failure("metrics_refresh", error)
        return self.metrics.render()

    def _count_failure(self, where: str, error: Exception) -> None:
        survived(self.metrics, where, error, "http.probe_failed")


def probe_router(probes: Probes) -> Router:
    """The routes of this module."""

    @get("/livez", operation_id="getLiveness", responses=problem_responses(), sync_to_thread=False)
    def livez() -> Liveness:
        """Answers 200 while the process runs. It checks nothing else."""
        return Liveness()

    @get("/readyz", operation_id="getReadiness", responses=problem_responses())
    async def readyz() -> Ready:
        """Answers 200 if the database is reachable and migrated and the service is not draining; otherwise 503.

        An API without executors is ready, because it accepts and shows tasks. Then `waiting_for` says that they wait.
        `warnings` names what a person has to decide although the service can serve.
        """
        reasons = await probes.reasons()
        if reasons:
            raise Refused(ErrorCode.UNAVAILABLE, "not ready: " + "; ".join(reasons), reasons=list(reasons))
        return Ready(waiting_for=probes.executors and probes.executors.waiting_for(), warnings=await probes.warned())

    @get("/metrics", operation_id="getMetrics", media_type=MediaType.TEXT, responses=problem_responses())
    async def prometheus() -> Response[str]:
        """Shows the metrics in the text format of Prometheus."""
        # Litestar appends the charset to every text media type.
        media_type = CONTENT_TYPE.removesuffix("; charset=utf-8")
        return Response(await probes.rendered(), media_type=media_type)  # pyright: ignore[reportReturnType]

    return Router("/", route_handlers=[livez, readyz, prometheus, explain], tags=["service"])


@dataclass
class _ExplainOperation(Operation):
    def __post_init__(self) -> None:
        answer = (self.responses or {}).get("200")
        if isinstance(answer, OpenAPIResponse) and answer.content is not None:
            answer.content["text/html"] = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))


@get(
    "/problems/{code:str}",
    operation_id="explainProblem",
    operation_class=_ExplainOperation,
    responses=problem_responses(),
    response_headers=[ResponseHeader(name="vary", value="accept", documentation_only=False)],
    sync_to_thread=False,
)
def explain(code: FromPath[str], request: Request[Any, Any, Any]) -> Response[ExplainedCode]:
    """Explains an error code: what it means and what to do. Answers with a page if the client accepts text/html."""
    try:
        known = ErrorCode(code)
    except ValueError:
        raise NotFoundException from None
    answer = _explained(known)
    if "text/html" in request.headers.get("accept", ""):
        return Response(_page(answer), media_type=MediaType.HTML)  # pyright: ignore[reportReturnType]
    return Response(answer)


def _page(explained: ExplainedCode) -> Any:
    where = f"HTTP status {explained.status}" if explained.status else "occurs in the error of a task"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{explained.code}</title>'
        f"<h1>{html.escape(explained.title)}</h1><p><code>{explained.code}</code>, {where}</p>"
        f"<h2>What it means</h2><p>{html.escape(explained.meaning)}</p>"
        f"<h2>What to do</h2><p>{html.escape(explained.hint)}</p></html>"
    )


def _explained(code: ErrorCode) -> ExplainedCode:
    explanation = EXPLANATIONS[code]
    return ExplainedCode(code, STATUS.get(code), explanation.title, explanation.meaning, explanation.hint)


_IN_USE: Final = ErrorCode.SNAPSHOT_IN_USE

EXAMPLES: Final[Mapping[str, Examples]] = {
    "getLiveness": Examples({200: {"alive": Liveness()}}),
    "getReadiness": Examples({200: {"ready": Ready()}}),
    "getMetrics": Examples({200: {"two lines": 'wvs_tasks{kind="snapshot_create",state="queued"} 3.0\n'}}),
    "explainProblem": Examples({200: {"in use": _explained(_IN_USE)}}, parameters={"code": str(_IN_USE)}),
}
