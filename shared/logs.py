"""Logging for every process: one line each, to stderr, of ids, names, counts and times.

Whoever logs uses ``logging``, with ``extra=`` for what a machine is to find again; structlog makes the lines, ours
and those of libraries alike: JSON for machines, or words for people (docs/observability.md).
"""

import logging
import sys
from typing import Any, Final, Literal

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["json", "text"]

_FIRST: Final = ("time", "level", "logger", "event")


def configure_logging(level: str, form: Format | None = None) -> None:
    """``level`` for our own lines; libraries speak up only when something is wrong. ``form``: where nothing is said,
    text on a terminal and JSON elsewhere."""
    is_terminal = sys.stderr.isatty()
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter(form or ("text" if is_terminal else "json"), colours=is_terminal))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    for package in ("gateway", "workers", "shared", "headrace"):
        logging.getLogger(package).setLevel(level.upper())
    # It logs what a job raises, message and all; workers.queue says which job broke without it.
    logging.getLogger("arq").setLevel(logging.CRITICAL)
    # A collector that is away gets a line for each batch that is given up, not for each try.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)


def _formatter(form: Format, *, colours: bool) -> logging.Formatter:
    # Tracebacks are plain ones: structlog's own, and rich's, would show the values of variables.
    last: list[Processor]
    stamp = structlog.processors.TimeStamper(fmt="iso", key="time")
    if form == "json":
        last = [structlog.processors.format_exc_info, _in_order, structlog.processors.JSONRenderer(_to_json)]
    else:
        plain = structlog.dev.plain_traceback
        stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False, key="time")
        last = [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain, timestamp_key="time")]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            _drop_nothings,
            stamp,
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _drop_nothings(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    return {name: value for name, value in line.items() if value is not None and value != ""}


def _in_order(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    return {**{name: line.pop(name) for name in _FIRST if name in line}, **line}


def _to_json(line: Any, **_: object) -> str:
    return msgspec.json.encode(line, enc_hook=str).decode()
