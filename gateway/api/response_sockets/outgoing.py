"""Messages to one client. Its responses write in turn, a chunk each, and wait while the client takes nothing."""

import asyncio
import json
from typing import Any, Final

import msgspec
from starlette.responses import Response

from gateway.edge.web_socket import EdgeWebSocket

_HEADERS: Final = ("retry-after", "x-should-retry", "ratelimit-", "x-ratelimit-")


class Outgoing:
    """Writer of one WebSocket."""

    def __init__(self, web_socket: EdgeWebSocket) -> None:
        self._web_socket = web_socket
        self._turn = asyncio.Lock()  # given in the order of the requests for it

    async def send(self, messages: list[bytes]) -> None:
        """Write messages when it is their turn and the client has room. Raises :class:`ClientDisconnected`."""
        if not messages:
            return
        async with self._turn:
            await self._web_socket.wait_for_room()
            self._web_socket.write(messages)

    def send_now(self, messages: list[bytes]) -> bool:
        """Write messages at once. Return False, and write nothing, if others wait or the client has no room."""
        if self._turn.locked() or not self._web_socket.has_room:
            return False
        if messages:
            self._web_socket.write(messages)
        return True


def messages_of(frames: bytes, track: str | None) -> list[bytes]:
    """Return the data of server-sent events, each as a message. ``track``: their ``stream_id``, if the client has set
    one. Comments are left out."""
    found = []
    for frame in frames.split(b"\n\n"):
        _, data_field, data = frame.partition(b"\ndata: ")
        if data_field:
            found.append(data if track is None else b'{"stream_id":%b,%b' % (msgspec.json.encode(track), data[1:]))
    return found


def message(kind: str, track: str | None, **members: Any) -> bytes:
    named = {} if track is None else {"stream_id": track}
    return msgspec.json.encode({"type": kind, **named, **members})


def error_message(response: Response, track: str | None) -> bytes:
    """Return an HTTP error as a message, with the header fields that tell a client when to try again."""
    error = json.loads(bytes(response.body))["error"]
    headers = {name: value for name, value in response.headers.items() if name.startswith(_HEADERS)}
    return message("error", track, status=response.status_code, error={**error, "headers": headers}, headers=headers)
