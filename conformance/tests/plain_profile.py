"""Profile of the plain server, as a stranger would write it."""

from collections.abc import Sequence

from headrace_conformance import Ask, Endpoint, Event, Foreign, Profile, Reading, Request, Stream, Unit


class Plain(Profile):
    """SSE with ids, a reset event, and an ``end``."""

    name = "plain"
    title = "Plain server of the kit's tests"
    reference = "conformance/tests/plain_server.py"

    async def create(self, endpoint: Endpoint, ask: Ask) -> tuple[Stream, Reading]:
        headers = {} if ask.key is None else {"Idempotency-Key": ask.key}
        reading = await endpoint.open(Request("POST", "/streams", headers, {"model": ask.model}))
        first = await reading.until(lambda event: event.type == "start")
        return Stream(first.member("stream") if first else "", ask), reading

    def attach(self, stream: Stream, cursor: str | None) -> Request:
        return Request("GET", f"/streams/{stream.id}", {} if cursor is None else {"Last-Event-ID": cursor})

    def cancel(self, stream: Stream) -> Request:
        return Request("DELETE", f"/streams/{stream.id}")

    def is_ending(self, event: Event) -> bool:
        return event.type == "end"

    def units(self, event: Event) -> Sequence[Unit]:
        if event.type in {"ping", "reset", "note"}:
            return []
        return super().units(event)

    def text(self, event: Event) -> str:
        return str(event.member("text") or "")

    def is_reset(self, event: Event) -> bool:
        return event.type == "reset"

    def is_error(self, event: Event) -> bool:
        return event.type == "error"

    def foreign(self, cursors: Sequence[str]) -> list[Foreign]:
        number = cursors[-1].partition("-")[0]
        return [
            Foreign("garbage", "not-an-id"),
            Foreign("future", f"{number}-9999"),
            Foreign("unknown", "99999-1"),
        ]
