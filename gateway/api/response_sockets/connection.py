"""One WebSocket with its responses: frames in, events out, and the end of it."""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.utils import ClientDisconnected

from gateway.api import errors, streams
from gateway.api.previous_responses import PREFIX, stream_id_of
from gateway.api.response_sockets.exchange import Exchange, request_of
from gateway.api.response_sockets.frames import RESUME, BadFrame, Cancel, Create, Resume, Steer, parse_frame
from gateway.api.response_sockets.outgoing import Outgoing, error_message, message
from gateway.auth.grants import Grant
from gateway.auth.principal import ANONYMOUS, Principal
from gateway.edge.web_socket import BODY_SHARE, WEB_SOCKET, EdgeWebSocket
from gateway.intake.body_memory import BodyShare
from gateway.state import GatewayState
from shared.errors import (
    ConnectionTooOld,
    Draining,
    HeadraceError,
    InvalidRequest,
    TooManyResponses,
    Unauthenticated,
)
from shared.scopes import Scope as Right
from shared.tracing import Tracing

#: Frames that wait for the end of their track's response: their number, and their bytes.
MOST_WAITING: Final = 16
MOST_WAITING_BYTES: Final = 256 * 1024
#: Time before the end of a drain at which responses that have not ended are cut.
_CUT_BEFORE_S: Final = 2.0
_GOING_AWAY: Final = 1001
_POLICY: Final = 1008
_BUG: Final = 1011
_RESTART: Final = 1012
CANCEL_ACCEPTED: Final = "response.cancel.accepted"
_REMEDY: Final = "await the end of one, or open another connection"
_NO_STEERING: Final = "steering is not supported; send the input with response.create after the end of the response"


@dataclass(slots=True)
class _Track:
    """Responses with one ``stream_id``, one after another. ``waiting``: those that have not begun."""

    current: Exchange
    waiting: deque[Exchange] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


