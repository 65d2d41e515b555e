import re

import pytest

from wvs.domain.errors import ErrorCode, Refused
from wvs.http.wire.context import ANONYMOUS, read_actor, read_context, select_headers

TRACE = b"0af7651916cd43dd8448eb211c80319c"
PARENT = b"b7ad6b7169203331"


@pytest.mark.parametrize("sent", [b"r-1", b"A.b_c:d@e/f+g=h-9", b"x" * 128])
def test_a_valid_request_id_is_kept(sent: bytes) -> None:
    assert read_context({b"x-request-id": sent}).request_id == sent.decode()


@pytest.mark.parametrize("sent", [b"", b" ", b"x" * 129, b"a b", b"a\x00", b"\xff", b'"><script>', b"one, two", b"a\n"])
def test_an_invalid_request_id_is_replaced(sent: bytes) -> None:
    made = read_context({b"x-request-id": sent}).request_id
    assert re.fullmatch("[0-9a-f]{32}", made)


def test_generated_request_ids_and_traces_differ() -> None:
    contexts = [read_context({}) for _ in range(100)]
    assert len({context.request_id for context in contexts}) == 100
    assert len({context.trace_id for context in contexts}) == 100


@pytest.mark.parametrize(("flags", "passed_on"), [(b"01", "01"), (b"00", "00"), (b"ff", "01"), (b"02", "00")])
def test_a_trace_continues_with_a_new_span(flags: bytes, passed_on: str) -> None:
    context = read_context({b"traceparent": b"00-" + TRACE + b"-" + PARENT + b"-" + flags})
    version, trace_id, span_id, own_flags = context.traceparent.split("-")
    assert (version, trace_id, own_flags) == ("00", TRACE.decode(), passed_on)
    assert context.trace_id == trace_id
    assert re.fullmatch("[0-9a-f]{16}", span_id)
    assert span_id != PARENT.decode()


def test_a_later_version_may_have_more_fields() -> None:
    context = read_context({b"traceparent": b"01-" + TRACE + b"-" + PARENT + b"-01-what-comes-later"})
    assert context.trace_id == TRACE.decode()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"nonsense",
        b"00-" + TRACE + b"-" + PARENT,
        b"00-" + TRACE + b"-" + PARENT + b"-01-more",
        b"00-" + TRACE + b"-" + PARENT + b"-01\n",
        b"ff-" + TRACE + b"-" + PARENT + b"-01",
        b"00-" + b"0" * 32 + b"-" + PARENT + b"-01",
        b"00-" + TRACE + b"-" + b"0" * 16 + b"-01",
        b"00-" + TRACE.upper() + b"-" + PARENT + b"-01",
        b"00-" + TRACE + b"-" + PARENT + b"-01, 00-" + TRACE + b"-" + PARENT + b"-01",
    ],
)
def test_an_invalid_traceparent_begins_a_new_trace(sent: bytes) -> None:
    context = read_context({b"traceparent": sent})
    assert context.trace_id != TRACE.decode()
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", context.traceparent)


def test_a_caller_without_an_actor_is_anonymous_and_no_actor_is_verified() -> None:
    assert read_actor(read_context({}), {}).actor == ANONYMOUS
    context = read_actor(read_context({}), {b"x-actor": b"ci/build-17@example.org"})
    assert context.actor == "ci/build-17@example.org"
    assert not context.actor_verified


@pytest.mark.parametrize("sent", [b"", b"a b", b"-a", b"x" * 129, b"a\x00", b"\xc3\xa4", b"a,b", b"a\n"])
def test_an_actor_that_events_cannot_record_is_refused(sent: bytes) -> None:
    with pytest.raises(Refused) as caught:
        read_actor(read_context({}), {b"x-actor": sent})
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert "X-Actor" in caught.value.detail


def test_a_header_sent_twice_is_joined() -> None:
    headers = [(b"idempotency-key", b"one"), (b"accept", b"*/*"), (b"idempotency-key", b"two")]
    assert select_headers(headers) == {b"idempotency-key": b"one, two"}
