"""Headrace's native API: ``POST /chat/stream``, and ``GET /chat/stream/{id}`` with ``Last-Event-ID``."""

import json
import uuid
from collections.abc import Sequence

from headrace_conformance.client import Endpoint, Reading, Request
from headrace_conformance.profile import Ask, Foreign, Profile, Refused, Stream, Unit
from headrace_conformance.sse import Event

_OF_THE_CONNECTION = frozenset({"queued", "waiting"})


class Native(Profile):
    """Cursors are event ids ``<epoch>-<seq>``."""

    name = "native"
    title = "Headrace, native API"
    reference = "docs/protocol.md"

    async def create(self, endpoint: Endpoint, ask: Ask) -> tuple[Stream, Reading]:
        headers = {} if ask.key is None else {"Idempotency-Key": ask.key}
        body = {
            "model": ask.model,
            "messages": [{"role": "user", "content": ask.prompt}],
            "on_disconnect": "continue",
        }
        reading = await endpoint.open(Request("POST", "/chat/stream", headers, body))
        if reading.is_error:
            await reading.rest()
            raise Refused(f"POST /chat/stream: status {reading.status}", bytes(reading.raw))
        first = await reading.until(lambda event: event.member("stream_id") is not None)
        if first is None:
            raise Refused("POST /chat/stream: the stream ended without a stream_id")
        return Stream(first.member("stream_id"), ask), reading

    def attach(self, stream: Stream, cursor: str | None) -> Request:
        headers = {} if cursor is None else {"Last-Event-ID": cursor}
        return Request("GET", f"/chat/stream/{stream.id}", headers)

    def cancel(self, stream: Stream) -> Request:
        return Request("POST", f"/chat/{stream.id}/cancel")

    def is_ending(self, event: Event) -> bool:
        return event.type == "done"

    def units(self, event: Event) -> Sequence[Unit]:
        if event.type in _OF_THE_CONNECTION or not event.is_dispatched:
            return []
        data = event.json
        if event.type == "start" and isinstance(data, dict):
            data.pop("reset", None)  # of the connection, not of the stream
        return [Unit(event.id or event.type, f"{event.type} {json.dumps(data)}")]

    def text(self, event: Event) -> str:
        return str(event.member("token") or "") if event.type == "token" else ""

    def is_reset(self, event: Event) -> bool:
        return event.type == "start" and event.member("reset") is True

    def is_error(self, event: Event) -> bool:
        return event.type == "error"

    def is_heartbeat(self, event: Event) -> bool:
        return event.type in _OF_THE_CONNECTION

    def unknown(self, stream: Stream) -> Stream:
        return Stream(stream.id[:2] + uuid.uuid4().hex[2:], stream.ask)

    def foreign(self, cursors: Sequence[str]) -> list[Foreign]:
        epoch, _, seq = cursors[-1].partition("-")
        return [
            Foreign("garbage", "not-a-cursor"),
            Foreign("future", f"{epoch}-{int(seq) + 1000}"),
            Foreign("unknown", f"{int(epoch) + 99_999}-1"),
        ]
