"""Checks with several readers of one stream."""

import asyncio
from typing import Final

from headrace_conformance.check import NotApplicable, check
from headrace_conformance.client import Reading
from headrace_conformance.lab import Lab, first_units, need_in_time, need_live
from headrace_conformance.profile import Stream
from headrace_conformance.proxy import FaultProxy

#: Fewer bytes fit into the buffers of a connection, so that nobody notices a reader that does not read.
_FITS_INTO_BUFFERS: Final = 128 * 1024


@check("read-from-start", "A reader after the end gets the whole stream", rule="C5", needs=["replay"])
async def read_from_the_start(lab: Lab) -> str:
    whole = await lab.whole("short")
    lab.compare(whole.units, lab.assemble(await lab.resume(whole, None)), "read from the start")
    return f"{len(whole.units)} units"


@check("late-join", "A reader that joins in the middle gets the whole stream", rule="C5")
async def join_late(lab: Lab) -> str:
    stream, reading = await lab.begin("slow")
    async with reading:
        await first_units(lab, reading, 4)
        need_live(lab, reading)
        behind = len(lab.assemble(reading.events))
        async with await lab.attach(stream, None) as late:
            need_in_time(lab, late)
            await asyncio.gather(reading.rest(), late.rest())
    _compare(lab, stream, reading, late, "the late reader")
    return f"joined after {behind} units"


@check("double-attach", "Readers of one stream get the same, at the same time", rule="C6")
async def attach_twice(lab: Lab) -> str:
    stream, reading = await lab.begin("slow")
    async with reading, await lab.attach(stream, None) as second, await lab.attach(stream, None) as third:
        await first_units(lab, reading, 2)
        need_live(lab, reading)
        await asyncio.gather(reading.rest(), second.rest(), third.rest())
    _compare(lab, stream, reading, second, "the second reader")
    _compare(lab, stream, reading, third, "the third reader")
    return "3 readers"


@check("slow-reader", "A reader that does not read loses nothing and slows nobody", rule="C6")
async def read_slowly(lab: Lab) -> str:
    """Leaves one connection unread until another has come to the end. The server may cut it; it can resume."""
    stream, reading = await lab.begin("long")
    async with reading, await lab.attach(stream, None) as slow:
        await reading.rest()
        whole = lab.whole_of(stream, reading)
        await slow.rest()
        had, cursor = slow.events, lab.cursor(slow.events)
        if not lab.has_ended(had):
            if cursor is None and "replay" in lab.profile.lacks:
                raise NotApplicable("the reader was cut, and the API has neither cursors nor a replay to go on with")
            before = had if cursor is not None else []  # without a cursor, a client begins again
            had = [*before, *await lab.resume(whole, cursor)]
    lab.compare(whole.units, lab.assemble(had), "the slow reader")
    if len(reading.raw) < _FITS_INTO_BUFFERS:
        raise NotApplicable(
            f"the answer has only {len(reading.raw) // 1024} KiB, which buffers hold; use a longer one"
        )
    return f"{len(reading.raw) // 1024} KiB unread" + ("" if lab.has_ended(slow.events) else ", then cut and resumed")


@check("half-open", "A reader whose network is gone leaves the stream to others", rule="C6")
async def leave_half_open(lab: Lab) -> str:
    """Stops the packets of one connection without closing it, and reads on with another."""
    stream, reading = await lab.begin("slow")
    async with reading:
        await first_units(lab, reading, 2)
        need_live(lab, reading)
        async with FaultProxy(lab.elsewhere.url) as proxy:
            stuck = await lab.attach(stream, None, through=proxy.url)
            async with stuck:
                await first_units(lab, stuck, 1)
                proxy.hang()
                cursor = lab.cursor(stuck.events)
                async with await lab.attach(stream, cursor) as again:
                    need_in_time(lab, again)
                    await asyncio.gather(reading.rest(), again.rest())
    whole = lab.whole_of(stream, reading)
    before = [] if cursor is None else whole.units[: whole.cursors.get(cursor, 0)]
    lab.expect_ending(again, "the second connection")
    lab.compare(whole.units, lab.assemble(again.events, before), "the second connection")
    return f"resumed at {cursor or 'the start'}"


def _compare(lab: Lab, stream: Stream, reading: Reading, other: Reading, who: str) -> None:
    whole = lab.whole_of(stream, reading)
    lab.expect_ending(other, who)
    lab.compare(whole.units, lab.assemble(other.events), who)
