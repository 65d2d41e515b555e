import pytest

from wvs.domain.errors import ErrorCode, Refused
from wvs.http.requests.headers import IfMatch, parse_idempotency_key, parse_if_match, parse_wait, preference_applied


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("abc", "abc"),
        ("  abc\t", "abc"),
        ('"abc"', "abc"),
        (r'"a\"b\\c"', 'a"b\\c'),
        ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ("x" * 255, "x" * 255),
        ('"' + "x" * 255 + '"', "x" * 255),
        ("a,b;c=d", "a,b;c=d"),
    ],
)
def test_an_idempotency_key_is_accepted_bare_or_quoted(header: str, key: str) -> None:
    assert parse_idempotency_key(header) == key


@pytest.mark.parametrize(
    "header",
    [
        "",
        "   ",
        '""',
        '"abc',
        '"',
        '"a"b"',
        '"abc";p=1',
        r'"a\b"',
        "a b",
        '"a b"',
        "one, two",
        "x" * 256,
        '"' + "x" * 256 + '"',
        "käse",
        "a\x00b",
        "a\x7f",
    ],
)
def test_a_malformed_idempotency_key_is_refused_by_name(header: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_idempotency_key(header)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert "Idempotency-Key" in caught.value.detail


def test_a_missing_idempotency_key_has_a_code_of_its_own() -> None:
    with pytest.raises(Refused) as caught:
        parse_idempotency_key(None)
    assert caught.value.code is ErrorCode.IDEMPOTENCY_KEY_REQUIRED


@pytest.mark.parametrize(
    ("prefer", "wait_s"),
    [
        (None, None),
        ("", None),
        ("wait=5", 5),
        ("wait=0", 0),
        ("WAIT = 7", 7),
        ('wait="12"', 12),
        ("respond-async, wait=10", 10),
        ("wait=10, respond-async", 10),
        ('foo; bar="a,b", wait=3', None),  # a comma inside a parameter: more than this parser takes apart
        ('foo="a,b", wait=3', 3),
        ("wait=3; x=1", 3),
        ("wait=3, wait=9", 3),
        ("wait=50", 50),
        ("wait=51", 50),
        ("wait=999999999", 50),
        ("wait=9999999999999999999", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=soon", None),
        ("wait", None),
        ("wait=", None),
        ("=5", None),
        (",,", None),
        ("wait=5 6", None),
    ],
)
def test_prefer_wait_is_capped_and_ignored_when_malformed(prefer: str | None, wait_s: int | None) -> None:
    assert parse_wait(prefer, 50) == wait_s


def test_the_applied_preference_contains_the_capped_wait() -> None:
    wait_s = parse_wait("wait=3600", 50)
    assert wait_s is not None
    assert preference_applied(wait_s) == "wait=50"


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ('"7"', {'"7"'}),
        ('"6", "7"', {'"6"', '"7"'}),
        ('"6","7"', {'"6"', '"7"'}),
        ('W/"7", "7"', {'"7"'}),
        ('"a,b"', {'"a,b"'}),
    ],
)
def test_if_match_has_the_strong_tags_of_the_header(header: str, tags: set[str]) -> None:
    assert parse_if_match(header) == IfMatch(any_tag=False, tags=frozenset(tags))


@pytest.mark.parametrize("header", ['W/"7"', 'W/"6", W/"7"'])
def test_if_match_with_weak_tags_alone_is_refused_with_the_cause_and_the_cure(header: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_if_match(header)
    assert refused.value.code == "INVALID_REQUEST"
    for part in (header, "a weak tag never matches", "a proxy that compresses", "without W/", "turn compression off"):
        assert part in refused.value.detail


@pytest.mark.parametrize("header", ["*", " * "])
def test_if_match_with_a_star_accepts_any_tag(header: str) -> None:
    assert parse_if_match(header) == IfMatch(any_tag=True, tags=frozenset())


def test_no_if_match_is_no_condition() -> None:
    assert parse_if_match(None) is None


@pytest.mark.parametrize("header", ["", "7", '"7', '"7" "8"', '"7",', '*, "7"', 'w/"7"', ",", '"a b"'])
def test_a_malformed_if_match_is_refused_rather_than_ignored(header: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_if_match(header)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert "If-Match" in caught.value.detail
