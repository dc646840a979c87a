"""Checks with a network that cuts responses."""

import asyncio
from typing import Final

from headrace_conformance.check import NotApplicable, Violation, check
from headrace_conformance.client import Unreachable
from headrace_conformance.concurrently import each
from headrace_conformance.lab import Lab, Whole, first_units, need_live
from headrace_conformance.profile import Stream
from headrace_conformance.proxy import Fault, FaultProxy
from headrace_conformance.sse import Event

_MOST_CUTS_WITHOUT_CURSORS: Final = 8
#: Connections in a row that end before the response. Each may have more bytes, and heads have a few KiB.
_MOST_UNREACHABLE: Final = 100
_PAUSE_S: Final = 0.02


@check(
    "cut-every-byte", "Cut the response after every byte, and resume at the last event", rule="C4", needs=["replay"]
)
async def cut_after_every_byte(lab: Lab) -> str:
    """Reads an ended stream through a proxy that cuts the response after n bytes. Every other cut is a reset."""
    whole = await lab.whole("short")
    size, borders = await _size(lab, whole)

    async def one(at: int) -> None:
        async with FaultProxy(lab.elsewhere.url, Fault(after_bytes=at, then="reset" if at % 2 else "close")) as proxy:
            had = await _read(lab, whole, proxy.url)
        cursor = lab.cursor(had)
        rest = await lab.resume(whole, cursor)
        before = lab.assemble(had) if cursor is not None else []  # without a cursor, a client begins again
        had_all = lab.assemble(rest, before)
        lab.compare(whole.units, had_all, f"cut after {at} bytes, resume at {cursor or 'the start'}")

    chosen = lab.sample("cut-every-byte", size + 1, always=borders)
    await each(chosen, one)
    return f"{len(chosen)} of {size + 1} places"


@check("cut-live", "Cut a live stream again and again, and resume each time", rule="C4")
async def cut_while_live(lab: Lab) -> str:
    """Read over connections that break after some bytes, and compare with an undisturbed reader."""
    stream, reading = await lab.begin("slow")
    async with reading:
        await first_units(lab, reading, 1)
        need_live(lab, reading)
        async with FaultProxy(lab.elsewhere.url) as proxy:
            had, connections = await _read_cut(lab, stream, proxy)
        await reading.rest()
    whole = lab.whole_of(stream, reading)
    lab.compare(whole.units, lab.assemble(had), f"{connections} connections")
    if connections == 1:
        raise NotApplicable("the answer ended before its connection was cut; use a longer one")
    return f"{connections} connections, {len(whole.units)} units"


async def _read_cut(lab: Lab, stream: Stream, proxy: FaultProxy) -> tuple[list[Event], int]:
    """Read a live stream to its ending over connections that break. Each may have more bytes than the one before, so
    that one of them reaches the ending even if a client has to begin again."""
    had: list[Event] = []
    chance, connections, unreachable = lab.random("cut-live"), 0, 0
    while not lab.has_ended(had):
        connections += 1
        proxy.fault = _fault(lab, chance.randrange(300, 1500), connections)
        cursor = lab.cursor(had)
        try:
            reading = await lab.attach(stream, cursor, through=proxy.url)
        except Unreachable:
            unreachable += 1
            if unreachable == _MOST_UNREACHABLE:
                raise
            await asyncio.sleep(_PAUSE_S)
            continue
        unreachable = 0
        async with reading:
            await reading.rest()
        if reading.status in lab.profile.nothing_left and "replay" in lab.profile.lacks:
            raise NotApplicable("the answer ended between two connections, and the API does not replay it")
        if reading.is_error:
            raise Violation(f"resume at {cursor or 'the start'} after a cut: status {reading.status}")
        if reading.end == "complete" and not lab.has_ended(reading.events) and not proxy.has_cut:
            raise Violation(
                f"resume at {cursor or 'the start'}: complete without an ending", lab.last_labels(reading)
            )
        had = [*had, *reading.events] if cursor is not None else list(reading.events)
    return had, connections


def _fault(lab: Lab, after_bytes: int, number: int) -> Fault:
    """Return the cut of a connection. Without cursors, every connection begins again: one of them is not cut."""
    if number > _MOST_CUTS_WITHOUT_CURSORS and "cursor" in lab.profile.lacks:
        return Fault()
    return Fault(after_bytes=after_bytes * (1 + number // 8), then="reset" if number % 2 else "close")


async def _size(lab: Lab, whole: Whole) -> tuple[int, list[int]]:
    """Return the size of the whole response with its head, and the places around the ends of events."""
    async with FaultProxy(lab.elsewhere.url) as proxy:
        async with await lab.attach(whole.stream, None, through=proxy.url) as reading:
            await reading.rest()
        size = proxy.forwarded
    head = size - len(reading.raw)
    return size, [head + event.end + near for event in reading.events for near in (-2, -1, 0, 1)]


async def _read(lab: Lab, whole: Whole, proxy_url: str) -> list[Event]:
    try:
        reading = await lab.attach(whole.stream, None, through=proxy_url)
    except Unreachable:
        return []  # cut within the head
    async with reading:
        await reading.rest()
    return reading.events
