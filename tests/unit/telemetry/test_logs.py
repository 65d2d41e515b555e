import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from wvs.telemetry.logs import configure_logging


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_off_a_terminal_each_event_is_one_json_line():
    out = io.StringIO()
    configure_logging("auto", stream=out)
    structlog.get_logger().info("clone.finished", files=12, note="two\nlines")
    (line,) = _lines(out)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "event": "clone.finished", "files": 12, "note": "two\nlines"}


def test_on_a_terminal_lines_are_readable_text():
    out = _Terminal()
    configure_logging("auto", stream=out)
    structlog.get_logger().info("clone.finished", files=12)
    with pytest.raises(json.JSONDecodeError):
        json.loads(out.getvalue())
    assert "clone.finished" in out.getvalue()


def test_an_explicit_format_is_used_on_and_off_a_terminal():
    out = _Terminal()
    configure_logging("json", stream=out)
    structlog.get_logger().info("x")
    assert _lines(out)[0]["event"] == "x"
    out = io.StringIO()
    configure_logging("console", stream=out)
    structlog.get_logger().info("x", a=1)
    assert "a=1" in out.getvalue()
    assert "\x1b[" not in out.getvalue()


def test_lines_below_the_configured_level_are_dropped():
    out = io.StringIO()
    configure_logging("json", "warning", out)
    structlog.get_logger().info("quiet")
    logging.getLogger("library").info("quiet")
    structlog.get_logger().warning("loud")
    logging.getLogger("library").warning("loud")
    assert [line["event"] for line in _lines(out)] == ["loud", "loud"]


def test_bound_fields_are_on_every_line_of_their_context_and_on_no_other():
    out = io.StringIO()
    configure_logging("json", stream=out)
    log = structlog.get_logger()
    with bound_contextvars(request_id="r", workspace_id="ws_1"):
        with bound_contextvars(task_id="task_1", attempt=2, fence=7):
            log.info("inner")
        log.info("outer")
    log.info("none")
    inner, outer, none = _lines(out)
    fields = {"request_id", "workspace_id", "task_id", "attempt", "fence"}
    assert fields <= inner.keys()
    assert (inner["fence"], inner["attempt"]) == (7, 2)
    assert outer.keys() & fields == {"request_id", "workspace_id"}
    assert not none.keys() & fields


async def test_two_tasks_of_the_loop_do_not_mix_their_contexts():
    out = io.StringIO()
    configure_logging("json", stream=out)

    async def work(name: str) -> None:
        with bound_contextvars(task_id=name):
            for _ in range(3):
                await asyncio.sleep(0)
                structlog.get_logger().info(name)

    await asyncio.gather(work("a"), work("b"))
    assert len(_lines(out)) == 6
    assert all(line["event"] == line["task_id"] for line in _lines(out))


def test_records_of_libraries_have_the_same_form_and_the_bound_fields():
    out = io.StringIO()
    configure_logging("json", stream=out)
    with bound_contextvars(request_id="r"):
        logging.getLogger("some.library").warning("lost %s", "it", extra={"port": 1})
    (line,) = _lines(out)
    assert (line["event"], line["logger"], line["request_id"], line["port"]) == ("lost it", "some.library", "r", 1)


def test_access_lines_of_the_server_are_dropped():
    out = io.StringIO()
    configure_logging("json", stream=out)
    logging.getLogger("uvicorn.access").info("GET /")
    assert out.getvalue() == ""


def test_an_exception_is_one_line_with_its_trace_and_without_local_variables():
    out = io.StringIO()
    configure_logging("json", stream=out)
    password = "".join(["ge", "heim"])
    try:
        int("x" + password[:0])
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("lib").exception("failed too")
    assert len(out.getvalue().splitlines()) == 2
    for line in _lines(out):
        assert "ValueError: invalid literal" in line["exception"]
        assert password not in line["exception"]


def test_a_console_exception_shows_no_local_variables_either():
    out = _Terminal()
    configure_logging("console", stream=out)
    password = "".join(["ge", "heim"])
    try:
        int("x" + password[:0])
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError" in out.getvalue()
    assert password not in out.getvalue()


@pytest.mark.parametrize("value", [object(), {1, 2}, {(1, 2): 3}, b"\xff", "\ud800", float("nan"), 1 << 80])
def test_every_value_can_be_logged(value: object):
    out = io.StringIO()
    configure_logging("json", stream=out)
    structlog.get_logger().info("odd", value=value)
    (line,) = _lines(out)
    assert line["event"] == "odd"
    assert "value" in line


def test_logging_may_be_configured_again():
    first, second = io.StringIO(), io.StringIO()
    configure_logging("json", stream=first)
    configure_logging("json", stream=second)
    logging.getLogger("lib").warning("x")
    structlog.get_logger().warning("y")
    assert first.getvalue() == ""
    assert len(_lines(second)) == 2
