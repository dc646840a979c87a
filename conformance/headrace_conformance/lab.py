"""Workplace of the checks: the endpoint, its profile, and streams with known contents."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from headrace_conformance.check import NotApplicable, Violation
from headrace_conformance.client import Endpoint, Reading
from headrace_conformance.profile import Ask, Profile, Stream, Unit
from headrace_conformance.sse import Event

#: Kinds of answers that checks ask for. The kit's provider has models of these names.
Script = Literal["short", "slow", "long", "unicode", "tools", "error", "cut"]


@dataclass(frozen=True)
class Options:
    """Options of a run. ``model`` is that of all requests, but for those of a script in ``scripts``."""

    model: str
    prompt: str
    scripts: Mapping[Script, str] = field(default_factory=dict)
    #: Address of the kit's provider, which counts its calls; None: not known.
    provider_url: str | None = None
    #: Address of another server that has the same streams: readers attach there. None: the endpoint itself.
    attach_url: str | None = None
    cuts: int = 400
    seed: int = 1
    check_timeout_s: float = 300
    #: Checks that run at once.
    at_once: int = 4

    def model_of(self, script: Script) -> str:
        return self.scripts.get(script, self.model)


@dataclass(frozen=True)
class Whole:
    """A stream that has ended, as a reader had it that was not disturbed."""

    stream: Stream
    units: list[Unit]
    #: Each cursor of the stream, with the number of units that a client has at it.
    cursors: dict[str, int]
    #: Cursors of a client that has had the ending.
    final: frozenset[str]
    text: str


@dataclass
class Observations:
    """Findings on all connections of a run, for the checks that judge them together."""

    connections: int = 0
    events: int = 0
    comments: int = 0
    oddities: list[str] = field(default_factory=list)
    retries: set[int] = field(default_factory=set)
    heartbeats: list[Event] = field(default_factory=list)

    def add(self, reading: Reading, profile: Profile) -> None:
        if reading.is_error:
            return
        self.connections += 1
        self.events += len(reading.events)
        self.comments += len(reading.parser.comments)
        self.oddities += reading.parser.oddities
        if reading.end == "complete" and reading.parser.has_rest:
            self.oddities.append("bytes after the last blank line")
        if reading.parser.retry_ms is not None:
            self.retries.add(reading.parser.retry_ms)
        self.heartbeats += filter(profile.is_heartbeat, reading.events)


class Lab:
    """One run's access to the endpoint. Streams that several checks may share are made once."""

    def __init__(self, endpoint: Endpoint, profile: Profile, options: Options) -> None:
        self.endpoint = endpoint
        self.profile = profile
        self.options = options
        #: Server of all attaches.
        self.elsewhere = endpoint.at(options.attach_url or endpoint.url)
        self.observations = Observations()
        for server in (endpoint, self.elsewhere):
            server.observe = lambda reading: self.observations.add(reading, profile)
        self._wholes: dict[str, Whole] = {}
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def begin(self, script: Script, *, key: str | None = None) -> tuple[Stream, Reading]:
        """Start a stream. The connection that reads it is open. With a key, the prompt has the key too, so that the
        provider can count its calls."""
        prompt = self.options.prompt if key is None else f"{self.options.prompt} ({key})"
        return await self.profile.create(self.endpoint, Ask(self.options.model_of(script), prompt, key))

    async def attach(self, stream: Stream, cursor: str | None, *, through: str | None = None) -> Reading:
        """Open a connection that reads a stream behind a cursor, maybe through a proxy."""
        endpoint = self.elsewhere if through is None else self.elsewhere.through(through)
        return await self.profile.open(endpoint, stream, cursor)

    async def whole(self, script: Script) -> Whole:
        """Return a stream that has ended, as it was read from its creation to its end."""
        model = self.options.model_of(script)
        async with self._locks[model]:
            if model not in self._wholes:
                stream, reading = await self.begin(script)
                async with reading:
                    await reading.rest()
                self._wholes[model] = self.whole_of(stream, reading)
        return self._wholes[model]

    def whole_of(self, stream: Stream, reading: Reading) -> Whole:
        """Return the events of an undisturbed reader. Raises :class:`Violation` without an ending, without a unit to
        compare, or if two events share a cursor."""
        self.expect_ending(reading, "a reader that was not disturbed")
        cursors: dict[str, int] = {}
        final, count, has_ended = set(), 0, False
        for event in reading.events:
            added = len(self.profile.units(event))
            count = added if self.profile.is_reset(event) else count + added
            has_ended = has_ended or self.profile.is_ending(event)
            if (cursor := self.profile.cursor(event)) is None:
                continue
            if added and cursors.get(cursor, count) != count:
                raise Violation(
                    f"cursor {cursor} stands for two places", [f"after unit {cursors[cursor]} and {count}"]
                )
            cursors[cursor] = count
            if has_ended:
                final.add(cursor)
        text, units = "".join(map(self.profile.text, reading.events)), self.assemble(reading.events)
        if not units:
            raise Violation("the stream has no units, so that nothing of it can be compared")
        return Whole(stream, units, cursors, frozenset(final), text)

    def assemble(self, events: Iterable[Event], before: Sequence[Unit] = ()) -> list[Unit]:
        """Return the units of a client that had ``before`` and dispatched these events."""
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

    def has_ended(self, events: Iterable[Event]) -> bool:
        return any(map(self.profile.is_ending, events))

    def expect_ending(self, reading: Reading, who: str) -> None:
        """Raise :class:`Violation` unless a connection came to the ending of its stream."""
        if reading.is_error:
            raise Violation(f"{who}: status {reading.status}")
        if not self.has_ended(reading.events):
            raise Violation(f"{who}: the connection is {reading.end}, without an ending", self.last_labels(reading))

    async def resume(self, whole: Whole, cursor: str | None) -> list[Event]:
        """Read an ended stream behind a cursor. Raises :class:`Violation` if that is refused or has no ending."""
        reading = await self.attach(whole.stream, cursor)
        async with reading:
            await reading.rest()
        if reading.status in self.profile.nothing_left:
            return []
        if not (cursor in whole.final and reading.end == "complete" and not reading.is_error):
            self.expect_ending(reading, f"resume at {cursor or 'the start'}")
        return reading.events

    def compare(self, whole: Sequence[Unit], had: Sequence[Unit], where: str) -> None:
        """Raise :class:`Violation` with the first difference."""
        if list(whole) != list(had):
            at = next((at for at, pair in enumerate(zip(whole, had, strict=False)) if pair[0] != pair[1]), None)
            at = min(len(whole), len(had)) if at is None else at
            raise Violation(f"{where}: {_difference(whole, had, at)}", _evidence(whole, had, at))

    def last_labels(self, reading: Reading) -> list[str]:
        """Return the labels of the last units that came on a connection, for evidence."""
        units = self.assemble(reading.events)[-3:]
        return [f"last units: {', '.join(unit.label for unit in units) or 'none'}"]

    def random(self, name: str) -> random.Random:
        """Return the random numbers of one check, the same in every run with one seed."""
        return random.Random(f"{self.options.seed} {name}")  # noqa: S311

    def sample(self, name: str, count: int, always: Iterable[int] = ()) -> list[int]:
        """Return all numbers below ``count``; if that are too many, ``always`` and random others."""
        most, chance = self.options.cuts, self.random(name)
        if count <= most:
            return list(range(count))
        chosen = {at for at in always if 0 <= at < count}
        if len(chosen) > most:
            chosen = set(chance.sample(sorted(chosen), most))
        return sorted(chosen | set(chance.sample(range(count), most - len(chosen))))

    def need_script(self, *scripts: Script) -> list[Script]:
        """Return those of the scripts that this run has. Raises :class:`NotApplicable` without any."""
        found: list[Script] = [script for script in scripts if script in self.options.scripts]
        if not found:
            raise NotApplicable("needs the kit's provider behind the endpoint; see --scripts")
        return found

    def available(self, *scripts: Script) -> list[Script]:
        """Return the scripts that this run has, at least the first one."""
        return [script for script in scripts if script == scripts[0] or script in self.options.scripts]


