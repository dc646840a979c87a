"""Workplace of the checks: the endpoint, its profile, and streams with known contents."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from headrace_conformance.check import NotApplicable, Violation
from headrace_conformance.client import Endpoint, Reading, Request
from headrace_conformance.profile import Ask, Profile, Stream, Unit
from headrace_conformance.sse import Event

#: Kinds of answers that checks ask for: the models of the kit's provider have these names.
Script = Literal["short", "slow", "long", "unicode", "error", "cut"]


@dataclass(frozen=True)
class Options:
    """Options of a run. ``scripts``: the models of each kind of answer; ``model`` is used for the others."""

    model: str
    prompt: str
    scripts: dict[Script, str] = field(default_factory=dict)
    cuts: int = 400
    seed: int = 1
    check_timeout_s: float = 300


@dataclass
class Whole:
    """A stream that has ended, as a reader had it that was not disturbed."""

    stream: Stream
    events: list[Event]
    units: list[Unit]
    #: Each cursor of the stream, with the number of units that a client has at it.
    cursors: dict[str, int]


class Lab:
    """One run's access to the endpoint. Streams that several checks may share are made once."""

    def __init__(self, endpoint: Endpoint, profile: Profile, options: Options) -> None:
        self.endpoint = endpoint
        self.profile = profile
        self.options = options
        self.random = random.Random(options.seed)  # noqa: S311
        self._wholes: dict[Script, Whole] = {}

    def ask(self, script: Script, *, key: str | None = None) -> Ask:
        return Ask(self.options.scripts.get(script, self.options.model), self.options.prompt, key)

    async def begin(self, script: Script, *, key: str | None = None) -> tuple[Stream, Reading]:
        """Start a stream. The connection that reads it is open."""
        return await self.profile.create(self.endpoint, self.ask(script, key=key))

    async def whole(self, script: Script) -> Whole:
        """Return a stream that has ended, as it was read from its creation to its end."""
        if script not in self._wholes:
            stream, reading = await self.begin(script)
            async with reading:
                await reading.rest()
            self._wholes[script] = self.whole_of(stream, reading)
        return self._wholes[script]

    def whole_of(self, stream: Stream, reading: Reading) -> Whole:
        """Check that a reading came to its ending, and return what it had."""
        if not any(map(self.profile.is_ending, reading.events)):
            raise Violation(f"a reader that was not disturbed got no ending ({reading.end})", self.labels(reading))
        units = self.assemble(reading.events)
        cursors: dict[str, int] = {}
        count = 0
        for event in reading.events:
            count = len(self.profile.units(event)) + (0 if self.profile.is_reset(event) else count)
            if (cursor := self.profile.cursor(event)) is not None:
                cursors[cursor] = count
        return Whole(stream, reading.events, units, cursors)

    def assemble(self, events: Iterable[Event], before: Sequence[Unit] = ()) -> list[Unit]:
        """Return what a client has that had ``before`` and dispatched these events."""
        units = list(before)
        for event in events:
            if self.profile.is_reset(event):
                units.clear()
            units += self.profile.units(event)
        return units

    def cursor(self, events: Iterable[Event]) -> str | None:
        """Return the cursor of a client that dispatched these events."""
        cursor = None
        for event in events:
            cursor = self.profile.cursor(event) or cursor
        return cursor

    async def resume(self, stream: Stream, cursor: str | None, *, endpoint: Endpoint | None = None) -> list[Event]:
        """Read a stream behind a cursor to its end. Raises :class:`Violation` if that is refused or breaks off."""
        async with await (endpoint or self.endpoint).open(self.profile.attach(stream, cursor)) as reading:
            await reading.rest()
            if reading.status in self.profile.nothing_left:
                return []
            if reading.is_error:
                raise Violation(f"attach at {cursor or 'the start'}: status {reading.status}")
            if not any(map(self.profile.is_ending, reading.events)):
                raise Violation(
                    f"attach at {cursor or 'the start'}: no ending ({reading.end})", self.labels(reading)[-5:]
                )
            return reading.events

    def compare(self, whole: Sequence[Unit], had: Sequence[Unit], where: str) -> None:
        """Raise :class:`Violation` with the first difference."""
        if list(whole) == list(had):
            return
        at = next((at for at, pair in enumerate(zip(whole, had, strict=False)) if pair[0] != pair[1]), None)
        if at is None:
            at = min(len(whole), len(had))
            kind = (
                "units are missing at the end" if len(had) < len(whole) else "units were repeated or added at the end"
            )
        elif whole[at].label == had[at].label:
            kind = "a unit has another content"
        elif had[at] in whole[:at]:
            kind = "a unit was repeated"
        elif had[at] in whole[at:]:
            kind = "a unit was lost"
        else:
            kind = "a unit is not of the stream"
        raise Violation(f"{where}: {kind}", _evidence(whole, had, at))

    def labels(self, reading: Reading) -> list[str]:
        """Return the labels of what came on a connection."""
        return [unit.label for unit in self.assemble(reading.events)]

    def sample(self, count: int, always: Iterable[int] = ()) -> list[int]:
        """Return all numbers below ``count``; if that are too many, ``always`` and random others."""
        most = self.options.cuts
        if count <= most:
            return list(range(count))
        chosen = {at for at in always if 0 <= at < count}
        if len(chosen) > most:
            chosen = set(self.random.sample(sorted(chosen), most))
        chosen |= set(self.random.sample(range(count), most - len(chosen)))
        return sorted(chosen)

    def need_cursors(self, whole: Whole) -> list[str]:
        """Return the stream's cursors, at least two of them."""
        if len(whole.cursors) < 2:
            raise NotApplicable("the answer has fewer than two events with a cursor; ask for a longer one")
        return list(whole.cursors)

    def attach(self, stream: Stream, cursor: str | None) -> Request:
        return self.profile.attach(stream, cursor)


def _evidence(whole: Sequence[Unit], had: Sequence[Unit], at: int) -> list[str]:
    def around(units: Sequence[Unit]) -> str:
        near = [unit.label for unit in units[max(0, at - 2) : at + 3]]
        return ", ".join(near) or "nothing"

    return [
        f"unit {at + 1} of {len(whole)}; the reader has {len(had)}",
        f"whole stream there: {around(whole)}",
        f"reader there: {around(had)}",
    ]
