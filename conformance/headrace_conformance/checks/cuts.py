"""Checks with a network that cuts responses."""

from headrace_conformance.check import check
from headrace_conformance.client import Unreachable
from headrace_conformance.concurrently import each
from headrace_conformance.lab import Lab, Whole
from headrace_conformance.proxy import Fault, FaultProxy
from headrace_conformance.sse import Event


@check("cut-every-byte", "Cut the response after every byte, and resume at the last dispatched event", rule="C4")
async def cut_after_every_byte(lab: Lab) -> str:
    """Reads an ended stream through a proxy that cuts the response after n bytes. Half of the cuts are resets."""
    whole = await lab.whole("short")
    size, borders = await _size(lab, whole)

    async def one(at: int) -> None:
        fault = Fault(after_bytes=at, then="reset" if at % 2 else "close")
        async with FaultProxy(lab.endpoint.url, fault) as proxy:
            had = await _read(lab, whole, proxy)
        cursor = lab.cursor(had)
        rest = await lab.resume(whole.stream, cursor)
        before = lab.assemble(had) if cursor is not None else []  # without a cursor, a client begins again
        lab.compare(
            whole.units, lab.assemble(rest, before), f"cut after {at} bytes, resume at {cursor or 'the start'}"
        )

    chosen = lab.sample(size + 1, always=borders)
    await each(chosen, one)
    return f"{len(chosen)} of {size + 1} places"


async def _size(lab: Lab, whole: Whole) -> tuple[int, list[int]]:
    """Return the size of the whole response with its head, and the places around the ends of events."""
    async with FaultProxy(lab.endpoint.url) as proxy:
        async with await lab.endpoint.through(proxy.url).open(lab.attach(whole.stream, None)) as reading:
            await reading.rest()
        size = proxy.forwarded
    head = size - len(reading.raw)
    return size, [head + event.end + near for event in reading.events for near in (-2, -1, 0, 1)]


async def _read(lab: Lab, whole: Whole, proxy: FaultProxy) -> list[Event]:
    try:
        reading = await lab.endpoint.through(proxy.url).open(lab.attach(whole.stream, None))
    except Unreachable:
        return []  # cut within the head
    async with reading:
        await reading.rest()
    return reading.events
