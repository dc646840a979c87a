"""WebSockets that parse what they receive in parts, so that a flood of small frames delays no other connection.

The library underneath parses all of a read at once. 256 kB of empty pings are 43,000 frames, and 0.15 s in which
a gateway does nothing else. Here a connection parses a limited number of frames, and then waits for its next turn
(``turns.py``). Until then it does not read.
"""

from typing import Any, ClassVar, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode

from gateway.edge.turns import Turns

#: Frames in one turn, and bytes that are parsed before they are counted. Large messages are few frames: a read of
#: such a message is parsed in one turn.
_FRAMES_A_TURN: Final = 64
_BYTES_A_PIECE: Final = 1024
#: Pings of a client, and pongs that nobody asked for.
MOST_CONTROL_FRAMES: Final = 1000
CONTROL_FRAMES_A_SECOND: Final = 10
_TURN: Final = "turn"
_NOTHING: Final = memoryview(b"")


class PacedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket that reads and parses while it has no reason to hold. Subclasses close it in ``on_flood``."""

    turns: ClassVar[Turns] = Turns()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._holds: set[str] = set()
        self._unparsed = _NOTHING
        self._parsed_frames = 0  # parsed so far
        self._pings = 0  # of those that were parsed together
        self._control_frames = float(MOST_CONTROL_FRAMES)  # what is left of the budget, at this time:
        self._counted_at = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Parse ``data``, or keep it for the next turn. The handshake is parsed at once."""
        self._unparsed = memoryview(b"".join((self._unparsed, data)) if self._unparsed else data)
        if self.turns.is_free or not self.handshake_initiated:
            self.parse()
        else:
            self._wait_for_turn()

    def parse(self) -> None:
        """Parse as much as one turn allows."""
        limit = self._parsed_frames + _FRAMES_A_TURN
        while self._unparsed and not self._holds:
            piece, self._unparsed = self._unparsed[:_BYTES_A_PIECE], self._unparsed[_BYTES_A_PIECE:]
            super().data_received(piece)  # type: ignore[arg-type]  # the library takes any bytes
            if self._parsed_frames >= limit and self._unparsed:
                self._wait_for_turn()

    def handle_events(self) -> None:
        frames = [event for event in self.conn.events if isinstance(event, Frame)]
        self._parsed_frames += len(frames)
        self._pings = sum(frame.opcode is Opcode.PING for frame in frames)
        pongs = [bytes(frame.data) for frame in frames if frame.opcode is Opcode.PONG]
        unasked = len(pongs) - (self.pending_ping_payload in pongs)
        if self._exceeds_budget(self._pings + unasked) and not self.close_sent:
            self.conn.events_received()  # the flood, which nobody handles
            self.on_flood()
            return
        super().handle_events()

    def on_flood(self) -> None:
        """Close: the client has sent more pings and pongs than its budget."""
        raise NotImplementedError

    def drop_unparsed(self) -> None:
        self._unparsed = _NOTHING

    # --- reasons not to read

    def hold(self, reason: str) -> None:
        self._holds.add(reason)
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def release(self, reason: str) -> None:
        self._holds.discard(reason)
        self._go_on()

    def release_all(self) -> None:
        self._holds.clear()
        self._go_on()

    @property
    def is_held(self) -> bool:
        """True if something other than its turn keeps this connection from reading."""
        return not self._holds <= {_TURN}

    def _go_on(self) -> None:
        if not self._holds:
            self.parse()
        if not self._holds and not self.transport.is_closing():
            self.transport.resume_reading()

    def _wait_for_turn(self) -> None:
        if _TURN not in self._holds:
            self.hold(_TURN)
            self.turns.wait(self._take_turn, self.loop)

    def _take_turn(self) -> None:
        self.release(_TURN)

    def _exceeds_budget(self, control_frames: int) -> bool:
        if not control_frames:
            return False
        now = self.loop.time()
        refilled = self._control_frames + (now - self._counted_at) * CONTROL_FRAMES_A_SECOND
        self._control_frames = min(refilled, MOST_CONTROL_FRAMES) - control_frames
        self._counted_at = now
        return self._control_frames < 0
