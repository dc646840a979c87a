"""UI message streams of Vercel's AI SDK, resumed as its package ``resumable-stream`` does it."""

import json
import uuid
from collections.abc import Iterator, Sequence

from headrace_conformance.client import Endpoint, Reading, Request
from headrace_conformance.profile import Ask, Profile, Refused, Stream, Unit
from headrace_conformance.sse import Event

_PARTS = frozenset({"text", "reasoning"})


class AiSdk(Profile):
    """Streams belong to chats. Every attach begins at the start, and has status 204 when the answer has ended."""

    name = "ai-sdk"
    title = "AI SDK, resumable-stream"
    reference = "https://ai-sdk.dev/docs/ai-sdk-ui/chatbot-resume-streams"
    unknown_is_empty = "readers name a chat, and one without an answer is no error"
    lacks = {  # noqa: RUF012
        "cursor": "clients send none; every attach begins at the start",
        "foreign_cursor": "clients send no cursor",
        "replay": "an attach after the end has status 204; applications store the message elsewhere",
        "idempotency": "the recipe has no idempotency keys",
        "reset": "`reset-step` takes back a step, never the whole answer",
    }

    async def create(self, endpoint: Endpoint, ask: Ask) -> tuple[Stream, Reading]:
        chat = f"kit-{ask.key or uuid.uuid4()}"
        message = {"id": f"{chat}-1", "role": "user", "parts": [{"type": "text", "text": ask.prompt}]}
        headers = {} if ask.key is None else {"Idempotency-Key": ask.key}
        body = {"id": chat, "messages": [message], "trigger": "submit-message", "model": ask.model}
        reading = await endpoint.open(Request("POST", "/api/chat", headers, body))
        if reading.is_error:
            await reading.rest()
            raise Refused(f"POST /api/chat: status {reading.status}", bytes(reading.raw))
        return Stream(chat, ask), reading

    def attach(self, stream: Stream, cursor: str | None) -> Request:
        return Request("GET", f"/api/chat/{stream.id}/stream")

    def cancel(self, stream: Stream) -> Request:
        return Request("POST", f"/api/chat/{stream.id}/stop", body={})

    def is_ending(self, event: Event) -> bool:
        return event.data == "[DONE]"

    def cursor(self, event: Event) -> str | None:
        return None

    def units(self, event: Event) -> Sequence[Unit]:
        """A unit per character of a part that grows, since servers may group them otherwise for a late reader."""
        if not event.is_dispatched or self.is_ending(event) or self.is_heartbeat(event):
            return []
        return list(_units(event))

    def text(self, event: Event) -> str:
        return str(event.member("delta") or "") if event.member("type") == "text-delta" else ""

    def is_error(self, event: Event) -> bool:
        return bool(event.member("type") == "error")

    def is_heartbeat(self, event: Event) -> bool:
        return bool(event.member("transient"))

    def unknown(self, stream: Stream) -> Stream:
        return Stream(f"kit-{uuid.uuid4()}", stream.ask)


class HeadraceAiSdk(AiSdk):
    """Headrace's route keeps answers that have ended, and takes idempotency keys."""

    name = "headrace-ai-sdk"
    title = "Headrace, AI SDK"
    reference = "docs/compatibility.md"
    lacks = {  # noqa: RUF012
        feature: reason for feature, reason in AiSdk.lacks.items() if feature not in {"replay", "idempotency"}
    }

    def attach(self, stream: Stream, cursor: str | None) -> Request:
        return Request("GET", f"/api/chat/{stream.id}/stream?ended=true")


def _units(event: Event) -> Iterator[Unit]:
    kind, part = event.member("type"), event.member("id")
    if str(kind).removesuffix("-delta") in _PARTS:
        for character in str(event.member("delta")):
            yield Unit(f"{kind} of part {part}", character)
    else:
        yield Unit(str(kind), json.dumps(event.json, sort_keys=True))
