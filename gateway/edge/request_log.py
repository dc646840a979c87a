"""Log line and, if tracing is on, span of one request.

Neither contains a query (tickets are in it), a header or a body. The path is the route's template.
"""

import logging
import re
import secrets
import time
from contextvars import ContextVar
from typing import Any, Final

from starlette.types import Scope

from gateway import metrics
from gateway.edge.headers import Field
from shared.protocol.ids import is_stream_id
from shared.tracing import NO_SPAN, Span, Tracing

logger = logging.getLogger(__name__)

_GOOD_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
#: Requested all the time; logged at level debug.
_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics", "/ops/overview", "/page"})
_CREATING: Final = frozenset(
    {"/chat", "/chat/stream", "/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat"}
)
#: ``WS``: a message on a WebSocket.
_CREATING_METHODS: Final = frozenset({"POST", "WS"})
_RESUMING: Final = frozenset({"/chat/stream/{stream_id}", "/api/chat/{chat_id:path}/stream"})
#: Paths that create streams, and so start traces.
_TRACED: Final = ("/chat", "/v1/", "/api/chat")
#: Exceptions that end a response early without a fault of this gateway.
_CUTS: Final = frozenset(
    {
        *("Drained", "Stalled", "GrantEnded", "CancelledError", "ClientDisconnect", "ClientDisconnected"),
        "ConnectionResetError",
    }
)


class RequestLog:
    """Log line and span of one request. ``request_id``: the caller's own ``X-Request-Id`` if it is a plain word, else
    ours. ``principal``: the caller, once authenticated. ``span``: the request's; the caller's ``traceparent`` is its
    parent."""

    def __init__(self, scope: Scope, tracing: Tracing) -> None:
        headers = dict(scope["headers"])
        sent_id = headers.get(b"x-request-id", b"")
        is_plain = _GOOD_ID.fullmatch(sent_id)
        self.request_id = sent_id.decode() if is_plain else secrets.token_hex(8)
        self.principal: str | None = None
        self.span: Span = NO_SPAN
        self._tracing = tracing
        self._method: str = scope.get("method", "GET")  # a WebSocket begins with a GET
        self._status: int | None = None
        self._stream_id: str | None = None
        self._began_ms = time.time_ns() // 1_000_000
        self._clock = time.monotonic()
        if tracing.is_on and self._method in _CREATING_METHODS and scope["path"].startswith(_TRACED):
            self._start_span(headers.get(b"traceparent", b"").decode("latin-1"))

    @property
    def can_be_traced(self) -> bool:
        return self._tracing.is_on

    def resumed(self, traceparent: str, how: str) -> None:
        """Continue the stream's trace with this request, because a reader resumed. Requires :attr:`can_be_traced`."""
        self._start_span(traceparent)
        self.span.event("resume", {"headrace.resume": how})

    def responded(self, status: int, fields: list[Field]) -> None:
        self._status = status
        self._stream_id = next((value.decode() for name, value in fields if name == b"x-stream-id"), None)

    def write(self, scope: Scope, cut: BaseException | None) -> None:
        """Write the line once the request is over. ``cut``: the exception that ended it early."""
        path = _template(scope)
        line: dict[str, Any] = {
            "request_id": self.request_id,
            "method": self._method,
            "path": path,
            "status": self._status,
            "duration_s": round(time.monotonic() - self._clock, 4),
            "principal": self.principal,
            "stream_id": self._stream_id or _stream_id(scope),
            "trace_id": self.span.trace_id,
            "cut": type(cut).__name__ if cut is not None else None,
        }
        logger.log(logging.DEBUG if path in _QUIET else logging.INFO, "request", extra=line)
        if path not in _QUIET:
            metrics.REQUESTS.labels(_kind(self._method, path), self._outcome(cut)).inc()
        if self.span is not NO_SPAN:
            self._end_span(line)

    def _outcome(self, cut: BaseException | None) -> str:
        """Return the outcome as metrics count it: ``cut`` if the client left or stalled, its grant ended, or this
        gateway drains. Other exceptions are bugs, or outages within a response."""
        if type(cut).__name__ in _CUTS:
            return "cut"
        if cut is not None or self._status is None or self._status >= 500:
            return "failed"
        return "ok" if self._status < 400 else "refused"

    def _start_span(self, parent: str) -> None:
        attributes = {"http.request.method": self._method, "headrace.request_id": self.request_id}
        self.span = self._tracing.start(
            self._method, "server", parent=parent, attributes=attributes, began_ms=self._began_ms
        )

    def _end_span(self, line: dict[str, Any]) -> None:
        self.span.rename(f"{self._method} {line['path']}" if line["path"] else self._method)
        attributes = {"http.route": "path", "http.response.status_code": "status", "headrace.stream_id": "stream_id"}
        self.span.set({name: line[key] for name, key in attributes.items() if line[key]})
        if self._status is None or self._status >= 500:
            self.span.fail(str(self._status or line["cut"]))
        self.span.end()


_current: ContextVar[RequestLog | None] = ContextVar("request_log", default=None)


def begin_request_log(scope: Scope, tracing: Tracing) -> RequestLog:
    """Start the log of the request that this task handles."""
    request_log = RequestLog(scope, tracing)
    _current.set(request_log)
    return request_log


def current_request_log() -> RequestLog | None:
    return _current.get()


def _kind(method: str, path: str | None) -> str:
    """Return whether a request creates a stream, resumes one, or does anything else."""
    if method in _CREATING_METHODS and path in _CREATING:
        return "create"
    return "resume" if method == "GET" and path in _RESUMING else "other"


def _stream_id(scope: Scope) -> str | None:
    """Return the stream id in the path, if it is one; anything else there is the caller's text."""
    in_path: str = scope.get("path_params", {}).get("stream_id", "")
    return in_path if is_stream_id(in_path) else None


def _template(scope: Scope) -> str | None:
    """Return the route's template; None if no route matches."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path or ("/page" if scope["path"].startswith("/page/") else None)
