"""Checks of repeated requests."""

import asyncio
import uuid

from headrace_conformance.check import Violation, check
from headrace_conformance.client import Endpoint, Reading, Request
from headrace_conformance.lab import Lab
from headrace_conformance.profile import Stream


@check("idempotent-submit", "A repeated request attaches to its stream", rule="C14", needs=["idempotency"])
async def submit_twice(lab: Lab) -> str:
    """Repeats a request while its stream goes on, after its end, and with another key."""
    key = f"kit-{uuid.uuid4()}"
    stream, reading = await lab.begin("slow", key=key)
    second, again = await lab.begin("slow", key=key)
    async with reading, again:
        await asyncio.gather(reading.rest(), again.rest())
    third, after = await lab.begin("slow", key=key)
    async with after:
        await after.rest()
    whole = lab.whole_of(stream, reading)
    for other, had, when in ((second, again, "while it goes on"), (third, after, "after its end")):
        _expect_same(lab, stream, other, f"the same key {when}")
        lab.compare(whole.units, lab.assemble(had.events), f"the same key {when}")
    counted = await _expect_one_call(lab, key)
    other, reading = await lab.begin("slow", key=f"kit-{uuid.uuid4()}")
    await reading.leave()
    if other.id == stream.id:
        raise Violation("another key got the same stream", [stream.id])
    return f"3 requests, 1 stream{counted}"


@check("idempotent-concurrent", "Concurrent requests with one key make one stream", rule="C14", needs=["idempotency"])
async def submit_at_once(lab: Lab) -> str:
    key = f"kit-{uuid.uuid4()}"
    begun = await asyncio.gather(*(lab.begin("short", key=key) for _ in range(8)))
    await asyncio.gather(*(_finish(reading) for _, reading in begun))
    whole = lab.whole_of(*begun[0])
    for stream, reading in begun[1:]:
        _expect_same(lab, whole.stream, stream, "the same key at once")
        lab.compare(whole.units, lab.assemble(reading.events), "the same key at once")
    return f"{len(begun)} requests, 1 stream{await _expect_one_call(lab, key)}"


async def _finish(reading: Reading) -> None:
    async with reading:
        await reading.rest()


def _expect_same(lab: Lab, stream: Stream, other: Stream, what: str) -> None:
    if other.id != stream.id:
        raise Violation(f"{what}: another stream was made", [f"streams {stream.id}, {other.id}"])


async def _expect_one_call(lab: Lab, key: str) -> str:
    """Ask the kit's provider, if it is there, how often it was called for a key. It gets no header of the endpoint's
    requests: they have credentials."""
    if lab.options.provider_url is None:
        return ""
    async with Endpoint(lab.options.provider_url, patience_s=lab.endpoint.patience_s) as provider:
        reply = await provider.send(Request("GET", f"/calls/{key}"))
    if (calls := int(reply.body)) != 1:
        raise Violation(f"one key: the provider was called {calls} times")
    return ", 1 call of the provider"
