"""A client of HTTP/2 that sends any frames, also invalid ones."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import h2.events
from hpack import Encoder

_TIMEOUT_S = 60
HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION = 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4
Fields = Sequence[tuple[str, str]]


class H2Connection:
    """A connection on which frames are written by hand; responses are read by h2."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        config = h2.config.H2Configuration(
            validate_outbound_headers=False, normalize_outbound_headers=False, validate_inbound_headers=False
        )
        self._h2 = h2.connection.H2Connection(config=config)
        self._h2.initiate_connection()
        self.encoder = Encoder()

    async def start(self) -> None:
        await self._flush()

    async def request(self, fields: Fields, body: bytes = b"") -> int | None:
        """Send a request; return the status of the response, or None if the stream or the connection was reset."""
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, fields, end_stream=not body)
        if body:
            self._h2.send_data(stream, body, end_stream=True)
        await self._flush()
        status = None
        async for event in self._events():
            match event:
                case h2.events.ResponseReceived(stream_id=id, headers=headers) if id == stream:
                    status = int(dict(headers or [])[b":status"])
                case h2.events.StreamEnded(stream_id=id) | h2.events.StreamReset(stream_id=id) if id == stream:
                    break
                case h2.events.ConnectionTerminated():
                    break
        return status

    async def send_frames(self, frames: Iterable[bytes]) -> None:
        """Write frames until the peer closes the connection."""
        try:
            for frame in frames:
                self._writer.write(frame)
                await self._writer.drain()
        except ConnectionError:
            return

    async def until_closed(self) -> None:
        """Read until the peer closes the connection."""
        async with asyncio.timeout(_TIMEOUT_S):
            try:
                while await self._reader.read(65536):
                    pass
            except ConnectionError:
                return

    async def _events(self) -> AsyncIterator[h2.events.Event]:
        async with asyncio.timeout(_TIMEOUT_S):
            try:
                while received := await self._reader.read(65536):
                    for event in self._h2.receive_data(received):
                        yield event
                    await self._flush()
            except ConnectionError:
                return

    async def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())
        await self._writer.drain()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def fields_of(path: str, *more: tuple[str, str], method: str = "GET") -> list[tuple[str, str]]:
    return [(":method", method), (":path", path), (":scheme", "https"), (":authority", "localhost"), *more]


@asynccontextmanager
async def h2_connected(port: int, trusted: ssl.SSLContext) -> AsyncIterator[H2Connection]:
    trusted.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusted, server_hostname="localhost")
    connection = H2Connection(reader, writer)
    try:
        await connection.start()
        yield connection
    finally:
        writer.transport.abort()