class ResponseSocket:
    """One WebSocket of a caller."""

    def __init__(self, gateway: GatewayState, caller: Principal, scope: Scope, tracing: Tracing) -> None:
        self._gateway = gateway
        self._caller = caller
        self._scope = scope
        self._tracing = tracing
        self._web_socket = cast(EdgeWebSocket, scope[WEB_SOCKET])
        self._outgoing = Outgoing(self._web_socket)
        self._inputs = gateway.kept_inputs.connection()
        self._tracks: dict[str | None, _Track] = {}
        #: Error for new responses, and code and reason of the close once the last response has ended.
        self._leaving: tuple[HeadraceError, int, str] | None = None
        self._loop = asyncio.get_running_loop()
        self._finished = self._loop.create_future()

    async def run(self, receive: Receive, send: Send) -> None:
        """Serve until the client leaves, its credentials end, or this gateway or the connection's time does."""
        gateway = self._gateway
        principal = None if self._caller is ANONYMOUS else self._caller.id
        self._web_socket.on_shutdown = self._drain
        self._web_socket.begin_messages(gateway.body_memory, principal)
        timer = self._loop.call_later(gateway.settings.websocket_life_s, self._retire)
        reading = asyncio.create_task(self._read(receive))
        try:
            with gateway.live_grants.watch(Grant.of(self._caller)) as ended:
                await asyncio.wait((reading, ended, self._finished), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                error = Unauthenticated("the credentials have expired or were revoked meanwhile")
                self._leaving = error, _POLICY, "credentials ended"
                await self._leave_tracks()  # at once: the client may be slow to take the error
                await self._refuse(error, None)
            elif reading.done() and reading.exception() is not None:
                self._leaving = HeadraceError(), _BUG, "internal error"
            await self._leave_tracks()
            if self._leaving is not None:
                await self._close(send, *self._leaving[1:])
            if reading.done():
                reading.result()  # raises what ended it, if it was not the client
        finally:
            timer.cancel()
            reading.cancel()
            await self._leave_tracks()
            self._inputs.forget()

    # --- frames

    async def _read(self, receive: Receive) -> None:
        """Read frames until the client leaves. A large frame counts as a body as long as anything refers to it."""
        while (received := await receive())["type"] != "websocket.disconnect":
            share: BodyShare | None = received.get(BODY_SHARE)
            received.pop("bytes", None)
            try:
                # Nothing here refers to the message any longer: it may be large, and the next one may come late.
                if await self._take(received.pop("text", None), share):
                    share = None  # the response gives it back
            except BadFrame as bad:
                await self._refuse(bad.error, bad.track)
            finally:
                if share is not None:
                    share.release()
            await asyncio.sleep(0)  # one read may bring thousands of frames: other clients get their turn

    async def _take(self, text: bytes | None, share: BodyShare | None) -> bool:
        """Obey a frame. Return True if its response keeps ``share``. Raises :class:`BadFrame`."""
        if text is None:
            raise BadFrame(InvalidRequest("message: binary; send JSON as a text message"), None)
        match frame := parse_frame(text):
            case Cancel():
                await self._cancel(frame)
            case Steer():
                await self._send([_not_steered(frame)])
            case Create():
                self._enqueue(self._exchange(frame, share))
                return True
            case Resume():
                self._enqueue(self._exchange(frame, None))
        return False

    def _exchange(self, frame: Create | Resume, share: BodyShare | None) -> Exchange:
        return Exchange(self._gateway, self._caller, self._outgoing, self._inputs, frame, share)

    def _enqueue(self, exchange: Exchange) -> None:
        """Begin a response, or let it wait for the end of its track's. Raises :class:`BadFrame`."""
        name = exchange.frame.track
        if self._leaving is not None:
            raise BadFrame(self._leaving[0], name)
        if (track := self._tracks.get(name)) is not None:
            self._check_waiting(exchange)
            exchange.release_memory()  # others must not wait for its turn
            track.waiting.append(exchange)
            return
        most = self._gateway.settings.websocket_responses
        if len(self._tracks) >= most:
            raise BadFrame(TooManyResponses(f"stream_id: {most} responses are in progress; {_REMEDY}"), name)
        track = self._tracks[name] = _Track(exchange)
        track.task = asyncio.create_task(self._run_track(track))

    def _check_waiting(self, exchange: Exchange) -> None:
        waiting = [each for track in self._tracks.values() for each in track.waiting]
        size = sum(each.size for each in waiting) + exchange.size
        if len(waiting) >= MOST_WAITING or size > MOST_WAITING_BYTES:
            problem = "stream_id: a response of it is in progress, and no more can wait"
            raise BadFrame(TooManyResponses(f"{problem}; {_REMEDY}"), exchange.frame.track)

    async def _run_track(self, track: _Track) -> None:
        name = track.current.frame.track
        try:
            with suppress(ClientDisconnected):  # the reading task notices it too
                while True:
                    await track.current.run(self._scope, self._tracing)
                    if not track.waiting:
                        break
                    track.current = track.waiting.popleft()
        finally:
            del self._tracks[name]
            self._finish_if_idle()

    async def _cancel(self, frame: Cancel) -> None:
        """Cancel a response of the caller, whichever connection reads it."""
        if self._leaving is not None and self._leaving[1] == _POLICY:
            raise BadFrame(self._leaving[0], frame.track)
        try:
            self._caller.need(Right.CANCEL)
            stream_id = stream_id_of(frame.response_id)
            cancelled = await streams.cancel(stream_id, self._gateway, Grant.of(self._caller))
        except HeadraceError as error:
            raise BadFrame(error, frame.track) from None
        members = {"response_id": frame.response_id, "status": cancelled["status"]}
        await self._send([message(CANCEL_ACCEPTED, frame.track, **members)])

    async def _refuse(self, error: HeadraceError, track: str | None) -> None:
        response = await errors.response_to(request_of(self._scope), error)
        await self._send([error_message(response, track)])

    async def _send(self, messages: list[bytes]) -> None:
        with suppress(ClientDisconnected):  # the reading task notices it too
            await self._outgoing.send(messages)

    # --- the end

    def _retire(self) -> None:
        """Take no new responses: the connection is old. Those in progress end first."""
        self._leave(ConnectionTooOld(), _GOING_AWAY, "connection limit reached")

    def _drain(self) -> None:
        """Take no new responses: this gateway stops. Those in progress may end until shortly before its deadline."""
        self._leave(Draining(), _RESTART, "service restart")
        self._loop.call_later(max(0.0, self._gateway.settings.drain_s - _CUT_BEFORE_S), self._cut)

    def _leave(self, error: HeadraceError, code: int, reason: str) -> None:
        self._leaving = error, code, reason
        self._finish_if_idle()

    def _finish_if_idle(self) -> None:
        if self._leaving is not None and not self._tracks:
            self._finish()

    def _cut(self) -> None:
        """End the connection with its responses in progress, and name the way to read on."""
        for name, track in self._tracks.items():
            if (stream_id := track.current.stream_id) is not None:
                self._outgoing.send_now([_cut_message(stream_id, name)])
        self._finish()

    def _finish(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)

    async def _leave_tracks(self) -> None:
        tasks = [track.task for track in self._tracks.values() if track.task is not None]
        for task in tasks:
            task.cancel()
        for track in self._tracks.values():
            track.current.release_memory()  # of one that had no time to begin
        if tasks:
            await asyncio.wait(tasks)

    async def _close(self, send: Send, code: int, reason: str) -> None:
        """Close, unless the client has."""
        if self._web_socket.close_sent or self._web_socket.disconnected:
            return
        try:
            async with asyncio.timeout(self._gateway.settings.write_deadline_s):
                with suppress(ClientDisconnected):
                    await send({"type": "websocket.close", "code": code, "reason": reason})
        except TimeoutError:
            self._web_socket.abort()


def _not_steered(frame: Steer) -> bytes:
    error = {"type": "invalid_request_error", "code": "steering_not_supported", "message": _NO_STEERING}
    steer = {"previous_response_id": frame.previous, "input": frame.input}
    return message("response.steer.failed", None, error=error, steer=steer, sequence_number=0)


def _cut_message(stream_id: str, track: str | None) -> bytes:
    text = f"this server is shutting down; open another connection and send {RESUME} with response_id"
    error = {"type": "server_error", "code": Draining.code, "message": text, "param": None}
    return message("error", track, status=503, response_id=f"{PREFIX}{stream_id}", error=error)
