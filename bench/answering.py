"""Streamed answer of the fake provider: Chat Completions chunks, formatted once, around a stamp."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Final

from bench.metronome import Metronome
from bench.pace import STAMP, STAMP_BYTES, Pace

_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
#: Phases of streams that began together: steps of the golden ratio spread any number of them evenly.
_GOLDEN: Final = 0.6180339887


class Answer:
    """Sends one answer. ``number`` counts the answers of this process; ``on_end`` is called after the last byte."""

    def __init__(
        self,
        transport: asyncio.Transport,
        metronome: Metronome,
        pace: Pace,
        *,
        model: str,
        number: int,
        wants_usage: bool,
        on_end: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._metronome = metronome
        self._pace = pace
        self._on_end = on_end
        self._wants_usage = wants_usage
        self._phase = number * _GOLDEN % 1
        self._envelope = {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": model,
        }
        self._token = self._template()
        self._seq = 0
        self._flows = True
        self._waits = False
        self._over = False

    def begin(self) -> None:
        """Send the first token at once; the others keep the stream's own phase."""
        self._transport.write(_HEAD + self._choice({"role": "assistant", "content": ""}))
        if self._pace.tokens is None:
            self._send()
        elif self._pace.per_s is None:
            self._flood()
        else:
            self._send()
            self._metronome.add((1 - self._phase) / self._pace.per_s, self._beat)

    def pause(self) -> None:
        self._flows = False

    def resume(self) -> None:
        self._flows = True
        if self._waits:
            self._waits = False
            if self._pace.per_s is None:
                self._flood()
            else:
                self._metronome.add(0, self._beat)

    def stop(self) -> None:
        """Stop, because the client has gone."""
        self._over = True

    def _beat(self) -> float | None:
        if self._over:
            return None
        if not self._flows:
            self._waits = True
            return None
        if self._seq == self._pace.tokens:
            self._end()
            return None
        self._send()
        return 1 / self._pace.per_s if self._pace.per_s else None

    def _send(self) -> None:
        self._transport.write(self._token % (self._seq, time.monotonic_ns() // 1000))
        self._seq += 1

    def _flood(self) -> None:
        """Send once in each turn of the loop, as long as the socket accepts it."""
        assert self._pace.tokens is not None
        if self._over:
            return
        if not self._flows:
            self._waits = True
            return
        count = min(self._pace.per_send, self._pace.tokens - self._seq)
        now, first = time.monotonic_ns() // 1000, self._seq
        self._transport.write(b"".join([self._token % (seq, now) for seq in range(first, first + count)]))
        self._seq += count
        if self._seq == self._pace.tokens:
            self._end()
        else:
            asyncio.get_running_loop().call_soon(self._flood)

    def _end(self) -> None:
        counts = {"prompt_tokens": 1, "completion_tokens": self._seq, "total_tokens": self._seq + 1}
        last = self._choice({}, "stop")
        if self._wants_usage:
            last += _chunk(b"data: %b\n\n" % _json({**self._envelope, "choices": [], "usage": counts}))
        self._transport.write(last + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        self._over = True
        self._on_end()

    def _choice(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _chunk(b"data: %b\n\n" % _json({**self._envelope, "choices": [choice]}))

    def _template(self) -> bytes:
        """Return a whole HTTP chunk with a placeholder for the stamp. The model's name has no percent sign."""
        filler = "~" * (self._pace.size - STAMP_BYTES)
        framed = self._choice({"content": "#" * STAMP_BYTES + filler})
        return framed.replace(b"#" * STAMP_BYTES, STAMP)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
