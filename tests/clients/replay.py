"""A gateway that replays one answer, and breaks the first connection of each stream at a chosen byte.

All tests of one run share a server, and each stream's id says how its first connection breaks:
``<way>-<what>-<byte>``. Later connections are whole.

===========  =====================================================================
way          the first connection
===========  =====================================================================
``fin``      ends cleanly for TCP, in the middle of the chunked body
``rst``      is reset
``end``      ends cleanly for HTTP too, after the whole event before the byte
===========  =====================================================================

===========  =====================================================================
what         the connections after it
===========  =====================================================================
``same``     continue after the cursor
``again``    bring a reset and another attempt of the answer
===========  =====================================================================
"""

import asyncio
import json
import re
import socket
import struct
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from gateway.dialects.native import frame
from shared.protocol import events
from tests.cli import ROOT, listening

_LIBRARY: Final = ROOT / "clients" / "javascript" / "src"
TEXT: Final = "Grüße, ☃.\n\ndata: not an event"
AGAIN: Final = "Another answer."
RETRY: Final = b"retry: 5\n"
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_GONE: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


def _answer(epoch: int, pieces: list[str], *, reset: bool) -> list[tuple[bytes, bytes]]:
    told: list[events.Event] = [events.Start("s", model="m", provider="p", attempt=epoch, reset=reset)]
    told += [events.Token(piece, token_index=at) for at, piece in enumerate(pieces)]
    told.append(events.Done("stop", None, events.Usage(1, len(pieces))))
    ids = [b"%d-%d" % (epoch, at) for at in range(1, len(told) + 1)]
    return [(at, frame(at, events.encode(event))) for at, event in zip(ids, told, strict=True)]


_FIRST: Final = _answer(1, ["Grüße", ", ☃.\n\n", "data: not an event"], reset=False)
_SECOND: Final = _answer(2, ["Another ", "answer."], reset=True)
_QUEUED: Final = b'event: queued\ndata: {"stream_id":"s","position":1}\n\n'


def _body(frames: list[tuple[bytes, bytes]], cursor: bytes) -> list[bytes]:
    """Return the blocks after the cursor, the first with ``retry:``; a heartbeat is in the second."""
    ids = [at for at, _ in frames]
    at = ids.index(cursor) + 1 if cursor in ids else 0
    blocks = [block for _, block in frames[at:]]
    if not at:
        blocks = [_QUEUED, *blocks]
    return [RETRY + blocks[0], *(b": ping\n" + block for block in blocks[1:])] if blocks else []


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_WHOLE: Final = [_HEAD, *map(_chunk, _body(_FIRST, b"")), b"0\r\n\r\n"]
#: Length of the response that is cut.
LENGTH: Final = len(b"".join(_WHOLE))


def _accepted(at: int) -> bytes:
    stream_id = f"whole-same-{at:04}"
    body = json.dumps({"stream_id": stream_id, "stream_url": f"/chat/stream/{stream_id}"}).encode()
    head = b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return head + body


#: Length of the response to a start that is cut.
LENGTH_OF_START: Final = len(_accepted(0))


def streams(*, in_every_way: bool = True) -> list[str]:
    """Return the ids of streams that are cut at every byte, in every way or in alternating ways."""
    boundaries = [sum(map(len, _WHOLE[:count])) for count in range(1, len(_WHOLE))]
    ways = enumerate(("fin-again", "rst-same"))
    cuts = [f"{kind}-{at}" for (n, kind), at in product(ways, range(LENGTH)) if in_every_way or at % 2 == n]
    return cuts + [f"end-{what}-{at}" for what, at in product(("same", "again"), boundaries)]


def expected(stream_id: str) -> str:
    """Return the answer of a stream. A cut behind ``done`` is behind the end, so no reset can follow."""
    _, what, at = stream_id.split("-")
    has_whole_end = int(at) >= len(b"".join(_WHOLE[:-1])) - len(b"\r\n")
    return AGAIN if what == "again" and not has_whole_end else TEXT


@dataclass
class Replay:
    """``reads`` and ``starts`` count requests by stream; ``keys`` are the idempotency keys of the starts."""

    url: str = ""
    reads: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)
    keys: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError):
            while True:
                line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines if one)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                response, breaks = self._respond(line, headers, body)
                writer.write(response)
                await writer.drain()
                if breaks == "rst":
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                if breaks:
                    return

    def _respond(self, line: str, headers: dict[str, str], body: bytes) -> tuple[bytes, str]:
        """Return the response, and the way in which the connection breaks after it, or an empty string."""
        if line.startswith("POST"):
            return self._start(json.loads(body), headers)
        if line.startswith("GET /page"):
            return _file(line.split(" ")[1]), ""
        found = re.search(r"/chat/stream/([\w-]+)", line)
        if found is None:
            status = json.dumps({"status": "completed", "finish_reason": "stop", "usage": None}).encode()
            return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(status), status), ""
        stream_id = found[1]
        self.reads[stream_id] += 1
        way, what, at = stream_id.split("-")
        cursor = headers.get("last-event-id", "").encode()
        if way != "whole" and self.reads[stream_id] == 1:
            return _cut(way, int(at))
        return _rest(_SECOND if what == "again" and not cursor.startswith(b"1-5") else _FIRST, cursor), ""

    def _start(self, body: dict[str, str], headers: dict[str, str]) -> tuple[bytes, str]:
        way, at = body["model"].split("-")
        self.starts[body["model"]] += 1
        self.keys[body["model"]].add(headers["idempotency-key"])
        response = _accepted(int(at))
        return (response[: int(at)], way) if self.starts[body["model"]] == 1 else (response, "")


def _file(path: str) -> bytes:
    """Return a page without content, or a file of the JavaScript library for it."""
    kind, content = b"text/html", b"<!doctype html><title>Replay</title>"
    if path.endswith(".js"):
        kind, content = b"text/javascript", (_LIBRARY / path.removeprefix("/page/")).read_bytes()
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(content), content)


def _cut(way: str, at: int) -> tuple[bytes, str]:
    if way != "end":
        return b"".join(_WHOLE)[:at], way
    whole, length = [], 0
    for part in _WHOLE:
        length += len(part)
        if length <= at:
            whole.append(part)
    return b"".join([*whole, b"0\r\n\r\n"]), ""


def _rest(frames: list[tuple[bytes, bytes]], cursor: bytes) -> bytes:
    blocks = _body(frames, cursor)
    return b"".join([_HEAD, *map(_chunk, blocks), b"0\r\n\r\n"]) if blocks else _GONE


@asynccontextmanager
async def replaying() -> AsyncIterator[Replay]:
    """Yield the gateway. Its backlog holds all connections of a test."""
    replay = Replay()
    async with listening(replay.serve, backlog=4096) as replay.url:
        yield replay
