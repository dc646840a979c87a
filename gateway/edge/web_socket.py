"""WebSockets on a connection, with limits that the server underneath lacks.

The server frames, pings and closes, a limited number of frames at a time (``paced_web_socket.py``). Three things are
left to this module: memory and time for messages before they are complete, bytes that the peer does not take
(``unsent.py``), and a shutdown that leaves responses time to end.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.utils import ClientDisconnected
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request

from gateway.edge.acked import TRANSPORT
from gateway.edge.lingering_close import LINGER_S
from gateway.edge.paced_web_socket import CONTROL_FRAMES_A_SECOND, MOST_CONTROL_FRAMES, PacedWebSocket
from gateway.edge.turns import Turns
from gateway.edge.unsent import Unsent
from gateway.edge.unsent_total import UnsentTotal
from gateway.intake.body_memory import BodyMemory, BodyShare
from shared.errors import Overloaded
from shared.settings import Settings

#: Key of the :class:`EdgeWebSocket` in the scope of its connection.
WEB_SOCKET: Final = "headrace.web_socket"
#: Key of the :class:`BodyShare` of a message that took one while it was received.
BODY_SHARE: Final = "headrace.body_share"
#: Bytes of an incomplete message that every connection may have without a part of the memory for bodies.
_FREE_BYTES: Final = 64 * 1024
_MOST_FRAGMENTS: Final = 16_384
#: Counted for each fragment besides its content, which may be empty.
_FRAGMENT_BYTES: Final = 64
#: The server's own lines have the query of a URL, and one line a connection: ``request_log.py`` has ours.
_quiet: Final = logging.getLogger(f"{__name__}.server")
_quiet.setLevel(logging.WARNING)


class EdgeWebSocket(PacedWebSocket):
    """One WebSocket. ``on_shutdown``: called instead of closing at once when the server stops."""

    deadline_s: ClassVar[float] = 30
    write_deadline_s: ClassVar[float] = 30
    unsent_total: ClassVar[UnsentTotal] = UnsentTotal()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = self.conn.logger = _quiet
        self.on_shutdown: Callable[[], None] | None = None
        self._unsent: Unsent | None = None
        self._resumed = 0  # number of times that the peer has made room
        self._memory: BodyMemory | None = None
        self._principal: str | None = None
        self._share: BodyShare | None = None  # of the message that is being received
        self._taking: asyncio.Task[None] | None = None
        self._message_timer: asyncio.TimerHandle | None = None

    # --- for the application

    def begin_messages(self, memory: BodyMemory, principal: str | None) -> None:
        """Receive messages from now on, within the principal's part of ``memory``."""
        self._memory, self._principal = memory, principal
        self.release("handshake")

    @property
    def has_room(self) -> bool:
        """True if a message can be written at once."""
        return self.writable.is_set() and not self.close_sent and not self.transport.is_closing()

    def write(self, messages: Iterable[bytes]) -> None:
        """Write text messages in one piece. Raises :class:`ClientDisconnected`."""
        if self.disconnected or self.close_sent or self.transport.is_closing():
            raise ClientDisconnected
        for message in messages:
            self.conn.send_text(message)
        self.transport.write(b"".join(self.conn.data_to_send()))

    async def wait_for_room(self) -> None:
        """Wait until the peer has taken all that was written. Its end is a room too: the next write then raises."""
        await self.writable.wait()

    def abort(self) -> None:
        self.transport.abort()

    # --- reading

    def handle_connect(self, event: Request) -> None:
        self.hold("handshake")
        if not "".join(event.headers.get_all("Sec-WebSocket-Key")).isascii():
            del event.headers["Sec-WebSocket-Key"]  # refused as missing; the library would take it for a bug
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope[TRANSPORT] = self.transport  # type: ignore[typeddict-unknown-key]  # beyond ASGI
            self.scope[WEB_SOCKET] = self  # type: ignore[typeddict-unknown-key]  # beyond ASGI

    def parse(self) -> None:
        super().parse()
        incomplete = len(self.conn.reader.buffer)
        if self.frames:  # not their sum: it would be computed again for each of thousands of fragments
            incomplete += (self.conn.cur_size or 0) + len(self.frames) * _FRAGMENT_BYTES
        if not incomplete or self.transport.is_closing():
            self._stop_message_timer()
            return
        if self._message_timer is None:
            self._message_timer = self.loop.call_later(self.deadline_s, self._on_message_timeout)
        if incomplete > _FREE_BYTES and self._share is None and self._taking is None and self._memory is not None:
            self.hold("memory")
            self._taking = self.loop.create_task(self._take_memory(self._memory))

    async def _take_memory(self, memory: BodyMemory) -> None:
        """Take memory for the largest message: its size is not known before it is complete."""
        share = memory.begin(self._principal)
        try:
            await share.take(self.config.ws_max_size)
        except BaseException as error:
            share.release()
            if not isinstance(error, Overloaded):
                raise
            self._taking = None
            if not self.close_sent:
                self._fail(CloseCode.TRY_AGAIN_LATER, error.message)
            return
        self._taking, self._share = None, share
        self._stop_message_timer()  # the wait for memory has a limit of its own
        self._message_timer = self.loop.call_later(self.deadline_s, self._on_message_timeout)
        self.release("memory")

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= _MOST_FRAGMENTS:
            self._fail(
                CloseCode.POLICY_VIOLATION, f"message: more than {_MOST_FRAGMENTS} fragments; send larger ones"
            )
            return
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        pieces, self.frames = self.frames, []
        self._stop_message_timer()  # the next message has its own time
        if self.close_sent:
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        share, self._share = self._share, None
        if share is not None:
            share.shrink(len(data))
            share.size = len(data)
        kind = "text" if self.curr_msg_data_type == "text" else "bytes"
        received: Any = {"type": "websocket.receive", kind: data, BODY_SHARE: share}  # beyond ASGI
        self.queue.put_nowait(received)
        self.hold("message")

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next message. Its ``text`` is bytes, which the application parses as JSON in any case."""
        message = await self.queue.get()
        if self.queue.empty():
            self.release("message")
        return message

    def handle_ping(self) -> None:
        """Answer only the last one of the pings that came together, as the standard allows."""
        written = self.conn.data_to_send()  # with the first ping: all pongs, and maybe the answer to a close frame
        self.transport.write(b"".join(written[self._pings - 1 :]))

    def on_flood(self) -> None:
        limits = f"{MOST_CONTROL_FRAMES} at once, and then {CONTROL_FRAMES_A_SECOND} a second"
        self._fail(CloseCode.POLICY_VIOLATION, f"pings and pongs: more than {limits}")

    def handle_parser_exception(self) -> None:
        """Close with the reason, and leave the peer time to read it: unread bytes would reset the connection. Called
        again for all that the peer still sends."""
        if self.close_timer is not None:
            return
        closing = self.conn.close_sent
        code, reason = (1006, "") if closing is None else (closing.code, closing.reason)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.frames = []
        self.drop_unparsed()
        self._give_up_share()
        self.release_all()
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.close)

    # --- writing, and the end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._unsent = Unsent(self, self.write_deadline_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._unsent is not None:
            self._unsent.stop()
            self._unsent = None
        self.unsent_total.remove(self)
        self._stop_message_timer()
        self.drop_unparsed()
        if self._taking is not None:
            self._taking.cancel()
        super().connection_lost(exc)
        self._give_up_share()
        while not self.queue.empty():  # messages that nobody reads any more
            message = self.queue.get_nowait()
            if (share := message.get(BODY_SHARE)) is not None:
                share.release()  # type: ignore[attr-defined]
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unsent_total.add(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unsent_total.remove(self)
        self._resumed += 1

    @property
    def awaits_peer(self) -> bool:
        return not self.writable.is_set() or self.transport.is_closing()

    @property
    def writes(self) -> object:
        return self._resumed

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.close":
            self.release_all()  # for the peer's answer

    def shutdown(self) -> None:
        if self.on_shutdown is None or self.close_sent:
            super().shutdown()
        else:
            self.on_shutdown()

    # --- internal

    def _fail(self, code: CloseCode, reason: str) -> None:
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def _on_message_timeout(self) -> None:
        self._message_timer = None
        if self.is_held:  # the rest may be there, unread
            self._message_timer = self.loop.call_later(self.deadline_s, self._on_message_timeout)
        elif not self.close_sent:
            self._fail(CloseCode.POLICY_VIOLATION, f"message: not received within {self.deadline_s:g} s")

    def _stop_message_timer(self) -> None:
        if self._message_timer is not None:
            self._message_timer.cancel()
            self._message_timer = None

    def _give_up_share(self) -> None:
        share, self._share = self._share, None
        if share is not None:
            share.release()


def web_socket_protocol(settings: Settings) -> type[EdgeWebSocket]:
    """Return the class that the server instantiates for each WebSocket."""

    class WebSocket(EdgeWebSocket):
        turns = Turns()
        deadline_s = settings.request_deadline_s
        write_deadline_s = settings.write_deadline_s

    return WebSocket
