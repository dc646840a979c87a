"""Draft of an answer: all its events, made from the deltas of its provider, and the calls that write them.

A draft has the content. ``writer.py`` decides when a call is made, and acts on its reply.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from msgspec import UNSET, structs

from shared.broker.declarations import Call
from shared.broker.ending import Outcome
from shared.broker.replies import Claimed, WriteReply
from shared.broker.scripts import Ending, Holder, StreamScripts
from shared.protocol import events
from shared.protocol.events import PartialUsage, Usage
from shared.protocol.ledger import LedgerEntry
from shared.protocol.ledger import Outcome as CallOutcome
from shared.protocol.lineage import NO_LINEAGE, Lineage
from shared.protocol.logged_calls import calls_of
from shared.protocol.usage import Estimate
from shared.settings import Settings
from workers import metrics
from workers.writing.call_ledger import CallLedger, is_counted
from workers.writing.coalescer import Coalescer, Written
from workers.writing.send_buffer import SendBuffer
from workers.writing.usage_by_target import Output, UsageByTarget


class HeldBack(Protocol):
    """Output of a call that is held back. ``text``: the answer that the call got besides the request."""

    text: str

    @property
    def held_characters(self) -> int: ...


class Draft:
    """One stream's answer. :meth:`set_model` must be called before any output. ``on_growth`` is called when there is
    more to send.

    ``events``: those that do not change any more. ``is_first``: readers have no text of an earlier attempt.
    ``cursor``: the place in the provider's stored answer after all deltas so far; ``has_to_note``: the state has to
    get it without events. ``lineage``: of the log that this one continues (rule E13). ``usage_wait_ms``: time after a
    cancel in which the provider's count may come; 0: it is not waited for.
    """

    def __init__(
        self,
        holder: Holder,
        claimed: Claimed,
        *,
        settings: Settings,
        scripts: StreamScripts,
        on_growth: Callable[[], None],
    ) -> None:
        self.events = SendBuffer(settings.cap)
        self.is_first = claimed.readable == 0
        self.cursor = ""
        self.has_to_note = False
        self.lineage = NO_LINEAGE
        self.usage_by_target = UsageByTarget(Estimate.of(claimed.fields))
        self.ledger = CallLedger(claimed, scripts)
        self._holder = holder
        self._scripts = scripts
        self._attempt = claimed.attempt
        self._on_growth = on_growth
        self._start = b""
        self._max_unsent_bytes = 2 * settings.max_event_bytes
        self._coalescer = Coalescer(settings.max_event_bytes)
        self._resumed_calls = 0
        self._input_counts: PartialUsage | None = None
        self.usage_wait_ms = 0

    @property
    def has_output(self) -> bool:
        """True once the provider has sent a part of its answer."""
        return self.output_count > 0

    @property
    def output_count(self) -> int:
        """Number of deltas and extras so far."""
        return self._coalescer.deltas + self._coalescer.extras

    @property
    def size(self) -> int:
        """Size of the events made of the provider's deltas so far."""
        return self._coalescer.made_bytes

    @property
    def has_unsent(self) -> bool:
        """True if there are events or deltas that the log does not have."""
        return bool(self.events.unsent_bytes or self._coalescer.bytes)

    @property
    def has_room(self) -> bool:
        """True while the unsent bytes do not exceed their limit."""
        return self.events.unsent_bytes + self._coalescer.bytes <= self._max_unsent_bytes

    # --- the beginning

    def set_model(self, provider: str, model: str, ignored: Sequence[str] = ()) -> None:
        """Set the provider and model of `start`, which is written with the first output. ``ignored``: paths of the
        request's fields that have no effect there."""
        start = events.Start(self._holder.stream_id, model, provider, self._attempt, ignored=list(ignored) or UNSET)
        self._start = events.encode(start)
        self.usage_by_target.target = provider, model

    def set_input_counts(self, counts: PartialUsage) -> None:
        """Add the counts of the input to `start`, if the provider reported them before its first output."""
        self._start = events.encode(structs.replace(events.decode(self._start), usage=counts))
        self._input_counts = counts

    def resume(self, log: Sequence[bytes], lineage: Lineage, cursor: str) -> None:
        """Continue ``log`` instead of beginning a new one. ``lineage``: its epochs; ``cursor``: as for :meth:`add`.
        Call it before any output."""
        self.events.resume(log, cursor)
        self.lineage = lineage
        decoded = [events.decode(stored) for stored in log]
        self._resumed_calls = len(calls_of(decoded))
        self._coalescer.resume(decoded)

    # --- the calls

    def begin_call(self, provider: str, model: str) -> None:
        """Note that a call of a provider begins, for the ledger."""
        self.ledger.begin((provider, model), self.output_count)
        self._input_counts = None

    def go_on(
        self,
        target: tuple[str, str],
        broken_off: Usage,
        output: Output,
        prefix_characters: int,
        counts: PartialUsage | None,
    ) -> None:
        """Note that another call goes on with the answer; see :meth:`UsageByTarget.go_on`. ``counts``: of its input,
        as far as the provider has reported them."""
        self.usage_by_target.go_on(target, broken_off, output, prefix_characters)
        self._input_counts = counts

    def end_call(self, failure: CallOutcome, held: HeldBack | None = None) -> None:
        """Add the open call to the ledger, if there is one: it has not answered to its end. ``failure``: for a call
        that had output; one without is ``failed`` or ``cancelled``. ``held``: output that did not join the answer."""
        if not self.events.is_closed:  # else it ends as abandoned, and what came meanwhile waits for the reply
            self._freeze()  # characters are counted here
        has_output = self.ledger.has_output(self.output_count)
        usage = self.usage_by_target.of_call(self._input_counts, self._output) if has_output else None
        if held is not None and held.held_characters:
            usage = self.usage_by_target.of_held(held.held_characters, len(held.text))
        outcome: CallOutcome = failure if has_output or failure == "cancelled" else "failed"
        self.ledger.end(outcome, usage, self._holder.epoch, self._calls)

    # --- the output

    def add(self, deltas: Sequence[Written], cursor: str = "") -> None:
        """Add ``deltas``. ``cursor``: the place in the provider's stored answer after them."""
        self._coalescer.add(deltas)
        self.cursor = cursor
        self._on_growth()

    def note_cursor(self, cursor: str) -> None:
        """Note where the provider's stored answer is, before it has output."""
        if not self.has_output:
            self.cursor = cursor
            self.has_to_note = True
            self._on_growth()

    def forget_cursor(self) -> None:
        """Forget where the provider's stored answer is."""
        self.cursor, self.has_to_note = "", False
        self.events.forget_cursors()

    def next_append(self) -> Call[WriteReply] | None:
        """Return the call that writes what comes next, or makes room for it; None if the log has everything."""
        buffer = self.events
        if not buffer.unsent_bytes:
            self._freeze()
        if not (batch := buffer.next_batch):
            return self._scripts.note_cursor(self._holder, self.cursor) if self.has_to_note else None
        if to_pack := buffer.to_pack(len(batch)):
            return self._scripts.pack(self._holder, buffer.packed, to_pack, self.lineage)
        self.has_to_note = False
        return self._scripts.append(
            self._holder,
            buffer.acknowledged + 1,
            batch,
            resend=buffer.is_resend,
            lineage=self.lineage,
            cursor=buffer.cursor_at(buffer.acknowledged + len(batch)),
        )

    @property
    def open_cursor(self) -> str:
        """The place in the provider's stored answer after all events except the closing ones."""
        written = len(self.events.open)
        return self.events.cursor_at(written) if written else self.cursor

    # --- the end

    def close(self, outcome: Outcome, counted: Usage | PartialUsage | None) -> tuple[Usage, list[LedgerEntry]]:
        """Add the closing events, and return the usage of the whole answer and the ledger. ``counted``: as far as the
        provider of the latest call counted it."""
        self._freeze(final=True)
        if not self.events and not self.is_first:
            # Readers have an earlier attempt's text: only `start` makes them discard it.
            self.events.freeze([self._start])
        known = self._input_counts if counted is None and self.has_output else counted
        latest = self.usage_by_target.of_call(known, self._output, cancelled=outcome.is_cancelled)
        usage = self.usage_by_target.sum_with(latest)
        if counted is None:
            metrics.TOKENS_SAVED.inc(usage.tokens_saved or 0)
        ledger = self._whole_ledger(outcome, counted, latest)
        by_target = self.ledger.with_costs(self.usage_by_target.all_with(latest))
        self.events.close(outcome.closing_events(usage, by_target, ledger))
        return usage, ledger

    def ending(
        self, outcome: Outcome, counted: Usage | PartialUsage | None, *, only_if_unwatched: bool = False
    ) -> Ending:
        """Close the draft, and return the final state."""
        usage, ledger = self.close(outcome, counted)
        ending = outcome.ending(usage, ledger, only_if_unwatched=only_if_unwatched)
        if self.usage_wait_ms and outcome.is_cancelled:
            return replace(ending, fields={**ending.fields, "usage_wait_ms": self.usage_wait_ms})
        return ending

    def final(self, counted: Usage | PartialUsage | None) -> tuple[Usage, list[LedgerEntry]]:
        """Return usage and ledger of a cancelled stream after its provider has ``counted`` the call."""
        latest = self.usage_by_target.of_call(counted, self._output)
        return self.usage_by_target.sum_with(latest), self.ledger.all_with("cancelled", latest)

    def finish(self, ending: Ending) -> Call[WriteReply]:
        """Return the call that writes all that is left, and the ending."""
        first, unsent, chunks = self.events.acknowledged + 1, self.events.unsent, self.events.chunks
        return self._scripts.finish(self._holder, first, unsent, chunks, ending, self.lineage)

    def logged_usage(self, counted: Usage | PartialUsage | None) -> Usage | PartialUsage | None:
        """Return the counts for the log. ``counted``: those of the latest call."""
        return self.usage_by_target.logged(counted, self._output)

    # --- internal

    def _freeze(self, *, final: bool = False) -> None:
        """Make events of all deltas so far. ``final``: also of half a surrogate pair."""
        coalesced = self._coalescer.take(final=final)
        if coalesced and not self.events:
            coalesced.insert(0, self._start)
        self.events.freeze(coalesced, "" if self._coalescer.is_split else self.cursor)

    def _whole_ledger(
        self, outcome: Outcome, counted: Usage | PartialUsage | None, latest: Usage
    ) -> list[LedgerEntry]:
        has_output = self.ledger.has_output(self.output_count)
        call: CallOutcome = "completed"
        if outcome.is_cancelled:
            call = "cancelled"
        elif outcome.error is not None and not is_counted(counted):
            call = "broken_off" if has_output else "failed"
        return self.ledger.all_with(call, latest if has_output or is_counted(counted) else None)

    @property
    def _calls(self) -> int:
        """Number of calls that have contributed to the log."""
        own = 1 if self.has_output and not self._resumed_calls else 0
        return self._resumed_calls + own + self.usage_by_target.joins

    @property
    def _output(self) -> Output:
        return Output(self._coalescer.deltas, self._coalescer.characters)
