"""Checks a refusal; ids that do not exist."""

from typing import Any

import httpx

from wvs.domain.errors import STATUS, ErrorCode

SNAP = "snap_01h455vb4pex5vsknk084sn02q"
TASK = "task_01h455vb4pex5vsknk084sn02q"
WS = "ws_01h455vb4pex5vsknk084sn02q"


def refused(response: httpx.Response, code: str) -> dict[str, Any]:
    """The problem, which must be complete and have this code."""
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (problem["code"], problem["status"]) == (code, response.status_code), problem
    assert response.status_code == STATUS[ErrorCode(code)]
    assert problem["type"] == f"/problems/{code}"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    assert problem["hint"]
    assert ("retry-after" in response.headers) == (response.status_code in {429, 503})
    return problem
