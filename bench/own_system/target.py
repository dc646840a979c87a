"""The system under test: where it is, how to ask it, and a raw HTTP/1.1 exchange with it."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from bench.http import Response

_READ_BYTES: Final = 65_536
_CONNECT_S: Final = 10.0
#: A system that sends nothing for so long, not even a heartbeat, is broken.
SILENCE_S: Final = 60.0


class Broken(Exception):
    """A connection failed. The message is a short reason, for counting."""


@dataclass(frozen=True, slots=True)
class Target:
    """``body``: the request for an answer, without its number. ``ca``: file with certificates to trust instead of the
    system's."""

    url: str
    key: str
    body: dict[str, Any]
    ca: str | None = None

    @property
    def address(self) -> SplitResult:
        return urlsplit(self.url)

    def trust(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.ca) if self.address.scheme == "https" else None

    def request(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
        fields = {"Host": self.address.netloc.rpartition("@")[2], "User-Agent": "headrace-bench", **headers}
        if self.key:
            fields["Authorization"] = f"Bearer {self.key}"
        if body:
            fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{method} {self.address.path.rstrip('/')}{path} HTTP/1.1\r\n{lines}\r\n".encode() + body


class Exchange:
    """One request on a connection of its own, and its response."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.response = Response()
        self._reader = reader

    async def read(self) -> bytes:
        """Return the next bytes of the body, or nothing at its end. Raises :class:`Broken`."""
        while not self.response.ended:
            try:
                data = await asyncio.wait_for(self._reader.read(_READ_BYTES), SILENCE_S)
            except TimeoutError:
                raise Broken("silent connection") from None
            except OSError:
                raise Broken("connection reset") from None
            if not data:
                self.response.closed()
                if self.response.ended:
                    break
                raise Broken("connection closed early")
            if body := self.response.feed(data):
                return body
        return b""

    async def json(self) -> Any:
        """Return the body as JSON, or None if it is none."""
        body = b""
        while more := await self.read():
            body += more
        try:
            return json.loads(body)
        except ValueError:
            return None


@asynccontextmanager
async def exchange(target: Target, trust: ssl.SSLContext | None, request: bytes) -> AsyncIterator[Exchange]:
    """Open a connection, send a request, and close the connection at the end. Raises :class:`Broken`."""
    address = target.address
    port = address.port or (443 if trust else 80)
    try:
        opening = asyncio.open_connection(address.hostname, port, ssl=trust)
        reader, writer = await asyncio.wait_for(opening, _CONNECT_S)
    except ssl.SSLError:
        raise Broken("TLS handshake failed") from None
    except (TimeoutError, OSError):
        raise Broken("cannot connect") from None
    try:
        writer.write(request)
        yield Exchange(reader)
    finally:
        writer.transport.abort()
