import json
from http import HTTPStatus

import asyncpg
import pytest
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException, ValidationException

from wvs.domain.errors import STATUS, ErrorCode, Refused
from wvs.http.openapi.responses import problem_responses
from wvs.http.problems.explanations import EXPLANATIONS
from wvs.http.problems.problem import RETRY_AFTER_S, FieldError, problem_of, refuse_fields

RFC_9457_MEMBERS = {"type", "title", "status", "detail", "code", "hint", "request_id"}


def test_every_code_has_an_explanation_and_no_explanation_is_without_a_code() -> None:
    assert set(EXPLANATIONS) == set(ErrorCode)


@pytest.mark.parametrize("code", ErrorCode)
def test_an_explanation_has_a_title_a_meaning_and_a_hint(code: ErrorCode) -> None:
    explanation = EXPLANATIONS[code]
    assert len(explanation.title) > 10
    assert not explanation.title.endswith(".")
    assert explanation.meaning.endswith(".")
    assert explanation.hint.endswith(".")


def test_titles_are_unique() -> None:
    assert len({explanation.title for explanation in EXPLANATIONS.values()}) == len(EXPLANATIONS)


@pytest.mark.parametrize("code", STATUS)
def test_every_code_with_a_status_is_rendered_with_all_members_of_the_rfc(code: ErrorCode) -> None:
    problem = problem_of(Refused(code, "what happened", "what to do", extra={"nested": [1]}))
    document = json.loads(problem.body("req-1"))
    assert problem.status == STATUS[code]
    assert document == {
        "type": f"/problems/{code}",
        "title": EXPLANATIONS[code].title,
        "status": STATUS[code],
        "detail": "what happened",
        "code": code,
        "hint": "what to do",
        "request_id": "req-1",
        "extra": {"nested": [1]},
    }


@pytest.mark.parametrize("code", STATUS)
def test_a_refusal_without_a_hint_gets_the_one_of_the_table(code: ErrorCode) -> None:
    assert json.loads(problem_of(Refused(code, "detail")).body("r"))["hint"] == EXPLANATIONS[code].hint


@pytest.mark.parametrize("code", STATUS)
def test_retry_after_is_sent_exactly_where_repeating_helps(code: ErrorCode) -> None:
    headers = problem_of(Refused(code, "detail")).headers()
    expected = STATUS[code] in {429, 503} or code is ErrorCode.IDEMPOTENCY_IN_FLIGHT
    assert ("retry-after" in headers) is expected
    assert expected is (code in RETRY_AFTER_S)


def test_a_refusal_can_set_its_own_retry_after() -> None:
    problem = problem_of(Refused(ErrorCode.WORKSPACE_QUEUE_FULL, "full", retry_after_s=17))
    assert problem.headers()["retry-after"] == "17"


def test_fields_of_a_refusal_never_replace_those_of_the_rfc() -> None:
    fields = dict.fromkeys(RFC_9457_MEMBERS - {"code", "detail", "hint"}, "forged")
    document = json.loads(problem_of(Refused(ErrorCode.SNAPSHOT_IN_USE, "real", **fields)).body("req-1"))
    assert document["status"] == 409
    assert document["type"] == "/problems/SNAPSHOT_IN_USE"
    assert document["request_id"] == "req-1"


@pytest.mark.parametrize("code", sorted(set(ErrorCode) - set(STATUS)))
def test_a_code_of_a_task_becomes_internal_in_an_answer_to_a_request(code: ErrorCode) -> None:
    assert problem_of(Refused(code, "only ever in task.error")).code is ErrorCode.INTERNAL


def test_a_crash_reveals_nothing_to_the_caller() -> None:
    body = problem_of(ZeroDivisionError("the password is hunter2")).body("r")
    assert json.loads(body)["code"] == "INTERNAL"
    assert b"hunter2" not in body
    assert b"ZeroDivision" not in body


