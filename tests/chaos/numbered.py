"""Events of a response as one client has them over all its connections, by their numbers."""

import time
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.transcript import Transcript
from tests.sse_client import Frame

#: Codes of OpenAI's for ours, in a failed response.
_OURS = {"rate_limit_exceeded": "provider_rate_limited"}
_FINISH = {"response.completed": "stop", "response.incomplete": "cancelled", "response.failed": "error"}


@dataclass(slots=True)
class NumberedTranscript(Transcript):
    """A response's events. A number is the same event in every replay, and none is left out."""

    stream_id: str | None = None
    _events: list[tuple[Any, ...]] = field(default_factory=list)
    _expected: int = 0

    @property
    def cursor(self) -> str | None:
        return str(len(self._events) - 1) if self._events else None

    def begin(self, after: int) -> None:
        """Expect the events after a number, from a new connection."""
        self._expected = after + 1

    def take_event(self, event: dict[str, Any]) -> None:
        number, kind = event["sequence_number"], event["type"]
        if self.done is not None:
            self.complaints.append(f"{kind} after the end")
        if number != self._expected:
            self.complaints.append(f"{kind} {number}, expected {self._expected}")
        self._expected = number + 1
        # The parts that no later event changes.
        known = kind, event.get("delta"), event.get("text"), event.get("response", {}).get("id")
        if number < len(self._events):
            if self._events[number] != known:
                self.complaints.append(f"event {number} was {self._events[number]}, is {known}")
            return
        self._events.append(known)
        self._take_new(kind, event)

    def _take_new(self, kind: str, event: dict[str, Any]) -> None:
        match kind:
            case "response.created":
                self.stream_id = event["response"]["id"].removeprefix("resp_")
            case "response.output_text.delta":
                self.text += event["delta"]
            case "response.output_text.done" if event["text"] != self.text:
                self.complaints.append(f"text of {len(event['text'])} characters, deltas of {len(self.text)}")
            case "error":
                self._take_error(event["error"]["code"])
            case "response.completed" | "response.incomplete" | "response.failed":
                self._take_end(_FINISH[kind], event["response"])

    def _take_error(self, code: str) -> None:
        if self.error is not None:
            self.complaints.append("two errors")
        self.error = {"code": _OURS.get(code, code)}
        if code == "stream_reset":  # no failed response follows if the stream ended before the client's number
            self._end("error", None)

    def _take_end(self, finish: str, response: dict[str, Any]) -> None:
        parts = [part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"]]
        if "".join(parts) != self.text:
            self.complaints.append(f"output of {len(''.join(parts))} characters, deltas of {len(self.text)}")
        if finish == "cancelled" and response["status"] != "cancelled":
            self.complaints.append(f"incomplete: {response['incomplete_details']}")
        self._end(finish, response["usage"])

    def _end(self, finish: str, usage: dict[str, Any] | None) -> None:
        reason = self.error["code"] if self.error is not None else None
        self.done = Frame("done", {"finish_reason": finish, "reason": reason, "usage": usage}, None, None)
        self.ended_at = time.monotonic()
