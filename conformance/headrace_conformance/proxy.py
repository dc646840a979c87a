"""TCP proxy that injects faults between a client and a server."""

import asyncio
import socket
import ssl
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, Self
from urllib.parse import urlsplit

_READ_BYTES: Final = 65_536
#: SO_LINGER on with 0 s: close() sends RST and discards what is not sent.
_LINGER_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Fault:
    """Faults of one connection, in the direction from the server to the client.

    After ``after_bytes`` (None: never) the response is cut: ``close`` sends FIN, ``reset`` sends RST, ``hang``
    forwards nothing more and closes nothing (half-open). ``delay_s`` is added to each piece; ``bytes_per_s`` limits
    the rate.
    """

    after_bytes: int | None = None
    then: Literal["close", "reset", "hang"] = "close"
    delay_s: float = 0
    bytes_per_s: float | None = None


class FaultProxy:
    """``async with FaultProxy("http://127.0.0.1:8000", Fault(after_bytes=100)) as proxy:`` listens at ``proxy.url``.

    ``fault`` may be changed, and counts for connections from then on. The proxy speaks TLS to an https server, and
    plain HTTP to its clients.
    """

    def __init__(
        self, server_url: str, fault: Fault | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        parts = urlsplit(server_url)
        self.fault = fault or Fault()
        #: Connections that were accepted.
        self.accepted = 0
        #: Bytes of responses that clients got.
        self.forwarded = 0
        #: Whether the newest connection was cut by its fault.
        self.has_cut = False
        self._hangs = False
        self._is_tls = parts.scheme == "https"
        self._server_name = parts.hostname or ""
        self._server_port = parts.port or (443 if self._is_tls else 80)
        self._address = host, port
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def _listening(self) -> asyncio.Server:
        if self._listener is None:
            raise RuntimeError("FaultProxy: not started; use async with")
        return self._listener

    @property
    def url(self) -> str:
        host, port = self._listening.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        host, port = self._address
        self._listener = await asyncio.start_server(self._accept, host, port)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._listening.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await asyncio.sleep(0)  # aborted transports close their sockets in the loop's next turn

    async def serve_forever(self) -> None:
        """Wait until cancelled."""
        await self._listening.serve_forever()

    def hang(self) -> None:
        """Forward nothing more on any connection, and close none."""
        self._hangs = True

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.has_cut = False
        task = asyncio.create_task(self._forward(reader, writer, self.fault))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault) -> None:
        there: asyncio.StreamWriter | None = None
        try:
            context = ssl.create_default_context() if self._is_tls else None
            back, there = await asyncio.open_connection(self._server_name, self._server_port, ssl=context)
            requests = asyncio.create_task(_copy(reader, there))
            try:
                await self._respond(back, writer, fault)
            finally:
                requests.cancel()
        except OSError:
            pass  # either side has gone; both are closed
        except asyncio.CancelledError:
            writer.transport.abort()  # what is not sent would keep it open
            raise
        finally:
            if there is not None:
                there.transport.abort()
            writer.close()

    async def _respond(self, source: asyncio.StreamReader, client: asyncio.StreamWriter, fault: Fault) -> None:
        """Forward the response until its end or the fault."""
        left = fault.after_bytes
        while left is None or left > 0:
            size = _READ_BYTES if fault.bytes_per_s is None else max(1, int(fault.bytes_per_s / 10))
            data = await source.read(size)
            if not data:
                return
            if self._hangs:
                break
            await asyncio.sleep(fault.delay_s + (len(data) / fault.bytes_per_s if fault.bytes_per_s else 0))
            if left is not None:
                data = data[:left]
                left -= len(data)
            client.write(data)
            self.forwarded += len(data)
            await client.drain()
        self.has_cut = True
        if self._hangs or fault.then == "hang":
            await asyncio.Event().wait()
        if fault.then == "reset":
            await _reset(client)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(_READ_BYTES):
            target.write(data)
            await target.drain()


async def _reset(client: asyncio.StreamWriter) -> None:
    """Close with RST, once the peer has all that was written: an RST overtakes nothing that was read already."""
    await asyncio.sleep(0.01)
    sock: socket.socket = client.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    client.transport.abort()
