"""Fake OpenAI Chat Completions provider that costs next to nothing: ``python -m bench.provider --port 0``.

It prints its port. The model's name sets the pace (``bench/pace.py``); every token carries the time it was sent.
``GET /aborted`` returns the times at which clients closed connections in the middle of an answer, and clears them.
``POST /tls`` opens another port, with TLS and the certificate that the body names, and returns it.
"""

import argparse
import asyncio
import json
import re
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, cast

import uvloop

from bench.answering import Answer
from bench.metronome import Metronome
from bench.pace import parse

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_BACKLOG: Final = 4096
#: Small, so that backpressure from a peer that does not read arrives soon.
_WRITE_BUFFER_BYTES: Final = 64 * 1024


class Provider:
    """State that all connections share."""

    def __init__(self) -> None:
        self.metronome = Metronome()
        self.answers = 0
        self.open = 0
        self.aborted: list[int] = []  # CLOCK_MONOTONIC, microseconds

    async def listen(self, port: int, context: ssl.SSLContext | None = None) -> int:
        """Serve on a port; 0 is any. Returns its number."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), "127.0.0.1", port, backlog=_BACKLOG, ssl=context)
        number: int = server.sockets[0].getsockname()[1]
        return number


class Connection(asyncio.Protocol):
    """One connection. It serves one request after another; data that arrives during an answer waits."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._received = b""
        self._answer: Answer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not an assertion: uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._next()

    def pause_writing(self) -> None:
        if self._answer is not None:
            self._answer.pause()

    def resume_writing(self) -> None:
        if self._answer is not None:
            self._answer.resume()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None:
            self._provider.aborted.append(time.monotonic_ns() // 1000)
            self._provider.open -= 1
            self._answer.stop()
            self._answer = None

    def _next(self) -> None:
        while self._answer is None:
            end = self._received.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            found = _LENGTH.search(self._received, 0, end)
            whole = end + (int(found[1]) if found else 0)
            if len(self._received) < whole:
                return
            first, body = self._received[: self._received.find(b"\r\n")], self._received[end:whole]
            self._received = self._received[whole:]
            self._serve(first, body)

    def _serve(self, first: bytes, body: bytes) -> None:
        method, path, _ = first.split(b" ", 2)
        if method == b"POST" and path.endswith(b"/chat/completions"):
            self._begin(body)
        elif method == b"POST" and path == b"/tls":
            self._listening = asyncio.create_task(self._listen(json.loads(body)))
        elif path.endswith(b"/models"):
            self._respond({"object": "list", "data": []})
        elif path == b"/aborted":
            self._respond({"open": self._provider.open, "aborted_us": self._provider.aborted})
            self._provider.aborted = []
        else:
            self._respond({"error": {"message": "not found"}}, b"404 Not Found")

    async def _listen(self, files: Mapping[str, str]) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files["certificate"], files["key"])
        self._respond({"port": await self._provider.listen(0, context)})

    def _begin(self, body: bytes) -> None:
        try:
            request = json.loads(body)
            model = request["model"]
            pace = parse(model)
        except (ValueError, KeyError, TypeError) as error:
            self._respond({"error": {"message": str(error)}}, b"400 Bad Request")
            return
        self._provider.answers += 1
        self._provider.open += 1
        self._answer = Answer(
            self._transport,
            self._provider.metronome,
            pace,
            model=model,
            number=self._provider.answers,
            wants_usage=bool((request.get("stream_options") or {}).get("include_usage")),
            on_end=self._ended,
        )
        self._answer.begin()

    def _ended(self) -> None:
        self._provider.open -= 1
        self._answer = None
        if self._received:
            self._next()

    def _respond(self, value: object, status: bytes = b"200 OK") -> None:
        body = json.dumps(value).encode()
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (status, len(body)) + body)


async def serve(port: int) -> None:
    provider = Provider()
    print(await provider.listen(port), flush=True)
    # The parent holds our input open; it closes when the parent ends in any way.
    with suppress(ConnectionError):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
