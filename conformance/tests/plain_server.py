"""Small server of resumable streams that is right, and can be made wrong in one way at a time.

``POST /streams`` starts a stream and reads it, ``GET /streams/{id}`` reads it behind ``Last-Event-ID``,
``DELETE /streams/{id}`` cancels it.
"""

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Self

from headrace_conformance.provider.scripts import UNICODE_TEXT

Fault = Literal[
    "none",
    "drops an event on resume",
    "drops the first event after the log",
    "repeats an event on resume",
    "numbers anew on resume",
    "ends twice",
    "ends no resumed stream",
    "sends an id with a heartbeat",
    "garbles characters at chunk borders",
    "generates twice for one key",
    "generates twice for requests at once",
    "buffers the whole answer",
    "says text/plain",
    "begins late readers at the newest event",
    "serves one reader at a time",
    "trims silently",
    "ignores unknown cursors",
    "ends nothing on cancel",
    "cancels for one reader only",
    "ends a failure like a success",
    "resets too late",
    "sends an id with NUL",
    "asks for an hour of absence",
    "has every stream",
    "has nothing left of any stream",
    "waits for the slowest reader",
    "repeats all to a reader that has the ending",
    "uses an id for two events",
    "forgets a stream at its end",
    "breaks off without an ending",
    "crashes instead of refusing",
]

#: Events of each model, and the seconds between them.
SCRIPTS: Final[dict[str, tuple[list[str], float]]] = {
    "short": ([f"word{number} " for number in range(6)], 0.002),
    "slow": ([f"word{number} " for number in range(20)], 0.02),
    "long": ([f"{number} " + 10_000 * "x" for number in range(150)], 0),
    "unicode": ([UNICODE_TEXT[at : at + 5] for at in range(0, len(UNICODE_TEXT), 5)], 0),
    "tools": (["call", "done"], 0),
    "error": (["a ", "b "], 0),
    "cut": (["a ", "b "], 0),
}
#: Small, so that a reader that does not read is soon noticed.
_SEND_BUFFER_BYTES: Final = 16 * 1024
_KEPT_BY_A_TRIMMER: Final = 50


class Entry(NamedTuple):
    """One event of a log."""

    id: str
    type: str
    data: dict[str, str]


@dataclass
class Log:
    """One stream. ``grown`` is set and replaced at each change."""

    id: str
    number: int
    entries: list[Entry] = field(default_factory=list)
    is_over: bool = False
    is_cancelled: bool = False
    readers: int = 0
    unread: int = 0
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    def notify(self) -> None:
        self.grown.set()
        self.grown = asyncio.Event()

    def add(self, type: str, **data: str) -> None:
        self.entries.append(Entry(f"{self.number}-{len(self.entries) + 1}", type, data))
        self.notify()


