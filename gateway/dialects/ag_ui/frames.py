"""Frames of AG-UI streams that do not depend on what was rendered before."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from gateway.dialects.ag_ui.cursor import Cursor, Shown
from gateway.dialects.append_only import STREAM_RESET
from shared.protocol.events import Error

#: Place of the request's messages in a snapshot: the caller fills it in, because they are not at hand here. No JSON
#: has these bytes.
MESSAGES: Final = b"\0messages\0"
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """A run, with the ids that its client gave it. ``has_messages``: the messages of its request are known."""

    thread_id: str
    run_id: str
    has_messages: bool

    def message_id(self, base: int) -> str:
        """Return the id of the assistant message of the answer that began in the epoch ``base``."""
        return f"{self.run_id}/{base}"


def frame(cursor: str, kind: str, members: Body) -> bytes:
    return b"id: %b\ndata: %b\n\n" % (cursor.encode(), msgspec.json.encode({"type": kind, **members}))


def synthetic(kind: str, members: Body) -> bytes:
    """Return a frame without an id: no log has it."""
    return b"data: %b\n\n" % msgspec.json.encode({"type": kind, **members})


def custom(name: str, value: Body) -> bytes:
    return synthetic("CUSTOM", {"name": name, "value": value})


def snapshot(cursor: Cursor, emptied: str | None = None) -> bytes:
    """Return the frame with the messages of the request. ``emptied``: id of an empty reasoning message after them:
    clients keep the reasoning messages that they have unless a snapshot has one."""
    message = {"id": emptied, "role": "reasoning", "content": ""}
    empty = b"," + msgspec.json.encode(message) if emptied is not None else b""
    data = b'{"type":"MESSAGES_SNAPSHOT","messages":[%b%b]}' % (MESSAGES, empty)
    return b"id: %b\ndata: %b\n\n" % (str(cursor).encode(), data)


def with_messages(rendered: bytes, messages: bytes) -> bytes:
    """Return what was rendered, with the messages of the request in each snapshot. ``messages``: entries of the list;
    there are none if the request had only context."""
    if not messages:
        rendered = rendered.replace(MESSAGES + b",", b"")
    return rendered.replace(MESSAGES, messages)


def failure(error: Error) -> Body:
    more = {"providerCode": error.provider_code} if isinstance(error.provider_code, str) else {}
    return {"message": error.message, "code": error.code, "metadata": {"retryable": error.retryable, **more}}


def closing(run: Run, had: Cursor) -> Iterator[bytes]:
    """Yield frames that close the open parts of an answer that is taken back. They repeat the event of ``had``: a
    client that is cut in between resumes there, with fewer open parts."""
    for kind, members, left in _closed(run, had.shown) if had.shown is not None else ():
        yield frame(str(replace(had, shown=left)), kind, members)


def _closed(run: Run, shown: Shown) -> Iterator[tuple[str, Body, Shown]]:
    """Yield each closing event, and the parts that are open after it."""
    message_id, number = run.message_id(shown.base), shown.part[1:]
    of_reasoning = {"messageId": f"{message_id}/r{number}"}
    if shown.part == "t":
        shown = replace(shown, part="")
        yield "TEXT_MESSAGE_END", {"messageId": message_id}, shown
    if shown.part.startswith("r"):
        shown = replace(shown, part=f"s{number}")
        yield "REASONING_MESSAGE_END", of_reasoning, shown
    if shown.part.startswith("s"):
        shown = replace(shown, part="")
        yield "REASONING_END", of_reasoning, shown
    for call_id in shown.calls:
        shown = replace(shown, calls=shown.calls[1:])
        yield "TOOL_CALL_END", {"toolCallId": call_id}, shown


#: Ending for a client that shows an answer that was restarted, if the messages of the request are not known.
NOT_KEPT: Final = synthetic("RUN_ERROR", failure(STREAM_RESET))
