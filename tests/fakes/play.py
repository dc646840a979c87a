"""Sends one answer."""

import asyncio
import json
import random
import time
from collections.abc import Iterable
from typing import Final, Protocol

from tests.fakes.answer import Answer, Call, Counts
from tests.fakes.wire import Wire

#: Deltas sent at full speed before others have their turn.
BURST: Final = 16


class Output(Protocol):
    """The connection that gets an answer, or the record of one that the provider stores."""

    async def respond(
        self, status: int, body: bytes, content_type: str = "application/json", *, retry_after: str | None = None
    ) -> None: ...

    def begin_chunks(self, content_type: str, status: int = 200) -> None: ...

    async def chunk(self, call: Call, data: bytes) -> None: ...

    def end_chunks(self) -> None: ...

    async def reset(self) -> None: ...


class Play:
    """Plays ``answer`` to ``call`` in the format of ``wire``."""

    def __init__(self, connection: Output, call: Call, answer: Answer, wire: Wire) -> None:
        self._connection = connection
        self._call = call
        self._answer = answer
        self._wire = wire
        self._cuts = None if answer.cut_seed is None else random.Random(answer.cut_seed)
        self._held = b""  # sent with the next frames

    async def run(self) -> None:
        answer = self._answer
        await asyncio.sleep(answer.first_delay_s)
        if answer.end == "refuse":
            await self._connection.reset()
        elif answer.segments is not None:
            await self._send_segments(answer.segments)
        elif answer.status is not None:
            body = answer.error_body or self._wire.refusal(answer.status, self._indiscretion())
            await self._connection.respond(answer.status, json.dumps(body).encode(), retry_after=answer.retry_after)
            self._call.finished = True
        elif answer.raw is not None:
            kind = "text/html" if answer.raw.startswith(b"<") else self._wire.content_type
            await self._connection.respond(200, answer.raw, kind)
            self._call.finished = True
        else:
            self._connection.begin_chunks(self._wire.content_type)
            await self._send(self._wire.opening(self._usage()))
            await self._send_deltas()
            await self._end()

    async def _send_segments(self, segments: Iterable[bytes]) -> None:
        answer = self._answer
        self._connection.begin_chunks(answer.content_type or self._wire.content_type, answer.status or 200)
        for segment in segments:
            await self._connection.chunk(self._call, segment)
            await asyncio.sleep(answer.segment_delay_s)
        if answer.keeps_open:
            await asyncio.Event().wait()
        if answer.end == "reset":
            await self._connection.reset()
            return
        self._connection.end_chunks()
        self._call.finished = True

    async def _send_deltas(self) -> None:
        answer, call = self._answer, self._call
        await self._pass_gate()
        for text in answer.reasoning:
            await self._send(self._wire.reasoning(text))
        texts: Iterable[str] = answer.deltas(call.number) if callable(answer.deltas) else answer.deltas
        begun_at = time.monotonic()
        for text in texts:
            if answer.delay_s:
                await asyncio.sleep(max(0.0, begun_at + call.sent_deltas * answer.delay_s - time.monotonic()))
            elif call.sent_deltas % BURST == 0:
                await asyncio.sleep(0)
            if answer.turnstile is not None:
                await answer.turnstile.passed(call.sent_deltas + 1)
            await self._send(self._wire.text(text))
            call.count_delta()
            await self._pass_gate()
        for text in answer.refusal:
            await self._send(self._wire.refused(text))
        if answer.tools:
            for frame in self._wire.tool_calls(answer.tools):
                await self._send(frame)

    async def _pass_gate(self) -> None:
        if self._answer.gate is not None and self._call.sent_deltas == self._answer.gate_after:
            await self._answer.gate.wait()

    async def _end(self) -> None:
        match self._answer.end:
            case "finish":
                await self._send(self._wire.ending(self._answer.ends_with, self._usage()))
                if self._held:
                    await self._connection.chunk(self._call, self._held)
                self._connection.end_chunks()
                self._call.finished = True
            case "truncate":
                self._connection.end_chunks()
            case "error_in_band":
                await self._send(self._wire.error_in_band(self._indiscretion(), self._answer.error_type))
                self._connection.end_chunks()
            case "reset":
                await self._connection.reset()
            case "hang":
                await asyncio.Event().wait()
            case "ping":
                while True:
                    await self._send(self._wire.comment or self._wire.unknown)
                    await asyncio.sleep(0.02)

    async def _send(self, frames: bytes) -> None:
        answer = self._answer
        if not frames:
            return
        if answer.unknown:
            frames = self._wire.unknown + frames
        if answer.comments:
            frames = self._wire.comment + frames
        if answer.crlf:
            frames = frames.replace(b"\n", b"\r\n")
        if self._cuts is not None:
            frames, self._held = self._held + frames, b""
            while frames:
                size = round(self._cuts.expovariate(1 / 40)) + 1
                if size > len(frames):
                    self._held = frames
                    return
                await self._connection.chunk(self._call, frames[:size])
                await asyncio.sleep(0)
                frames = frames[size:]
            return
        size = answer.frame_bytes or len(frames)
        for at in range(0, len(frames), size):
            await self._connection.chunk(self._call, frames[at : at + size])
            if answer.frame_bytes:
                await asyncio.sleep(0)  # to the socket by itself

    def _usage(self) -> Counts | None:
        match self._answer.usage:
            case "counted":
                return Counts(self._input_words(), self._call.sent_deltas)
            case (given_input, given_output):
                return Counts(given_input, given_output)
            case given:
                return given

    def _input_words(self) -> int:
        spoken = [str(m.get("content") or "") for m in self._call.messages]
        apart = [str(self._call.request.get(name) or "") for name in ("system", "instructions")]
        return sum(len(text.split()) for text in [*spoken, *apart])

    def _indiscretion(self) -> str:
        """Return an error text that repeats the prompt and parts of the key, as real providers do. It must never be
        passed on."""
        headers = self._call.headers
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        return f"Incorrect API key provided: {key[:8]}****{key[-4:]}. Your prompt was: {self._call.prompt}"
