"""OpenAI's Responses API with ``background`` and ``stream``: resumed by ``starting_after``."""

import json
from collections.abc import Sequence

from headrace_conformance.client import Endpoint, Reading, Request
from headrace_conformance.profile import Ask, Foreign, Profile, Refused, Stream, Unit
from headrace_conformance.sse import Event

_ENDINGS = frozenset({"response.completed", "response.failed", "response.incomplete", "response.cancelled"})


class Responses(Profile):
    """Cursors are sequence numbers, in the data of each event."""

    name = "responses"
    title = "OpenAI Responses, background streams"
    reference = "https://platform.openai.com/docs/guides/background"
    lacks = {  # noqa: RUF012
        "reset": "the API has no event that takes text back",
    }

    async def create(self, endpoint: Endpoint, ask: Ask) -> tuple[Stream, Reading]:
        headers = {} if ask.key is None else {"Idempotency-Key": ask.key}
        body = {"model": ask.model, "input": ask.prompt, "background": True, "stream": True}
        reading = await endpoint.open(Request("POST", "/v1/responses", headers, body))
        if reading.is_error:
            await reading.rest()
            raise Refused(f"POST /v1/responses: status {reading.status}", bytes(reading.raw))
        first = await reading.until(lambda event: event.member("response") is not None)
        if first is None:
            raise Refused("POST /v1/responses: the stream ended without a response object")
        return Stream(first.member("response")["id"], ask), reading

    def attach(self, stream: Stream, cursor: str | None) -> Request:
        after = "" if cursor is None else f"&starting_after={cursor}"
        return Request("GET", f"/v1/responses/{stream.id}?stream=true{after}")

    def cancel(self, stream: Stream) -> Request:
        return Request("POST", f"/v1/responses/{stream.id}/cancel")

    def is_ending(self, event: Event) -> bool:
        return event.type in _ENDINGS

    def cursor(self, event: Event) -> str | None:
        number = event.member("sequence_number")
        return None if number is None else str(number)

    def units(self, event: Event) -> Sequence[Unit]:
        if not event.is_dispatched or self.is_heartbeat(event) or event.data == "[DONE]":
            return []
        return [Unit(f"{self.cursor(event)} {event.type}", json.dumps(event.json))]

    def text(self, event: Event) -> str:
        return str(event.member("delta") or "") if event.type == "response.output_text.delta" else ""

    def is_error(self, event: Event) -> bool:
        return event.type in {"error", "response.failed", "response.incomplete"}

    def is_heartbeat(self, event: Event) -> bool:
        return event.type in {"keepalive", "ping"}

    def unknown(self, stream: Stream) -> Stream:
        flipped = stream.id[:-8] + "".join("0" if letter != "0" else "1" for letter in stream.id[-8:])
        return Stream(flipped, stream.ask)

    def foreign(self, cursors: Sequence[str]) -> list[Foreign]:
        return [Foreign("garbage", "not-a-number"), Foreign("future", str(int(cursors[-1]) + 1000))]
