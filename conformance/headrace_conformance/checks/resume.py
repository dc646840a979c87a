"""Checks of the property: for every cursor k, ``whole[:k] + resume(k) == whole``."""

from headrace_conformance.check import Violation, check
from headrace_conformance.concurrently import each
from headrace_conformance.lab import Lab, Whole, first_units, need_live


@check("resume-after-end", "Resume at every cursor of a stream that has ended", rule="C4", needs=["cursor", "replay"])
async def resume_after_the_end(lab: Lab) -> str:
    done = []
    for script in lab.available("short", "tools", "unicode"):
        whole = await lab.whole(script)
        cursors = _cursors(whole)
        chosen = lab.sample("resume-after-end", len(cursors), always=(0, len(cursors) - 1))
        await each(chosen, lambda at, whole=whole, cursors=cursors: _resume(lab, whole, cursors[at]))  # type: ignore[misc]
        done.append(f"{len(chosen)} of {len(cursors)} cursors ({script})")
    return ", ".join(done)


def _cursors(whole: Whole) -> list[str]:
    """Return the cursors of a stream, of which there must be some."""
    if not whole.cursors:
        raise Violation("no event has a cursor")
    return list(whole.cursors)


async def _resume(lab: Lab, whole: Whole, cursor: str) -> None:
    rest = await lab.resume(whole, cursor)
    if any(map(lab.profile.is_reset, rest)):
        raise Violation(f"resume at {cursor}: reset, although the stream has this cursor")
    lab.compare(whole.units, lab.assemble(rest, whole.units[: whole.cursors[cursor]]), f"resume at {cursor}")


@check("resume-live", "Resume at every cursor while the stream goes on", rule="C4", needs=["cursor"])
async def resume_while_live(lab: Lab) -> str:
    """Leaves after each event, and goes on behind it on a new connection, while another reader stays."""
    stream, reading = await lab.begin("slow")
    async with reading, await lab.attach(stream, None) as stays:
        await first_units(lab, reading, 1)
        events, connections = list(reading.events), 0
        seen = set[str | None]()
        await reading.leave()
        need_live(lab, reading)
        while not lab.has_ended(events):
            connections += 1
            cursor = lab.cursor(events)
            if cursor in seen:  # for ever, as far as we know
                raise Violation(f"resume at {cursor} of a live stream: the reader is at {cursor} again")
            seen.add(cursor)
            async with await lab.attach(stream, cursor) as part:
                if part.is_error:
                    raise Violation(f"resume at {cursor} of a live stream: status {part.status}")
                if await part.until(lambda event: bool(lab.profile.units(event))) is None:
                    raise Violation(f"resume at {cursor} of a live stream: {part.end} without an event")
                events += part.events
        await stays.rest()
    whole = lab.whole_of(stream, stays)
    lab.compare(whole.units, lab.assemble(events), f"{connections} connections, each left after an event")
    return f"{connections} connections, {len(whole.units)} units"


@check("resume-at-last", "A client that has the ending gets nothing more", rule="C8", needs=["cursor", "replay"])
async def resume_at_the_last_cursor(lab: Lab) -> str:
    whole = await lab.whole("short")
    cursor = _cursors(whole)[-1]
    reading = await lab.attach(whole.stream, cursor)
    async with reading:
        await reading.rest()
    added = lab.assemble(reading.events)
    if reading.status in lab.profile.nothing_left:
        return f"status {reading.status}"
    if reading.is_error or reading.end != "complete":
        raise Violation(f"resume at the last cursor {cursor}: status {reading.status}, connection {reading.end}")
    if any(unit not in whole.units[-1:] for unit in added):
        raise Violation(f"resume at the last cursor {cursor}: more than the ending", [unit.label for unit in added])
    return "the ending once more" if added else "an empty stream"


@check("resume-oldest", "Resume at the oldest cursors of a long stream", rule="C9", needs=["cursor", "replay"])
async def resume_at_the_oldest_cursors(lab: Lab) -> str:
    """A server may have trimmed them: then it says so, by an error or a reset."""
    whole = await lab.whole("long")
    for cursor in _cursors(whole)[:3]:
        async with await lab.attach(whole.stream, cursor) as reading:
            await reading.rest()
        if reading.status >= 500:
            raise Violation(f"resume at {cursor} of a long stream: status {reading.status}")
        if reading.is_error:
            return f"refused with status {reading.status}"
        before = whole.units[: whole.cursors[cursor]]
        if any(map(lab.profile.is_error, reading.events)):
            return "refused by an error event"
        lab.compare(whole.units, lab.assemble(reading.events, before), f"resume at {cursor} of a long stream")
    return f"{len(whole.units)} units, all kept"
