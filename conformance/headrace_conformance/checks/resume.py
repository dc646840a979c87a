"""Checks of the property: for every cursor k, ``whole[:k] + resume(k) == whole``."""

from headrace_conformance.check import Violation, check
from headrace_conformance.concurrently import each
from headrace_conformance.lab import Lab


@check("resume-after-end", "Resume at every cursor of a stream that has ended", rule="C4", needs=["cursor"])
async def resume_after_the_end(lab: Lab) -> str:
    whole = await lab.whole("short")
    cursors = lab.need_cursors(whole)

    async def one(at: int) -> None:
        cursor = cursors[at]
        had = lab.assemble(await lab.resume(whole.stream, cursor), whole.units[: whole.cursors[cursor]])
        lab.compare(whole.units, had, f"resume at {cursor}")

    chosen = lab.sample(len(cursors), always=(0, len(cursors) - 1))
    await each(chosen, one)
    return f"{len(chosen)} of {len(cursors)} cursors"


@check("read-from-start", "A late reader without a cursor gets the whole stream", rule="C5")
async def read_from_the_start(lab: Lab) -> str:
    whole = await lab.whole("short")
    lab.compare(whole.units, lab.assemble(await lab.resume(whole.stream, None)), "read from the start")
    return f"{len(whole.units)} units"


@check("resume-live", "Resume at every cursor while the stream goes on", rule="C4", needs=["cursor"])
async def resume_while_live(lab: Lab) -> str:
    """Leaves after each event, and goes on behind it on a new connection, while another reader stays."""
    stream, reading = await lab.begin("slow")
    events, connections = list(reading.events), 0
    stays = await lab.endpoint.open(lab.attach(stream, None))
    async with stays:
        await reading.leave()
        while not any(map(lab.profile.is_ending, events)):
            connections += 1
            cursor = lab.cursor(events)
            async with await lab.endpoint.open(lab.attach(stream, cursor)) as part:
                if part.is_error:
                    raise Violation(f"resume at {cursor} of a live stream: status {part.status}")
                if await part.until(lambda event: bool(lab.profile.units(event))) is None:
                    raise Violation(f"resume at {cursor} of a live stream: ended without an event ({part.end})")
                events += part.events
        await stays.rest()
    whole = lab.whole_of(stream, stays)
    lab.compare(whole.units, lab.assemble(events), f"{connections} connections of one event each")
    return f"{connections} connections, {len(whole.units)} units"
