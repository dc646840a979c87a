"""Checks of cursors that are not of the stream, and of streams that do not exist."""

from typing import Final

from headrace_conformance.check import NotApplicable, Violation, check
from headrace_conformance.client import Reading
from headrace_conformance.lab import Lab, Whole, first_units, need_live
from headrace_conformance.profile import Foreign

#: Status of a server that does not know at the moment which streams it has.
_LATER: Final = 503


@check(
    "foreign-cursor",
    "A cursor that is not of the stream gets an error or a reset, never a silent gap",
    rule="C9",
    needs=["cursor", "foreign_cursor", "replay"],
)
async def foreign_cursor(lab: Lab) -> str:
    whole = await lab.whole("short")
    seen = []
    for foreign in lab.profile.foreign(list(whole.cursors)):
        async with await lab.attach(whole.stream, foreign.cursor) as reading:
            await reading.rest()
        seen.append(f"{foreign.kind}: {_reaction(lab, whole, foreign, reading)}")
    if not seen:
        raise NotApplicable("the profile names no foreign cursors")
    return ", ".join(seen)


@check(
    "foreign-cursor-live",
    "The same while the stream goes on",
    rule="C9",
    needs=["cursor", "foreign_cursor", "replay"],
)
async def foreign_cursor_live(lab: Lab) -> str:
    stream, reading = await lab.begin("slow")
    others: list[tuple[Foreign, Reading]] = []
    async with reading:
        await first_units(lab, reading, 2)
        need_live(lab, reading)
        cursor = lab.cursor(reading.events)
        for foreign in lab.profile.foreign([cursor]) if cursor is not None else ():
            others.append((foreign, await lab.attach(stream, foreign.cursor)))
        await reading.rest()
        for _, other in others:
            async with other:
                await other.rest()
    whole = lab.whole_of(stream, reading)
    if not others:
        raise NotApplicable("the profile names no foreign cursors")
    return ", ".join(f"{foreign.kind}: {_reaction(lab, whole, foreign, other)}" for foreign, other in others)


@check("reset", "After a reset, a client has the whole stream of one attempt", rule="C10", needs=["reset", "replay"])
async def reset(lab: Lab) -> str:
    whole = await lab.whole("short")
    unknown = [foreign for foreign in lab.profile.foreign(list(whole.cursors)) if foreign.kind == "unknown"]
    for foreign in unknown:
        async with await lab.attach(whole.stream, foreign.cursor) as reading:
            await reading.rest()
        if reading.is_error or not any(map(lab.profile.is_reset, reading.events)):
            continue
        resets = [number for number, event in enumerate(reading.events) if lab.profile.is_reset(event)]
        if lab.assemble(reading.events[: resets[0]]):
            raise Violation("units come before the reset", lab.last_labels(reading))
        lab.compare(whole.units, lab.assemble(reading.events, whole.units[:2]), "a client that had something else")
        return f"{len(resets)} reset"
    raise NotApplicable("the endpoint did not reset any reader; it refuses unknown cursors")


@check("unknown-stream", "A stream that does not exist is an error, not an empty answer", rule="C9")
async def unknown_stream(lab: Lab) -> str:
    whole = await lab.whole("short")
    async with await lab.attach(lab.profile.unknown(whole.stream), None) as reading:
        if reading.status >= 500 and reading.status != _LATER:
            raise Violation(f"status {reading.status}: the server failed instead of refusing")
        if reading.status in lab.profile.nothing_left and lab.profile.unknown_is_empty:
            raise NotApplicable(f"status {reading.status}: {lab.profile.unknown_is_empty}")
        if reading.is_error:
            return f"status {reading.status}"
        await reading.rest()
    if any(map(lab.profile.is_error, reading.events)):
        return "an error event"
    raise Violation(f"status {reading.status} without an error", lab.last_labels(reading))


def _reaction(lab: Lab, whole: Whole, foreign: Foreign, reading: Reading) -> str:
    """Return how the endpoint treated a foreign cursor. Raises :class:`Violation` if a client would not notice."""
    where = f"{foreign.kind} cursor {foreign.cursor}"
    if reading.is_error:
        if reading.status >= 500:
            raise Violation(f"{where}: status {reading.status}")
        return f"status {reading.status}"
    if any(map(lab.profile.is_reset, reading.events)):
        lab.compare(whole.units, lab.assemble(reading.events), where)
        return "reset"
    if any(map(lab.profile.is_error, reading.events)):
        return "error event"
    got = lab.assemble(reading.events)
    raise Violation(
        f"{where}: status {reading.status}, neither an error nor a reset", [f"{len(got)} of {len(whole.units)} units"]
    )
