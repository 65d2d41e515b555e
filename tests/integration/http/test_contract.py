"""Schemathesis sends requests that the OpenAPI document allows and forbids. Every answer is as documented.

WVS_CONTRACT_EXAMPLES   requests of each kind per operation (a few in `make test`, many in `make contract`)
WVS_CONTRACT_SEED       another seed finds other requests
"""

import os
import re
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import pytest
import requests
import schemathesis
from hypothesis import settings
from schemathesis.core.parameters import ParameterLocation
from schemathesis.openapi.checks import RejectedPositiveData
from tests.conftest import private_database
from tests.integration.http.contract import ServedApi

from wvs.http.problems.problem import ProblemDocument
from wvs.http.wiring import document

EXAMPLES = int(os.environ.get("WVS_CONTRACT_EXAMPLES", "8"))
SEED = int(os.environ.get("WVS_CONTRACT_SEED", "1"))
# Refusals of well-formed requests: the state of a row, a condition, a key used before, a full queue.
STATEFUL = ["2xx", "404", "409", "412", "422", "429"]
NO_INTEGER = re.compile(r"Expected `int[^`]*`, got `float`")
PROBLEM = "application/problem+json"

served: list[ServedApi] = []

schema = schemathesis.openapi.from_dict(
    document(),
    config=schemathesis.Config.from_dict(
        {
            "seed": SEED,
            "suppress-health-check": ["all"],
            "generation": {
                "max-examples": EXAMPLES,
                "deterministic": True,
                "no-shrink": True,
                "allow-x00": False,  # the schema of a path cannot forbid U+0000; test_invalid_requests.py sends it
            },
            "checks": {
                "positive_data_acceptance": {"expected-statuses": STATEFUL},
                "negative_data_rejection": {"expected-statuses": ["400", "404", "409", "413", "415", "422"]},
                # Rows outlive what is done to them: a dropped snapshot and an ended session are still answered.
                "use_after_free": {"enabled": False},
                "ensure_resource_availability": {"enabled": False},
            },
        }
    ),
)


def aim(case: Any) -> None:
    """Points most requests to existing rows, keeps waits short, and adds rules that no schema can express."""
    if "wait" in case.headers.get("Prefer", ""):
        case.headers["Prefer"] = "wait=0"
    if _is_positive(case, ParameterLocation.HEADER) and "If-Match" in case.headers:
        case.headers["If-Match"] = '"1"'
    if _is_positive(case, ParameterLocation.PATH):
        for name, value in case.path_parameters.items():
            if crc32(repr(value).encode()) % 4:
                case.path_parameters[name] = next(served[0].ids[name])
    if _is_positive(case, ParameterLocation.QUERY):
        # Opaque, and only good for the list that gave them: no schema makes one.
        for name in ("cursor", "snapshots_cursor", "tasks_cursor"):
            case.query.pop(name, None)
        if case.path.endswith("/history") and ("at_version" in case.query) == ("at_time" in case.query):
            case.query.pop("at_time", None)  # either of two
            case.query["at_version"] = 1
        if "/sessions/" in case.path:
            case.query["wait"] = 0.01
        elif "after" in case.query:
            case.query["after"] = "1:2"  # of the epoch that this log has


@schema.hook
def filter_failure(_context: Any, failure: Any, _case: Any, response: Any) -> bool:
    """JSON Schema accepts 7.0 as an integer. The service does not, like most languages."""
    if not isinstance(failure, RejectedPositiveData) or response.status_code != 400:
        return True
    return not all(NO_INTEGER.fullmatch(error["problem"]) for error in response.json()["errors"])


def _is_positive(case: Any, location: ParameterLocation) -> bool:
    component = case.meta.components.get(location)
    return component is not None and component.mode.is_positive


@pytest.fixture(scope="module", autouse=True)
def api(admin_url: str, template_database: str) -> Iterator[ServedApi]:
    with private_database(admin_url, template_database) as url, ServedApi(url).running() as running:
        served.append(running)
        yield running
        served.clear()


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as opened:
        yield opened


def every_failure_is_a_whole_problem(_context: Any, response: Any, _case: Any) -> None:
    if response.status_code < 400:
        return
    assert response.headers["content-type"] == [PROBLEM]
    problem = response.json()
    for field in ProblemDocument.__struct_fields__:
        assert problem[field], field
    assert problem["status"] == response.status_code
    assert problem["type"] == f"/problems/{problem['code']}"
    assert [problem["request_id"]] == response.headers["x-request-id"]


# A stream has no end; test_stream.py tests it.
@schema.exclude(operation_id="streamEvents").parametrize()
@settings(deadline=None)
def test_every_answer_is_as_documented(case: Any, session: requests.Session) -> None:
    aim(case)
    case.call_and_validate(
        base_url=served[0].url, session=session, additional_checks=[every_failure_is_a_whole_problem], timeout=60
    )
