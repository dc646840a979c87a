"""AG-UI with resume: ``id:`` per event, ``Last-Event-ID``, and a URL per run."""

import json
import re
import uuid
from collections.abc import Sequence
from typing import Final

from headrace_conformance.client import Endpoint, Reading, Request
from headrace_conformance.profile import Ask, Foreign, Profile, Refused, Stream, Unit
from headrace_conformance.sse import Event

_ENDINGS: Final = frozenset({"RUN_FINISHED", "RUN_ERROR"})
#: Events that say where a client is, not what the answer has.
_OF_THE_CONNECTION: Final = frozenset({"RUN_STARTED", "MESSAGES_SNAPSHOT"})


class AgUi(Profile):
    """AG-UI has no attach of its own yet; these are the URLs of Headrace."""

    name = "ag-ui"
    title = "AG-UI with resume"
    reference = "docs/protocol.md"

    async def create(self, endpoint: Endpoint, ask: Ask) -> tuple[Stream, Reading]:
        run = ask.key or f"kit-{uuid.uuid4()}"
        body = {
            "threadId": f"{run}-thread",
            "runId": run,
            "messages": [{"id": f"{run}-1", "role": "user", "content": ask.prompt}],
            "state": {},
            "tools": [],
            "context": [],
            "forwardedProps": {"model": ask.model},
        }
        reading = await endpoint.open(Request("POST", "/ag-ui", body=body))
        if reading.is_error:
            await reading.rest()
            raise Refused(f"POST /ag-ui: status {reading.status}", bytes(reading.raw))
        return Stream(run, ask), reading

    def attach(self, stream: Stream, cursor: str | None) -> Request:
        headers = {} if cursor is None else {"Last-Event-ID": cursor}
        return Request("GET", _url(stream), headers)

    def cancel(self, stream: Stream) -> Request:
        return Request("POST", _url(stream, "/cancel"))

    def is_ending(self, event: Event) -> bool:
        return event.member("type") in _ENDINGS

    def units(self, event: Event) -> Sequence[Unit]:
        if event.id is None or event.member("type") in _OF_THE_CONNECTION:
            return []
        return [Unit(f"{event.id} {event.member('type')}", json.dumps(event.json))]

    def text(self, event: Event) -> str:
        return str(event.member("delta") or "") if event.member("type") == "TEXT_MESSAGE_CONTENT" else ""

    def is_reset(self, event: Event) -> bool:
        """Return whether a snapshot of the request's messages comes after the beginning: it takes the answer back."""
        return event.member("type") == "MESSAGES_SNAPSHOT" and not (event.id or "").startswith("0-0.")

    def is_error(self, event: Event) -> bool:
        return bool(event.member("type") == "RUN_ERROR")

    def is_heartbeat(self, event: Event) -> bool:
        return event.id is None and event.member("type") == "CUSTOM"

    def unknown(self, stream: Stream) -> Stream:
        return Stream(f"kit-{uuid.uuid4()}", stream.ask)

    def foreign(self, cursors: Sequence[str]) -> list[Foreign]:
        """Change the number of a real cursor, or its epoch. The rest names the open parts of the answer."""
        epoch, seq, rest = re.fullmatch(r"(\d+)-(\d+)(.*)", cursors[-1]).groups()  # type: ignore[union-attr]
        return [
            Foreign("garbage", "not-a-cursor"),
            Foreign("future", f"{epoch}-{int(seq) + 1000}{rest}"),
            Foreign("unknown", f"{int(epoch) + 99_999}-1{rest}"),
        ]


def _url(stream: Stream, act: str = "") -> str:
    return f"/ag-ui/runs/{stream.id}{act}?threadId={stream.id}-thread"
