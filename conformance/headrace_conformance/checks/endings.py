"""Checks of how streams end."""

import asyncio

from headrace_conformance.check import Violation, check
from headrace_conformance.client import Reading
from headrace_conformance.lab import Lab, first_units, need_live


@check("one-ending", "A stream has exactly one ending, and nothing comes after it", rule="C7")
async def end_once(lab: Lab) -> str:
    stream, reading = await lab.begin("short")
    async with reading:
        await reading.rest()
    _expect_one_ending(lab, reading, "the first reader")
    if "replay" in lab.profile.lacks:
        return "while live"
    async with await lab.attach(stream, None) as again:
        await again.rest()
    _expect_one_ending(lab, again, "a reader after the end")
    return "while live and after the end"


@check("cancel", "A cancel ends the stream once, for all readers", rule="C13", needs=["cancel"])
async def cancel(lab: Lab) -> str:
    stream, reading = await lab.begin("slow")
    async with reading, await lab.attach(stream, None) as other:
        await first_units(lab, reading, 2)
        need_live(lab, reading)
        reply = await lab.elsewhere.send(lab.profile.cancel(stream))
        if reply.is_error:
            raise Violation(f"cancel: status {reply.status}")
        await asyncio.gather(reading.rest(), other.rest())
    _expect_one_ending(lab, reading, "the reader")
    _expect_one_ending(lab, other, "another reader")
    whole = lab.whole_of(stream, reading)
    lab.compare(whole.units, lab.assemble(other.events), "another reader of a cancelled stream")
    again = await lab.elsewhere.send(lab.profile.cancel(stream))
    if again.status >= 500:
        raise Violation(f"a second cancel: status {again.status}")
    if "replay" not in lab.profile.lacks:
        lab.compare(whole.units, lab.assemble(await lab.resume(whole, None)), "a reader after a cancel")
    uncut = await lab.whole("slow")
    cut, full = (len(whole.text), len(uncut.text)) if uncut.text else (len(whole.units), len(uncut.units))
    if cut >= full:
        raise Violation("the answer went on to its end after the cancel", [f"{len(whole.units)} units"])
    return f"{len(whole.units)} of {len(uncut.units)} units, the second cancel has status {again.status}"


@check(
    "failure", "A failed answer ends with an error that readers can tell from success", rule="C12", needs=["failure"]
)
async def fail(lab: Lab) -> str:
    scripts = lab.need_script("error", "cut")
    for script in scripts:
        whole_stream, reading = await lab.begin(script)
        async with reading:
            await reading.rest()
        _expect_one_ending(lab, reading, f"script {script}")
        if not any(map(lab.profile.is_error, reading.events)):
            raise Violation(f"script {script}: the stream ends as if it were complete", lab.last_labels(reading))
        if "replay" not in lab.profile.lacks:
            whole = lab.whole_of(whole_stream, reading)
            lab.compare(whole.units, lab.assemble(await lab.resume(whole, None)), f"script {script}, read again")
    return f"the provider's {', '.join(scripts)}"


def _expect_one_ending(lab: Lab, reading: Reading, who: str) -> None:
    lab.expect_ending(reading, who)
    at = [number for number, event in enumerate(reading.events) if lab.profile.is_ending(event)]
    if len(at) > 1:
        raise Violation(f"{who}: {len(at)} endings", lab.last_labels(reading))
    after = lab.assemble(reading.events[at[0] + 1 :])
    if after:
        raise Violation(f"{who}: units after the ending", [unit.label for unit in after])
    if reading.end != "complete":
        raise Violation(f"{who}: the connection was {reading.end} after the ending")