def test_a_wrong_method_is_refused_with_the_allowed_ones_in_a_header_and_a_field() -> None:
    problem = problem_of(MethodNotAllowedException(headers={"allow": "POST, GET"}))
    assert problem.code is ErrorCode.METHOD_NOT_ALLOWED
    assert problem.headers() == {"allow": "GET, HEAD, POST"}
    assert json.loads(problem.body("r"))["allow"] == ["GET", "HEAD", "POST"]


def test_an_unrouted_path_is_route_not_found() -> None:
    assert problem_of(NotFoundException()).code is ErrorCode.ROUTE_NOT_FOUND


def test_a_validation_error_names_place_field_and_fault() -> None:
    error = ValidationException(extra=[{"message": "Expected `int` >= 1", "key": "limit", "source": "query"}])
    document = json.loads(problem_of(error).body("r"))
    assert document["errors"] == [{"in": "query", "field": "limit", "problem": "Expected `int` >= 1"}]
    assert document["detail"] == "query limit: Expected `int` >= 1"


def test_a_missing_parameter_is_named() -> None:
    error = ValidationException("Missing required query parameter 'after' for path /v1/events")
    document = json.loads(problem_of(error).body("r"))
    assert document["errors"] == [{"in": "query", "field": "after", "problem": "required, but missing"}]


def test_refuse_fields_has_the_form_of_a_validation_error() -> None:
    document = json.loads(problem_of(refuse_fields(FieldError("body", "name", "too long"))).body("r"))
    assert document["code"] == "INVALID_REQUEST"
    assert document["errors"] == [{"in": "body", "field": "name", "problem": "too long"}]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, ErrorCode.INVALID_REQUEST),
        (404, ErrorCode.ROUTE_NOT_FOUND),
        (413, ErrorCode.BODY_TOO_LARGE),
        (415, ErrorCode.UNSUPPORTED_MEDIA_TYPE),
        (418, ErrorCode.INVALID_REQUEST),
        (500, ErrorCode.INTERNAL),
        (503, ErrorCode.INTERNAL),
    ],
)
def test_exceptions_of_the_framework_are_mapped_to_codes(status: int, code: ErrorCode) -> None:
    assert problem_of(HTTPException(status_code=status)).code is code


def test_a_lost_database_is_unavailable_and_the_request_may_be_repeated() -> None:
    problem = problem_of(asyncpg.ConnectionDoesNotExistError("host=secret"))
    assert problem.code is ErrorCode.UNAVAILABLE
    assert problem.headers()["retry-after"]
    assert b"secret" not in problem.body("r")


def test_declared_responses_group_codes_by_status_with_an_example_of_each() -> None:
    responses = problem_responses(ErrorCode.SNAPSHOT_IN_USE, ErrorCode.WORKSPACE_DISABLED)
    assert set(responses) == {400, 404, 409, 413, 415, 500, 503, 507}
    examples = {example.id: example.value for example in responses[409].examples or ()}
    assert set(examples) == {"SNAPSHOT_IN_USE", "WORKSPACE_DISABLED"}
    for status, response in responses.items():
        assert response.media_type == "application/problem+json"
        for example in response.examples or ():
            assert example.value is not None
            assert set(example.value) >= RFC_9457_MEMBERS
            assert example.value["status"] == status


def test_every_status_of_the_table_is_an_http_status() -> None:
    assert all(HTTPStatus(status) for status in STATUS.values())


def test_a_full_disk_of_a_database_elsewhere_is_told_with_its_cure() -> None:
    problem = problem_of(asyncpg.DiskFullError('could not extend file "base/5/16394": No space left on device'))
    assert (problem.code, problem.status, problem.headers()) == (ErrorCode.DISK_FULL, 507, {})
    assert 'The disk of PostgreSQL is full, and nothing was changed: could not extend file "base' in problem.detail
    assert "wvs runbook disk-full" in problem.hint
