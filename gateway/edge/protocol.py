"""HTTP/1.1 on a connection, with the limits and refusals that the server beneath has not.

The parser itself refuses what two readers could take for different requests: two lengths, a length and an encoding,
bare line feeds, bad chunks. Left to us are requests that it lets through although they are of that kind, fields that
trail a body, which the server would take for fields of the head, and heads without end: neither of them bounds their
size, their number of fields or their time.
"""

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.edge.acked import TRANSPORT
from gateway.edge.headers import ALWAYS, NO_STORE
from gateway.edge.lingering_close import MOST_UNREAD_BYTES, UNREAD_S
from shared.settings import Settings

#: Of the request line and all fields. Tokens of identity providers are the largest that is sent in earnest.
MOST_HEAD_BYTES: Final = 32 * 1024
MOST_FIELDS: Final = 100

_VERSIONS: Final = frozenset({"1.0", "1.1"})


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The answer to a request that does not reach the application."""

    status: HTTPStatus
    code: str
    message: str


class _Refused(Exception):
    """Leaves the parser through the server, which then asks for an answer. Made anew each time: one that is kept
    would keep the frames, and so the connections, that it was ever raised in."""

    def __init__(self, refusal: _Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


_NOT_HTTP: Final = _Refusal(HTTPStatus.BAD_REQUEST, "bad_request", "this is not HTTP/1.1")
_TOO_LARGE: Final = _Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "headers_too_large",
    f"the request's head has more than {MOST_HEAD_BYTES} bytes or {MOST_FIELDS} fields",
)


def _bad(message: str) -> _Refused:
    return _Refused(_Refusal(HTTPStatus.BAD_REQUEST, "bad_request", message))


class EdgeProtocol(HttpToolsProtocol):
    """One connection. Whatever is refused here ends it, so that nothing that follows is taken for a request."""

    #: A head that is not whole after this never will be.
    deadline_s: ClassVar[float] = 30

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._refusal = _NOT_HTTP
        self._in_head = False
        self._idle_bytes = 0  # came since the last of a body, or the end of a head
        self._left = 0
        self._deadline: asyncio.TimerHandle | None = None  # runs while a head is awaited
        self._lingering: asyncio.TimerHandle | None = None  # runs once a request was refused

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._has_head()
        if self._lingering is not None:
            self._lingering.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingering is not None:
            self._drop(data)
            return
        if self.cycle is not None and not self.cycle.more_body:
            self._await_head()
        self._idle_bytes += len(data)
        super().data_received(data)
        if self._idle_bytes > MOST_HEAD_BYTES and self._lingering is None and not self.transport.is_closing():
            self._refuse(_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[TRANSPORT] = self.transport  # type: ignore[typeddict-unknown-key]  # beyond ASGI
        self._in_head = True
        self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the head alone: what trails a body is no field of the request, whoever let it through."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._idle_bytes = 0
        self._has_head()
        try:
            self._check()
        except _Refused as error:
            self._refusal = error.refusal
            raise
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # the parser takes nothing more of this connection

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._idle_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal)

    def _unsupported_upgrade_warning(self) -> None:
        """No news: it is ignored, as the standard has it, and the log is not the client's to fill."""

    def _check(self) -> None:
        """Raises :class:`_Refused`."""
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            raise _bad("only HTTP/1.1 and HTTP/1.0 are spoken here")
        size, hosts, encoding = len(self.url), 0, b""
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                encoding = value
        if size > MOST_HEAD_BYTES or len(self.headers) > MOST_FIELDS:
            raise _Refused(_TOO_LARGE)
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            raise _bad("there must be one Host")
        if encoding and (version == "1.0" or encoding.lower() != b"chunked"):
            # Proxies differ in what they make of these.
            raise _bad("the only Transfer-Encoding is chunked, with HTTP/1.1")
        if self.parser.should_upgrade() and (encoding or self._length() > 0):
            # The parser would drop the body, and the answer be one to an empty request.
            raise _bad("there is no other protocol to upgrade to; leave Upgrade out")

    def _length(self) -> int:
        return next((int(value) for name, value in self.headers if name == b"content-length"), 0)

    def _refuse(self, refusal: _Refusal) -> None:
        """An answer, if the next one on this connection would be to what is refused; else nothing but the end: a
        client takes what comes for the answer to its earlier request."""
        self._has_head()
        cycle = self.cycle
        is_idle = (cycle is None or cycle.response_complete) and not self.pipeline
        if is_idle or (cycle is not None and not cycle.response_started and cycle.more_body and not self.pipeline):
            self.transport.write(_rendered(refusal))
        if is_idle and self.transport.can_write_eof():
            self.transport.write_eof()
            self._left = MOST_UNREAD_BYTES
            self._lingering = self.loop.call_later(UNREAD_S, self.transport.close)
        else:
            self.transport.close()

    def _drop(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.transport.close()

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.deadline_s, self._late)

    def _late(self) -> None:
        """What trickles in behind a request whose answer is under way is no reason to cut that."""
        self._deadline = None
        if not self.pipeline and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    def _has_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def protocol(settings: Settings) -> type[EdgeProtocol]:
    """What the server makes of each connection."""

    class Protocol(EdgeProtocol):
        deadline_s = settings.request_deadline_s

    return Protocol


def _rendered(refusal: _Refusal) -> bytes:
    error = {"code": refusal.code, "message": refusal.message, "retryable": False}
    body = json.dumps({"error": error}).encode()
    fields = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        NO_STORE,
        *ALWAYS,
    ]
    lines = [b"HTTP/1.1 %d %b" % (refusal.status, refusal.status.phrase.encode())]
    lines += [b"%b: %b" % field for field in fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
