"""Logs: one event per line on stderr, JSON off a terminal and readable on one.

    log = structlog.get_logger("wvs.executor")
    structlog.contextvars.bind_contextvars(workspace_id=…, task_id=…, attempt=1, fence=7)
    log.info("clone.finished", files=12)

The event is a stable name; values go into fields. Bound fields are on every later line of the same context, and asyncio
tasks inherit them, so that one grep follows a request from the API to the executor. uvicorn and Litestar must not
configure logging themselves (`log_config=None`, `logging_config=None`): their records go through `logging` to here.
"""

import logging
import sys
from typing import Any, Final, Literal, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor

LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

_LEVELS: Final[dict[LogLevel, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# These loggers are chatty below these levels, and their access lines would repeat ours.
_QUIETER: Final = {"uvicorn.access": logging.WARNING, "asyncio": logging.WARNING, "httpx": logging.WARNING}


def configure_logging(log_format: LogFormat = "auto", level: LogLevel = "info", stream: TextIO | None = None) -> None:
    """Sends every log line of this process to `stream` (default: the current stderr). May be called again."""
    target = stream or sys.stderr
    console = log_format == "console" or (log_format == "auto" and target.isatty())
    shared = _processors()
    renderer = _console_renderer(colors=target.isatty()) if console else _render_json
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=stream is None,
    )
    _configure_stdlib(shared, renderer, target, _LEVELS[level])


def _processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]


def _console_renderer(*, colors: bool) -> Processor:
    # The default formatter prints the local variables of every frame, passwords included.
    return structlog.dev.ConsoleRenderer(
        colors=colors, timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
    )


_encode_json = msgspec.json.Encoder(enc_hook=repr).encode


def _render_json(logger: Any, name: str, event: EventDict) -> str:
    fields = structlog.processors.format_exc_info(logger, name, event)
    first = {key: fields.pop(key) for key in ("time", "level", "event") if key in fields}
    try:
        return _encode_json({**first, **fields}).decode()
    except (TypeError, ValueError, msgspec.MsgspecError):
        plain = {str(key): repr(value) for key, value in fields.items()}
        return _encode_json({**{key: str(value) for key, value in first.items()}, **plain}).decode()


def _configure_stdlib(shared: list[Processor], renderer: Processor, target: TextIO, level: int) -> None:
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in list(logging.Logger.manager.loggerDict):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name, least in _QUIETER.items():
        logging.getLogger(name).setLevel(max(least, level))
