"""HTTP/1.1 on a connection, with limits and refusals that the server underneath lacks.

The parser itself refuses requests that two readers could interpret differently: two lengths, a length and an
encoding, bare line feeds, bad chunks. Three things are left to this module: ambiguous requests that the parser
accepts, trailer fields after a body (the server would take them for header fields), and endless heads (neither
parser nor server bounds their size, their number of fields or their time). Two more are about the connection itself:
its response must leave in time (``unsent.py``), and there is a limit to the number of connections (``crowd.py``).
"""

import asyncio
from typing import Any, ClassVar, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.edge.acked import TRANSPORT
from gateway.edge.body_writer import BODY_WRITER, BodyWriter
from gateway.edge.crowd import Crowd
from gateway.edge.lingering_close import LINGER_S, MOST_LINGER_BYTES
from gateway.edge.refusals import FULL, MOST_FIELDS, MOST_HEAD_BYTES, NOT_HTTP, TOO_LARGE, Refusal, Refused, bad
from gateway.edge.unsent import Unsent
from gateway.edge.unsent_total import UnsentTotal
from gateway.edge.web_socket import EdgeWebSocket
from shared.settings import Settings

WEB_SOCKET_PATH: Final = b"/v1/responses"

_VERSIONS: Final = frozenset({"1.0", "1.1"})
#: Time for a last read of an idle connection before it is closed.
_LAST_READ_S: Final = 0.05


class _Parser(httptools.HttpRequestParser):
    """Keeps the bytes that follow the head of an upgrade in the same read: the server drops them, and a client may
    send its first message together with the handshake."""

    rest = b""

    def feed_data(self, data: Any) -> None:
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
            raise


