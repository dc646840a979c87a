"""Timelines of streams for operators: times, counts, names and reasons, and nothing of the content.

The scripts add entries to the state's ``history`` (``note`` in ``_stream.lua``); creation and end have their own
fields.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from shared.broker.client import Client, run_commands
from shared.broker.keys import state_key, tail_key
from shared.broker.pipeline_connection import Command
from shared.protocol.chunks import length_of
from shared.protocol.lifecycle import ACTIVE
from shared.protocol.usage import decode_usage

#: The fields of a state that operators may see: neither request nor metadata.
FIELDS: Final = (
    *("status", "principal", "provider", "model", "attempt", "holder", "on_disconnect", "resumes", "live_until"),
    *("created", "started", "ended", "finish_reason", "reason", "cancel", "error", "usage", "history"),
    "priority",
)
Fields = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One entry of a timeline. ``what``: created, parked, claimed, taken_over, model_silent, provider_failed,
    first_token, handed_over, resumed, cancel_asked, ended or webhook. ``detail``: the worker, the provider, how it
    was resumed, why it failed or ended, or the outcome of the webhook."""

    at_ms: int
    what: str
    detail: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StreamTimeline:
    """A stream as operators see it. ``events``: number of events in the log. ``fields``: see :data:`FIELDS`."""

    stream_id: str
    fields: Fields
    events: int

    @property
    def is_active(self) -> bool:
        return self.fields["status"] in ACTIVE

    @property
    def worker(self) -> str | None:
        """The worker that writes it now."""
        holder = self.fields["holder"]
        return holder.partition(".")[0] if holder else None

    @property
    def usage(self) -> Any:
        return decode_usage(self.fields["usage"])

    @property
    def error(self) -> Any:
        return msgspec.json.decode(self.fields["error"] or "null")

    def at(self, field: str) -> int | None:
        """Return one of the state's times, in ms."""
        value = self.fields[field]
        return int(value) if value else None

    def first_token_ms(self) -> int | None:
        """Return the time of the first token of any attempt."""
        return next((each.at_ms for each in self.timeline() if each.what == "first_token"), None)

    def timeline(self) -> list[TimelineEntry]:
        """Return all entries, oldest first."""
        return sorted(self._entries(), key=lambda each: each.at_ms)

    def _entries(self) -> Iterator[TimelineEntry]:
        created, attempt = self.at("created") or 0, 0
        if created:
            yield TimelineEntry(created, "created", "", 0)
        for entry in (self.fields["history"] or "").split():
            with suppress(ValueError, IndexError):  # an entry of another version
                since_creation, what, *details = entry.split(":")
                at = created + int(since_creation)
                if what == "claim":
                    attempt = int(details[0])
                    if details[1] != "ending":  # a claim that only ended the stream
                        yield TimelineEntry(at, "taken_over" if attempt > 1 else "claimed", details[1], attempt)
                elif what in _NAMES:
                    yield TimelineEntry(at, _NAMES[what], ": ".join(details), attempt)
        if (ended := self.at("ended")) is not None:
            reasons = (self.fields["finish_reason"], self.fields["reason"])
            yield TimelineEntry(ended, "ended", ": ".join(reason for reason in reasons if reason), attempt)


_NAMES: Final = {
    "parked": "parked",
    "called": "model_silent",
    "failure": "provider_failed",
    "output": "first_token",
    "handover": "handed_over",
    "resume": "resumed",
    "cancel": "cancel_asked",
    "webhook": "webhook",
}


async def read_timeline(client: Client, stream_ids: list[str]) -> list[StreamTimeline]:
    """Return the timelines of those streams that exist, in the same order. Raises :class:`BrokerUnavailable`."""
    if not stream_ids:
        return []
    commands: list[Command] = []
    for stream_id in stream_ids:
        commands += [("HMGET", state_key(stream_id), *FIELDS, "chunks"), ("XLEN", tail_key(stream_id))]
    replies = await run_commands(client, commands)
    found = zip(stream_ids, replies[::2], replies[1::2], strict=True)
    return [
        StreamTimeline(stream_id, _texts(values), _count_events(values[0], chunks, in_tail))
        for stream_id, (*values, chunks), in_tail in found
        if values[0] is not None
    ]


def _count_events(status: bytes, chunks: bytes | None, in_tail: int) -> int:
    """Return the number of events in the log, as ``count_events`` in ``_stream.lua`` does."""
    in_chunks = length_of(chunks.decode()) if chunks else 0
    return in_chunks + (in_tail if status.decode() in ACTIVE else 0)


def _texts(values: list[bytes | None]) -> Fields:
    return {name: value.decode() if value else None for name, value in zip(FIELDS, values, strict=True)}
