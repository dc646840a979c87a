"""Client side of one streamed answer: checks that every token comes once, in order, and that the end is complete."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from bench.http import Response
from bench.pace import FIND_STAMPS, STAMP_BYTES
from bench.tally import Tally

_find_stamps: Final = FIND_STAMPS.findall


@dataclass(frozen=True, slots=True)
class Wanted:
    """Expectation of an answer: it contains ``end``, and has this many ``tokens``, if the number is known. After
    ``text_end``, if it is not empty, tokens are repeated and not counted."""

    end: bytes
    tokens: int | None
    text_end: bytes = b""


class Stream(asyncio.Protocol):
    """One stream. Sends ``request`` once it is connected. Calls ``on_first`` once: at the first token, or when there
    will be none. Calls ``on_over`` once, after the last byte."""

    def __init__(
        self,
        request: bytes,
        wanted: Wanted,
        tally: Tally,
        on_first: Callable[[], None],
        on_over: Callable[[], None],
    ) -> None:
        self.response = Response()
        self.over = False
        self.transport: asyncio.Transport | None = None
        self._request = request
        self._wanted = wanted
        self._tally = tally
        self._on_first = on_first
        self._on_over = on_over
        self._sent_us = 0
        self._expected = 0
        self._received = 0
        # Long enough to find a stamp or an end that two reads split, and short enough to find none twice.
        self._keep = max(STAMP_BYTES, len(wanted.end), len(wanted.text_end)) - 1
        self._tail = b""
        self._has_end = False
        self._text_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not an assertion: uvloop's transports are no subclass of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self._sent_us = time.monotonic_ns() // 1000
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now_us = time.monotonic_ns() // 1000
        self._tally.received_bytes += len(data)
        body = self.response.feed(data)
        if body:
            self._read(body, now_us)
        if self.response.ended:
            self.finish(self._verdict())

    def connection_lost(self, error: Exception | None) -> None:
        self.response.closed()
        self.finish(self._verdict() if self.response.ended else "broken off")

    def finish(self, verdict: str) -> None:
        """End the stream. ``verdict`` is empty for success, else the problem. Only the first call counts."""
        if self.over:
            return
        self.over = True
        if verdict:
            self._tally.failures[verdict] += 1
        else:
            self._tally.ok += 1
        if self.transport is not None:
            self.transport.abort()
        if not self._received:
            self._on_first()
        self._on_over()

    def _read(self, body: bytes, now_us: int) -> None:
        known = self._tail + body
        # The tail may be longer than a stamp, because of the end; it must not show a stamp again.
        begin = max(0, len(self._tail) - STAMP_BYTES + 1)
        stamps = _find_stamps(known, begin) if not self._wanted.text_end else self._stamps_of_text(known, begin)
        if stamps:
            self._expected = self._tally.take(now_us, stamps, self._expected)
            if not self._received:
                self._tally.first_token_us.append(now_us - self._sent_us)
                self._received = len(stamps)
                self._on_first()
            else:
                self._received += len(stamps)
        if self._wanted.end in known:
            self._has_end = True
        self._tail = known[-self._keep :]

    def _stamps_of_text(self, known: bytes, begin: int) -> list[tuple[bytes, bytes]]:
        """Find stamps up to the end of the text."""
        if self._text_over:
            return []
        end = known.find(self._wanted.text_end)
        self._text_over = end >= 0
        return _find_stamps(known, begin, end) if self._text_over else _find_stamps(known, begin)

    def _verdict(self) -> str:
        if self.response.status != 200:
            return f"HTTP {self.response.status}"
        if not self._has_end:
            return "no proper end"
        if self._wanted.tokens is not None and self._received != self._wanted.tokens:
            return "incomplete"
        return ""