class EdgeProtocol(HttpToolsProtocol):
    """One connection. Every refusal ends it, so that nothing after it is taken for a request."""

    #: A head must be complete within this time.
    deadline_s: ClassVar[float] = 30
    write_deadline_s: ClassVar[float] = 30
    crowd: ClassVar[Crowd]
    unsent_total: ClassVar[UnsentTotal] = EdgeWebSocket.unsent_total  # one limit for all connections

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = self._upgrading = _Parser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as the server's own
        self._refusal = NOT_HTTP
        self._in_head = False
        self._idle_bytes = 0  # received since the last body byte, or the end of a head
        self._linger_bytes_left = 0
        self._head_timer: asyncio.TimerHandle | None = None  # runs while a head is awaited
        self._lingering: asyncio.TimerHandle | None = None  # runs once a request was refused
        self._unsent: Unsent | None = None
        self._resumed = 0  # number of times that the peer has made room

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._unsent = Unsent(self, self.write_deadline_s)
        self._start_head_timer()
        if not self.crowd.make_room_for(self, len(self.connections)):
            transport.write(FULL.render())
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self.crowd.is_busy(self)
        self.unsent_total.remove(self)
        if self._unsent is not None:
            self._unsent.stop()
            self._unsent = None
        if self._lingering is not None:
            self._lingering.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingering is not None:
            self._drop(data)
            return
        if self.cycle is not None and not self.cycle.more_body:
            self._start_head_timer()
        self._idle_bytes += len(data)
        super().data_received(data)
        if self._idle_bytes > MOST_HEAD_BYTES and self._lingering is None and not self.transport.is_closing():
            self._refuse(TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[TRANSPORT] = self.transport  # type: ignore[typeddict-unknown-key]  # beyond ASGI
        self._in_head = True
        self._start_head_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Pass on fields of the head alone: trailers after a body are not header fields of the request."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._idle_bytes = 0
        self._stop_head_timer()
        self.crowd.is_busy(self)
        try:
            self._check()
        except Refused as error:
            self._refusal = error.refusal
            raise
        super().on_headers_complete()
        if self.parser.should_upgrade() and self._should_upgrade():
            return
        self.scope[BODY_WRITER] = BodyWriter(self.cycle, self.flow, self.transport)  # type: ignore[typeddict-unknown-key]  # beyond ASGI
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # the parser accepts nothing more on this connection

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._idle_bytes = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unsent_total.add(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unsent_total.remove(self)
        self._resumed += 1

    @property
    def awaits_peer(self) -> bool:
        """True if nothing more is written until the peer takes what is there."""
        is_complete = self.cycle is not None and self.cycle.response_complete
        return is_complete or self.flow.write_paused or self.transport.is_closing()

    @property
    def writes(self) -> object:
        """A value that changes whenever a response begins or the peer has made room."""
        return self.cycle, self._resumed

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline and not self.transport.is_closing():
            self.crowd.is_idle(self)

    def timeout_keep_alive_handler(self) -> None:
        """Close the idle connection, unless a request comes with the next read. After a stall of this process, timers
        run before what arrived meanwhile is read."""
        self.timeout_keep_alive_task = self.loop.call_later(_LAST_READ_S, super().timeout_keep_alive_handler)

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal)

    def _should_upgrade_to_ws(self) -> bool:
        """Return True on the one path that serves WebSockets; elsewhere the wish to upgrade is ignored."""
        path = self.url.partition(b"?")[0]
        return self.ws_protocol_class is not None and path == WEB_SOCKET_PATH and self.parser.get_method() == b"GET"

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to its WebSocket (``web_socket.py``)."""
        self._stop_head_timer()
        self.unsent_total.remove(self)
        if self._unsent is not None:
            self._unsent.stop()
            self._unsent = None
        super().handle_websocket_upgrade()
        web_socket = self.transport.get_protocol()
        if not isinstance(web_socket, EdgeWebSocket):
            return
        if not web_socket.handshake_initiated:
            self.transport.write(TOO_LARGE.render())  # its parser takes no line of more than 8 KiB
            self.transport.close()
        elif self._upgrading.rest:
            web_socket.data_received(self._upgrading.rest)

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: the standard lets a server ignore it, and a client must not be able to fill the log."""

    def _check(self) -> None:
        """Raise :class:`Refused` for a head over the limits, or one that proxies interpret differently."""
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            raise bad("only HTTP/1.1 and HTTP/1.0 are supported")
        size, hosts, encodings = len(self.url), 0, []
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                encodings.append(value.lower())
        if size > MOST_HEAD_BYTES or len(self.headers) > MOST_FIELDS:
            raise Refused(TOO_LARGE)
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            raise bad("Host: must be sent exactly once")
        if encodings and (version == "1.0" or encodings != [b"chunked"]):
            # Proxies interpret these differently.
            raise bad("Transfer-Encoding: only chunked is supported, with HTTP/1.1")
        if self.parser.should_upgrade() and self._should_upgrade() and (self._responds or self.flow.write_paused):
            raise bad("Upgrade: an earlier request of this connection has not been answered; use another connection")
        if self.parser.should_upgrade() and (encodings or self._length() > 0):
            # The parser would drop the body, and the application would see an empty request.
            raise bad("Upgrade: not supported; leave it out")

    @property
    def _responds(self) -> bool:
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    def _length(self) -> int:
        return next((int(value) for name, value in self.headers if name == b"content-length"), 0)

    def _refuse(self, refusal: Refusal) -> None:
        """Respond unless an earlier request on this connection still awaits its response; then only close, because
        the client would take the refusal for that response."""
        self._stop_head_timer()
        cycle = self.cycle
        is_idle = (cycle is None or cycle.response_complete) and not self.pipeline
        if is_idle or (cycle is not None and not cycle.response_started and cycle.more_body and not self.pipeline):
            self.transport.write(refusal.render())
        if is_idle and self.transport.can_write_eof():
            self.transport.write_eof()
            self._linger_bytes_left = MOST_LINGER_BYTES
            self._lingering = self.loop.call_later(LINGER_S, self.transport.close)
        else:
            self.transport.close()

    def _drop(self, data: bytes) -> None:
        self._linger_bytes_left -= len(data)
        if self._linger_bytes_left < 0:
            self.transport.close()

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.deadline_s, self._on_head_timeout)

    def _on_head_timeout(self) -> None:
        """Close the connection, unless a response is under way: late bytes behind it are no reason to cut it."""
        self._head_timer = None
        if not self.pipeline and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def protocol(settings: Settings, most_connections: int) -> type[EdgeProtocol]:
    """Return the class that the server instantiates for each connection. ``most_connections``: limit of all of
    them."""

    class Protocol(EdgeProtocol):
        deadline_s = settings.request_deadline_s
        write_deadline_s = settings.write_deadline_s
        crowd = Crowd(most_connections)

    return Protocol
