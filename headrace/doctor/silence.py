"""Findings about timeouts: streams of a model that is silent for longer than a heartbeat interval."""

import asyncio
import math
from typing import Final

from headrace.doctor import remedies
from headrace.doctor.findings import Finding, note, ok, wrong
from headrace.doctor.gateway_calls import GatewayCalls
from headrace.doctor.gateways import DEMO, Seen
from headrace.doctor.stream_reading import Reading, read_stream
from headrace.doctor.streams import question

#: The demo model is silent for up to 99 s.
_LONGEST_S: Final = 99
_MARGIN_S: Final = 15
#: The total deadline of an answer, and a little more.
_HELD_S: Final = 1860


def silence_s(seen: Seen) -> int:
    """Return the silence that shows two heartbeats and a half."""
    return min(_LONGEST_S, math.ceil(2.5 * seen.heartbeat_s))


async def examine_silence(gateway: GatewayCalls, seen: Seen) -> list[Finding]:
    """Wait for a silent model in both ways: with heartbeats, and with a status that is held back."""
    silent_s = silence_s(seen)
    both = await asyncio.gather(_heartbeats(gateway, seen, silent_s), _held(gateway, silent_s))
    return list(both)


async def _heartbeats(gateway: GatewayCalls, seen: Seen, silent_s: int) -> Finding:
    name = f"stream {gateway.shown}"
    body = question(DEMO, f"Say nothing for {silent_s} seconds, then 2 words.")
    reading = await read_stream(gateway, "POST", "/chat/stream", body=body, within_s=silent_s + _MARGIN_S)
    if reading.is_done:
        if not reading.heartbeats:
            detail = f"no heartbeat arrived in {silent_s} s of silence: a proxy holds them back"
            return wrong("idle_timeout", name, detail, remedies.BUFFERING)
        detail = f"survives {silent_s} s of silence, with {reading.heartbeats} heartbeats"
        return ok("idle_timeout", name, detail)
    if reading.was_too_long:
        return note("idle_timeout", name, f"not judged: {reading.problem}; is a worker free?")
    return _cut(reading, seen, name)


def _cut(reading: Reading, seen: Seen, name: str) -> Finding:
    if not reading.is_stream:
        return wrong("idle_timeout", name, f"HTTP {reading.status or '-'} instead of a stream: {reading.problem}")
    idle_s = reading.ended_s - reading.last_byte_s
    if reading.heartbeats:
        detail = f"cut after {reading.ended_s:.0f} s although heartbeats arrived: a proxy limits the duration"
        return wrong("duration", name, f"{detail} of a response; raise that limit", remedies.idle(seen.heartbeat_s))
    detail = f"cut after {idle_s:.1f} s of silence: a proxy's idle timeout is shorter than the heartbeat interval"
    advice = "(HEADRACE_HEARTBEAT_S)"
    return wrong(
        "idle_timeout", name, f"{detail} of {seen.heartbeat_s:g} s {advice}", remedies.idle(seen.heartbeat_s)
    )


async def _held(gateway: GatewayCalls, silent_s: int) -> Finding:
    """Chat Completions have no heartbeats before the first output: their status waits for it."""
    name = f"/v1/ {gateway.shown}"
    body = question(DEMO, f"Say nothing for {silent_s} seconds, then 2 words.", stream=True)
    within_s = silent_s + _MARGIN_S
    reading = await read_stream(gateway, "POST", "/v1/chat/completions", body=body, within_s=within_s)
    if reading.is_stream:
        return ok("held_response", name, f"waits {silent_s} s for a model's first output")
    if reading.was_too_long:
        return note("held_response", name, f"not judged: {reading.problem}; is a worker free?")
    if reading.status and '"code"' in reading.page and reading.headers.get("x-request-id"):
        return note("held_response", name, f"not tested: HTTP {reading.status} of the gateway")
    seen = f"HTTP {reading.status}" if reading.status else reading.problem
    detail = (
        f"given up after {reading.ended_s:.1f} s of waiting for a first output ({seen}): these responses are held"
    )
    advice = "back until then; let the proxy wait for longer than HEADRACE_TOTAL_DEADLINE_S"
    return wrong("held_response", name, f"{detail} {advice}", remedies.held(_HELD_S))