class PlainServer:
    """``async with PlainServer("ends twice") as server:`` serves ``server.url`` with that fault."""

    def __init__(self, fault: Fault = "none") -> None:
        self.fault = fault
        self._logs: dict[str, Log] = {}
        self._keys: dict[str, Log] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # accepted sockets inherit it
        sock.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._connected, sock=sock)
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._server
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # aborted transports close their sockets in the loop's next turn

    @property
    def url(self) -> str:
        assert self._server
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spawn(self._serve(reader, writer))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            await self._answer(method, path, headers, body, writer)
            writer.close()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()

    async def _answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        if method == "POST":
            log = await self._create(json.loads(body)["model"], headers.get("idempotency-key"))
            await self._read(log, None, writer)
            return
        log_or_none = self._logs.get(path.rpartition("/")[2])
        if log_or_none is None and self.fault == "has every stream":
            log_or_none = Log("none", 0, is_over=True)
        if log_or_none is None:
            wrong = {"crashes instead of refusing": 500, "has nothing left of any stream": 204}
            await _respond(writer, wrong.get(self.fault, 404))
        elif method == "DELETE":
            self._cancel(log_or_none)
            await _respond(writer, 200)
        else:
            await self._read(log_or_none, headers.get("last-event-id"), writer)

    async def _create(self, model: str, key: str | None) -> Log:
        is_known = key in self._keys
        if self.fault == "generates twice for requests at once":
            await asyncio.sleep(0.2)
        if key is not None and is_known and self.fault != "generates twice for one key":
            return self._keys[key]
        number = next(self._numbers)
        log = self._logs[f"s{number}"] = Log(f"s{number}", number)
        if key is not None:
            self._keys[key] = log
        self._spawn(self._generate(log, model))
        return log

    async def _generate(self, log: Log, model: str) -> None:
        pieces, delay_s = SCRIPTS[model]
        log.add("start", stream=log.id)
        for piece in self._garbled(pieces) if model == "unicode" else pieces:
            await asyncio.sleep(delay_s)
            while self.fault == "waits for the slowest reader" and log.unread:
                await asyncio.sleep(0.01)
            if log.is_cancelled and self.fault != "ends nothing on cancel":
                break
            log.add("token", text=piece)
        if model in {"error", "cut"} and self.fault != "ends a failure like a success":
            log.add("error", code="failed")
        if self.fault != "breaks off without an ending" or model != "slow":
            log.add("end", reason="cancelled" if log.is_cancelled else "stop")
        if self.fault == "ends twice":
            log.add("end", reason="stop")
        log.is_over = True
        log.notify()
        if self.fault == "forgets a stream at its end":
            del self._logs[log.id]

    def _garbled(self, pieces: list[str]) -> list[str]:
        if self.fault != "garbles characters at chunk borders":
            return pieces
        raw = "".join(pieces).encode()
        return [raw[at : at + 4].decode(errors="replace") for at in range(0, len(raw), 4)]

    def _cancel(self, log: Log) -> None:
        log.is_cancelled = True

    async def _read(self, log: Log, cursor: str | None, writer: asyncio.StreamWriter) -> None:
        crashes = self.fault == "crashes instead of refusing"
        if cursor is not None and (crashes or not _is_id(cursor)):
            await _respond(writer, 500 if crashes else 400)
            return
        kind = "text/plain" if self.fault == "says text/plain" else "text/event-stream"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n" % kind.encode())
        writer.write(b"Connection: close\r\n\r\n")
        log.readers += 1
        retry_ms = 3_600_000 if self.fault == "asks for an hour of absence" else 1000
        _send(writer, b"retry: %d\n" % retry_ms)
        async for frame in self._frames(log, cursor, log.readers):
            _send(writer, frame)
            log.unread += len(frame)
            await writer.drain()
            log.unread -= len(frame)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _frames(self, log: Log, cursor: str | None, number: int) -> AsyncIterator[bytes]:
        """Yield the frames for a reader, for ever if the fault is that it gets no ending."""
        at, opening = self._place(log, cursor)
        for frame in opening:
            yield frame
        begun_at, joined_at = at, len(log.entries)
        while True:
            if self.fault == "serves one reader at a time" and number != log.readers:
                return
            if self.fault == "cancels for one reader only" and log.is_cancelled and number != log.readers:
                return
            is_held = self.fault == "buffers the whole answer" and not log.is_over
            while at < len(log.entries) and not is_held:
                if not self._skips(log, at, begun_at, joined_at, cursor):
                    yield self._frame(log.entries[at], at - begun_at, cursor)
                at += 1
            if log.is_over and not is_held:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(log.grown.wait(), 0.01)
                continue
            id = b"id: beat\n" if self.fault == "sends an id with a heartbeat" else b""
            yield id + b"event: ping\ndata: {}\n\n"

    def _place(self, log: Log, cursor: str | None) -> tuple[int, list[bytes]]:
        """Return the index of the first event that a reader gets, and the frames before it."""
        ids = [entry.id for entry in log.entries]
        if cursor is None:
            return (len(ids) if self.fault == "begins late readers at the newest event" and ids else 0), []
        if cursor not in ids:
            reset = b"event: reset\ndata: {}\n\n"
            if self.fault == "ignores unknown cursors":
                return len(ids), []
            if self.fault == "resets too late" and log.entries:
                return 1, [self._frame(log.entries[0], 0, None), reset]
            return 0, [reset]
        at = ids.index(cursor) + 1
        if self.fault == "repeats all to a reader that has the ending" and at == len(ids):
            return 0, []
        if self.fault == "trims silently":
            at = max(at, len(ids) - _KEPT_BY_A_TRIMMER)
        return at - (self.fault == "repeats an event on resume"), []

    def _skips(self, log: Log, at: int, begun_at: int, joined_at: int, cursor: str | None) -> bool:
        if self.fault == "ends no resumed stream":
            return cursor is not None and log.entries[at].type == "end"
        if self.fault == "drops the first event after the log":
            return at == joined_at > 1
        return self.fault == "drops an event on resume" and cursor is not None and at == begun_at

    def _frame(self, entry: Entry, position: int, cursor: str | None) -> bytes:
        id = entry.id
        if self.fault == "numbers anew on resume" and cursor is not None:
            id = f"{entry.id.partition('-')[0]}-{position + 1}"
        if self.fault == "uses an id for two events" and id.endswith("-3"):
            id = id[:-1] + "2"
        if self.fault == "sends an id with NUL":
            id += "\0"
        return f"id: {id}\nevent: {entry.type}\ndata: {json.dumps(entry.data)}\n\n".encode()


def _is_id(cursor: str) -> bool:
    return all(part.isdigit() for part in cursor.split("-", 1))


def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


async def _respond(writer: asyncio.StreamWriter, status: int) -> None:
    writer.write(b"HTTP/1.1 %d Status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
    await writer.drain()
