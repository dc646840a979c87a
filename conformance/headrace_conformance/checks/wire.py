"""Checks of the wire: content type, framing, heartbeats, UTF-8."""

import time
from typing import Final

from headrace_conformance.check import NotApplicable, Violation, check
from headrace_conformance.client import Reading
from headrace_conformance.lab import Lab
from headrace_conformance.provider.scripts import UNICODE_TEXT
from headrace_conformance.sse import Event

#: Fewer units may come at once.
_MANY_UNITS: Final = 20
#: A shorter answer does not show whether it was held back.
_LONG_S: Final = 0.3
#: Units of a buffer come within this time, one after another.
_AT_ONCE_S: Final = 0.05
_LONGEST_RETRY_MS: Final = 60_000


@check("content-type", "Streams have the content type of Server-Sent Events", rule="C1")
async def content_type(lab: Lab) -> str:
    stream, reading = await lab.begin("short")
    async with reading:
        await reading.rest()
    found = [_media_type(lab, reading, "the creating request")]
    if "replay" not in lab.profile.lacks:
        async with await lab.attach(stream, None) as again:
            found.append(_media_type(lab, again, "an attach"))
    return ", ".join(dict.fromkeys(found))


def _media_type(lab: Lab, reading: Reading, what: str) -> str:
    value = reading.headers.get("content-type", "")
    media_type, *parameters = (part.strip().lower() for part in value.split(";"))
    if media_type != lab.profile.media_type:
        raise Violation(f"{what}: content type {value or 'missing'}", [f"expected {lab.profile.media_type}"])
    if any(part.startswith("charset=") and part.strip('"') != "charset=utf-8" for part in parameters):
        raise Violation(f"{what}: {value}; Server-Sent Events are UTF-8")
    if (encoding := reading.headers.get("content-encoding", "identity")) != "identity":
        raise Violation(f"{what}: content encoding {encoding}, although the client accepts none")
    return value


@check("no-buffering", "Events leave as they are made", rule="C2")
async def no_buffering(lab: Lab) -> str:
    began = time.monotonic()
    _, reading = await lab.begin("slow")
    async with reading:
        await reading.rest()
    lab.expect_ending(reading, "the reader")
    times = [at for at, event in zip(reading.times, reading.events, strict=True) if lab.profile.units(event)]
    if len(times) < _MANY_UNITS:
        raise NotApplicable(f"the answer has only {len(times)} units; use a longer one")
    whole_s, spread_s = times[-1] - began, times[-1] - times[0]
    if whole_s < _LONG_S:
        raise NotApplicable(f"the answer took only {whole_s:.2f} s; use a slower model")
    if spread_s < max(_AT_ONCE_S, 0.02 * whole_s):
        raise Violation(f"{len(times)} units came within {spread_s:.3f} s, after {times[0] - began:.1f} s of silence")
    return f"{len(times)} units, {spread_s:.1f} s from the first to the last"


@check("utf-8", "Text survives providers that cut it within a character", rule="C16")
async def utf_8(lab: Lab) -> str:
    lab.need_script("unicode")
    whole = await lab.whole("unicode")
    if whole.text != UNICODE_TEXT:
        at = next(
            (at for at, pair in enumerate(zip(whole.text, UNICODE_TEXT, strict=False)) if pair[0] != pair[1]), 0
        )
        raise Violation(
            "the text is not that of the provider", [f"{len(whole.text)} of {len(UNICODE_TEXT)}", f"at {at}"]
        )
    return f"{len(UNICODE_TEXT.encode())} bytes, cut at every byte"


@check("framing", "Every byte of every connection is Server-Sent Events", rule="C1", judges_all=True)
async def framing(lab: Lab) -> str:
    seen = lab.observations
    if seen.oddities:
        raise Violation("bytes that clients must ignore", [*dict.fromkeys(seen.oddities)][:5])
    if not seen.events:
        raise NotApplicable("no event was seen by the checks before")
    return f"{seen.connections} connections, {seen.events} events"


@check("heartbeat", "Heartbeats do not move the cursor", rule="C11", judges_all=True)
async def heartbeat(lab: Lab) -> str:
    seen = lab.observations
    moving = [event for event in seen.heartbeats if _moves_the_cursor(lab, event)]
    if moving:
        raise Violation(
            "a heartbeat has a cursor", [f"{event.type} {lab.profile.cursor(event)}" for event in moving[:5]]
        )
    if not seen.heartbeats and not seen.comments:
        raise NotApplicable("no heartbeat was seen; use an endpoint with a shorter interval, or a slower model")
    return f"{seen.comments} comments, {len(seen.heartbeats)} events"


def _moves_the_cursor(lab: Lab, event: Event) -> bool:
    cursor = lab.profile.cursor(event)
    return event.id is not None or (cursor is not None and cursor != event.last_event_id)


@check("retry", "The reconnection time is sensible", rule="C15", judges_all=True)
async def retry(lab: Lab) -> str:
    times = sorted(lab.observations.retries)
    if not times:
        raise NotApplicable("the endpoint sends no retry: field; clients use their own default")
    if times[-1] > _LONGEST_RETRY_MS:
        raise Violation(f"retry: {times[-1]} ms; clients would be away for longer than a minute")
    return f"{times[0]} to {times[-1]} ms"