NO_LONGER_LIVE: Final = "the answer ended before the check could attach; use a slower model"


def need_live(lab: Lab, reading: Reading) -> None:
    """Raise :class:`NotApplicable` if a stream that should be running has ended."""
    if lab.has_ended(reading.events):
        raise NotApplicable(NO_LONGER_LIVE)


def need_in_time(lab: Lab, joined: Reading) -> None:
    """Raise :class:`NotApplicable` if a reader joined after the end of an answer that is not replayed."""
    if joined.status in lab.profile.nothing_left and "replay" in lab.profile.lacks:
        raise NotApplicable(NO_LONGER_LIVE)


async def first_units(lab: Lab, reading: Reading, count: int) -> None:
    """Read until a client has some units and a cursor, if the API has cursors."""
    async for _ in reading:
        has_cursor = "cursor" in lab.profile.lacks or lab.cursor(reading.events) is not None
        if len(lab.assemble(reading.events)) >= count and has_cursor:
            return


def _difference(whole: Sequence[Unit], had: Sequence[Unit], at: int) -> str:
    if at == len(had):
        return "units are missing at the end"
    if had[at] in whole[:at]:
        return "a unit was repeated"
    if at == len(whole):
        return "a unit was added at the end"
    if had[at] in whole[at:]:
        return "a unit was lost"
    return "a unit has another content" if whole[at].label == had[at].label else "a unit is not of the stream"


def _evidence(whole: Sequence[Unit], had: Sequence[Unit], at: int) -> list[str]:
    def around(units: Sequence[Unit]) -> str:
        near = [unit.label for unit in units[max(0, at - 2) : at + 3]]
        return ", ".join(near) or "nothing"

    return [
        f"unit {at + 1} of {len(whole)}; the reader has {len(had)}",
        f"whole stream there: {around(whole)}",
        f"reader there: {around(had)}",
    ]
