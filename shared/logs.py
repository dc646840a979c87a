"""Logging of every process: one line per event, to stderr, with ids, names, counts and times.

Modules use ``logging``, with a constant message and ``extra=`` for fields. structlog formats all lines, including
those of libraries: as JSON for machines or as text for people (docs/observability.md).
"""

import logging
import sys
from io import StringIO
from typing import Any, Final, Literal, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from shared.printable import escaped_json, printable, printable_value

Format = Literal["json", "text"]

_FIRST: Final = ("time", "level", "logger", "event")


def configure_logging(level: str, form: Format | None = None) -> None:
    """Configure the root logger.

    ``level`` is for our own lines; libraries log from WARNING on. ``form`` is by default text on a terminal and JSON
    elsewhere.
    """
    is_terminal = sys.stderr.isatty()
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter(form or ("text" if is_terminal else "json"), colours=is_terminal))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    for package in ("gateway", "workers", "shared", "headrace"):
        logging.getLogger(package).setLevel(level.upper())
    logging.getLogger("audit").setLevel(logging.INFO)  # at every level: the lines are a record, not diagnosis
    # arq logs the message of a job's exception, which may be private; workers/jobs/queue.py logs the job without it.
    logging.getLogger("arq").setLevel(logging.CRITICAL)
    # An unavailable collector gets a line for each batch that is dropped, not for each retry.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)


def _formatter(form: Format, *, colours: bool) -> logging.Formatter:
    last: list[Processor]
    safe: list[Processor] = []
    stamp = structlog.processors.TimeStamper(fmt="iso", key="time")
    if form == "json":
        last = [structlog.processors.format_exc_info, _sort_first_fields, structlog.processors.JSONRenderer(_to_json)]
    else:
        safe = [_printable_fields]
        stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False, key="time")
        last = [
            structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=_plain_traceback, timestamp_key="time")
        ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            _drop_empty_fields,
            *safe,
            stamp,
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _drop_empty_fields(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    return {name: value for name, value in line.items() if value is not None and value != ""}


def _printable_fields(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Make all texts safe for a terminal. The exception and structlog's own fields stay as they are."""
    return {
        name: value if name == "exc_info" or name.startswith("_") else printable_value(value)
        for name, value in line.items()
    }


def _plain_traceback(out: TextIO, error: ExcInfo) -> None:
    """Write a traceback without the values of variables and without control characters."""
    written = StringIO()
    structlog.dev.plain_traceback(written, error)
    out.write(printable(written.getvalue()))


def _sort_first_fields(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    return {**{name: line.pop(name) for name in _FIRST if name in line}, **line}


def _to_json(line: Any, **_: object) -> str:
    return escaped_json(msgspec.json.encode(line, enc_hook=str).decode())
