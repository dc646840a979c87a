"""The Durable Streams protocol, read as Server-Sent Events. The kit is the writer of the streams."""

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from headrace_conformance.client import Endpoint, Reading, Request
from headrace_conformance.profile import Ask, Foreign, Profile, Refused, Stream, Unit
from headrace_conformance.provider.scripts import ANSWERS
from headrace_conformance.sse import Event


class DurableStreams(Profile):
    """Cursors are offsets. A message counts only with the ``control`` event behind it, which has the offset."""

    name = "durable-streams"
    title = "Durable Streams, Server-Sent Events"
    reference = "https://github.com/durable-streams/durable-streams/blob/main/PROTOCOL.md"
    lacks = {  # noqa: RUF012
        "idempotency": "a stream is created by PUT to its own URL; the kit does not check producers",
        "reset": "what a stream has is never taken back",
        "failure": "a stream ends by being closed, whatever the reason",
    }
    makes_answers = True

    def __init__(self) -> None:
        self._writers: set[asyncio.Task[None]] = set()

    async def create(self, endpoint: Endpoint, ask: Ask) -> tuple[Stream, Reading]:
        stream = Stream(f"kit-{uuid.uuid4()}", ask)
        made = await endpoint.send(Request("PUT", f"/{stream.id}", {"Content-Type": "application/json"}))
        if made.is_error:
            raise Refused(f"PUT /{stream.id}: status {made.status}", made.body)
        reading = await self.open(endpoint, stream, None)
        writer = asyncio.create_task(_write(endpoint, stream))
        self._writers.add(writer)
        writer.add_done_callback(self._writers.discard)
        return stream, reading

    def attach(self, stream: Stream, cursor: str | None) -> Request:
        return Request("GET", f"/{stream.id}?live=sse&offset={cursor or -1}")

    async def open(self, endpoint: Endpoint, stream: Stream, cursor: str | None) -> Reading:
        return await endpoint.open(self.attach(stream, cursor), _JoinedReading)

    def cancel(self, stream: Stream) -> Request:
        return Request("POST", f"/{stream.id}", {"Stream-Closed": "true"})

    def is_ending(self, event: Event) -> bool:
        return event.member("closed") is True

    def units(self, event: Event) -> Sequence[Unit]:
        return [Unit(_label(message), json.dumps(message)) for message in event.member("messages") or []]

    def text(self, event: Event) -> str:
        messages = event.member("messages") or []
        return "".join(str(message.get("text")) for message in messages if isinstance(message, dict))

    def foreign(self, cursors: Sequence[str]) -> list[Foreign]:
        return [Foreign("garbage", "not-an-offset")]


class _JoinedReading(Reading):
    """Joins ``data`` events and the ``control`` event behind them to one event with the offset as its id."""

    _messages: tuple[Any, ...] = ()

    def take(self, events: list[Event]) -> list[Event]:
        return [joined for event in events if (joined := self._join(event)) is not None]

    def _join(self, event: Event) -> Event | None:
        if event.type == "data":
            self._messages += tuple(event.json) if isinstance(event.json, list) else (event.json,)
            return None
        if event.type != "control":
            return None  # clients ignore other types
        data = {"messages": self._messages, "closed": event.member("streamClosed") is True}
        self._messages = ()
        return replace(event, data=json.dumps(data), last_event_id=event.member("streamNextOffset") or "")


def _label(message: Any) -> str:
    """Return the number that the kit gave to a message."""
    return f"message {message.get('seq')}" if isinstance(message, dict) else "a message that the kit did not write"


async def _write(endpoint: Endpoint, stream: Stream) -> None:
    """Append an answer of the kit's provider, and close the stream with its last piece. Stop if the stream is closed
    by another request."""
    answer = ANSWERS.get(stream.ask.model, ANSWERS["slow"])
    for seq, piece in enumerate(answer.pieces, 1):
        await asyncio.sleep(answer.delay_s)
        closed = {"Stream-Closed": "true"} if seq == len(answer.pieces) else {}
        headers = {"Content-Type": "application/json", **closed}
        reply = await endpoint.send(Request("POST", f"/{stream.id}", headers, {"seq": seq, "text": piece}))
        if reply.is_error:
            return
