"""Writer of one claimed stream: coalesces deltas, appends them to the log and ends the stream.

Every event of the attempt stays in the send buffer until the end, so that events that Redis has lost can be sent
again. Deltas coalesce while an append is in flight and become one event with the next.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from msgspec import UNSET, structs

from shared.broker.declarations import Call
from shared.broker.desk_requests import Settlement
from shared.broker.ending import ABANDONED, Outcome
from shared.broker.replies import Claimed, Code, WriteReply
from shared.broker.scripts import Ending, Holder, StreamScripts
from shared.errors import BrokerUnavailable
from shared.protocol import events
from shared.protocol.events import PartialUsage, TargetUsage, Usage
from shared.protocol.lineage import NO_LINEAGE, Lineage
from shared.protocol.usage import Estimate
from shared.settings import Settings
from workers import metrics
from workers.writing.coalescer import Coalescer, Written
from workers.writing.phases import Ended, Phase, StopReason
from workers.writing.place import HeldPlace
from workers.writing.restoration import Restoration
from workers.writing.send_buffer import SendBuffer
from workers.writing.usage_by_target import Output, UsageByTarget

logger = logging.getLogger(__name__)

Log = Sequence[bytes]
#: Poll interval behind the notification of room in the window, in case that is lost.
ROOM_POLL_S = 1.0


class StreamWriter:
    """One stream's writer. :meth:`set_model` must be called before any output. ``wake`` puts this writer into the
    flusher's next pipeline. ``on_stop`` is called once, when reading the provider must end; ``stop_reason`` has the
    reason. ``is_superseded``: another worker has taken the stream over, or will.
    """

    def __init__(
        self,
        holder: Holder,
        claimed: Claimed,
        *,
        settings: Settings,
        scripts: StreamScripts,
        wake: Callable[["StreamWriter"], None],
        on_stop: Callable[[], None],
    ) -> None:
        self.holder = holder
        self.stop_reason: StopReason | None = None
        self.place = HeldPlace(holder, claimed.fields)
        self._restoration = Restoration(scripts, holder, claimed.fields)
        self._is_first_output = claimed.readable == 0
        self._attempt = claimed.attempt
        self._start = b""
        self._scripts = scripts
        self._lineage = NO_LINEAGE
        self._cursor = ""  # the place in the provider's stored answer, after all deltas so far
        self._has_to_note = False
        self.is_superseded = False
        self.usage_by_target = UsageByTarget(Estimate.of(claimed.fields))
        self._wake = wake
        self._on_stop = on_stop
        self._max_unsent_bytes = 2 * settings.max_event_bytes
        self._coalescer = Coalescer(settings.max_event_bytes)
        self._events = SendBuffer(settings.cap)
        self._phase = Phase.WRITING
        self._ending: Ending | None = None
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._progress = asyncio.Event()

    @property
    def has_output(self) -> bool:
        """True once the provider has sent a part of its answer."""
        return self.output_count > 0

    @property
    def output_count(self) -> int:
        """Number of deltas and extras so far."""
        return self._coalescer.deltas + self._coalescer.extras

    @property
    def is_written(self) -> bool:
        """True if the ending is in Redis, as far as this worker can tell."""
        return self._phase is Phase.CLOSED and self._ended.result() is Ended.WRITTEN

    @property
    def settlement(self) -> Settlement | None:
        """The second step of the ending (``shared/broker/settlement.py``), if the stream was ended by this writer."""
        return self.place.settlement(self._scripts, self._ending)

    @property
    def is_settled(self) -> bool:
        """True if there is nothing left to send."""
        return self._phase is Phase.CLOSED

    @property
    def bytes(self) -> int:
        """Size of the events made of the provider's deltas so far."""
        return self._coalescer.made_bytes

    # --- called by the job

    def set_model(self, provider: str, model: str, ignored: Sequence[str] = ()) -> None:
        """Set the provider and model of `start`, which is written with the first output. ``ignored``: paths of the
        request's fields that have no effect there."""
        start = events.Start(self.holder.stream_id, model, provider, self._attempt, ignored=list(ignored) or UNSET)
        self._start = events.encode(start)
        self.usage_by_target.target = provider, model

    def set_input_counts(self, counts: PartialUsage) -> None:
        """Add the counts of the input to `start`, if the provider reported them before its first output."""
        self._start = events.encode(structs.replace(events.decode(self._start), usage=counts))

    def note_cursor(self, cursor: str) -> None:
        """Note where the provider's stored answer is, before it has output."""
        if not self.has_output:
            self._cursor = cursor
            self._has_to_note = True
            self._wake(self)

    def forget_cursor(self) -> None:
        """Forget where the provider's stored answer is, because it was given up."""
        self._cursor, self._has_to_note = "", False
        self._events.forget_cursors()
        self._restoration.set_field("provider_cursor", None)

    def resume(self, log: Log, lineage: Lineage, cursor: str) -> None:
        """Continue ``log`` instead of beginning a new one (rule E13). ``lineage``: its epochs; ``cursor``: as for
        :meth:`push`. Call it before any output."""
        self._events.resume(log, cursor)
        self._lineage = lineage
        self._coalescer.resume([events.decode(stored) for stored in log])

    @property
    def has_room(self) -> bool:
        """True while the unsent bytes do not exceed their limit."""
        return self._events.unsent_bytes + self._coalescer.bytes <= self._max_unsent_bytes

    def add(self, deltas: Sequence[Written], cursor: str = "") -> None:
        """Add ``deltas``. ``cursor``: the place in the provider's stored answer after them."""
        self._coalescer.add(deltas)
        self._cursor = cursor
        self._wake(self)

    async def push(self, deltas: Sequence[Written], cursor: str = "") -> None:
        """Add ``deltas``, as :meth:`add` does. Returns at once unless the unsent bytes exceed their limit; then it
        waits, so that the caller stops reading its provider."""
        self.add(deltas, cursor)
        while not self.has_room and self.stop_reason is None:
            self._progress.clear()
            await self._progress.wait()

    async def finish(self, outcome: Outcome, usage: Usage | PartialUsage | None) -> Ended:
        """Write the remaining events, the closing events and the terminal state; retries through any outage of Redis.
        Counts that the provider did not report are estimated. Also returns WRITTEN if the stream was ended as
        abandoned meanwhile."""
        while self._ending is not None:  # an abandoned ending is in flight
            if (ended := await self._ended) is not Ended.WATCHED:
                return ended
        if self._phase is not Phase.CLOSED:
            self._begin_ending(outcome, usage)
        return await self._ended

    def logged_usage(self, counted: Usage | PartialUsage | None) -> Usage | PartialUsage | None:
        """Return the counts for the log. ``counted``: those of the latest call."""
        return self.usage_by_target.logged(counted, self._output)

    async def hand_over(self) -> Ended:
        """Release the stream as it is. Returns HANDED_OVER, or the result that came first."""
        while True:
            if self._ending is None and self._phase is not Phase.CLOSED:
                self._phase = Phase.RELEASING
                self._wake(self)
            if (ended := await self._ended) is not Ended.WATCHED:
                return ended

    # --- called on notifications

    def stop(self, reason: StopReason) -> None:
        """End the reading of the provider. Only the first call has an effect."""
        if self.stop_reason is None:
            self.stop_reason = reason
            self._progress.set()
            self._on_stop()

    def room(self) -> None:
        """Try again to append: the window may have room."""
        if self._phase is Phase.FULL:
            self._phase = Phase.WRITING
            self._wake(self)

    # --- called by the flusher and for renewals

    def next_call(self) -> Call[WriteReply] | None:
        """Return the next call, if there is one. Only one is in flight at a time."""
        match self._phase:
            case Phase.WRITING:
                return self._append()
            case Phase.RESTORING:
                return self._restore()
            case Phase.ENDING if self._ending is not None:
                unsent, chunks = self._events.unsent, self._events.chunks
                return self._scripts.finish(
                    self.holder, self._events.next_seq, unsent, chunks, self._ending, self._lineage
                )
            case Phase.RELEASING | Phase.RELEASED:
                self._phase = Phase.RELEASED
                return self._scripts.release(self.holder)
            case _:
                return None

    def settle(self, reply: WriteReply | BrokerUnavailable) -> None:
        """Handle the reply to :meth:`next_call`."""
        if isinstance(reply, BrokerUnavailable):
            self._wake(self)
            return
        match self._phase:
            case Phase.WRITING if reply.code is Code.OK:
                self._settle_progress(reply)
                self._handle(reply.signal)
                self._progress.set()
            case Phase.CLOSED:  # by the reply to a renewal, which came first
                pass
            case Phase.RELEASED:
                # SUPERSEDED is also the reply to a repeated release, and BEHIND leaves the stream to another claim.
                self.is_superseded = reply.code in {Code.SUPERSEDED, Code.BEHIND}
                self._close(Ended.HANDED_OVER if reply.code is Code.OK else Ended.LOST)
            case _:
                self._settle_write(reply)

    def settle_renewal(self, reply: WriteReply | BrokerUnavailable) -> None:
        """Handle the reply to a renewal of the lease, which reports the same as an append's while the provider is
        silent."""
        is_over = self._phase in {Phase.RELEASING, Phase.RELEASED, Phase.CLOSED}
        if is_over or isinstance(reply, BrokerUnavailable):
            return
        if reply.code is Code.OK:
            last_seq = self._events.in_log(reply.last_seq)
            if last_seq < self._events.acknowledged:  # Redis lost a suffix
                self._events.acknowledge(last_seq)
                self._wake(self)
            self._handle(reply.signal)
        else:
            metrics.count_replies([reply])
            self._settle_write(reply)

    def check(self, reply: WriteReply | BrokerUnavailable) -> bool:
        """Handle the reply to a renewal after the end. Returns False if Redis did not answer. If Redis has lost the
        ending or the stream, it is written again (rule E6)."""
        if isinstance(reply, BrokerUnavailable):
            return False
        if self.is_written and reply.code in {Code.OK, Code.MISSING, Code.BEHIND}:
            self._ended = asyncio.get_running_loop().create_future()
            self._phase = Phase.ENDING
            if reply.code is Code.OK:
                self._events.acknowledge(self._events.in_log(reply.last_seq))
                self._wake(self)
            else:
                self._begin_restore()
        return True

    # --- internal

    def _settle_write(self, reply: WriteReply) -> None:
        match reply.code:
            case Code.OK | Code.FULL | Code.GAP:
                self._settle_progress(reply)
            case Code.PACKED | Code.UNPACKED:
                self._settle_packing(reply)
            case Code.MISSING | Code.BEHIND:
                self._begin_restore()
            case Code.NOTED:
                self._has_to_note = False
                self._wake(self)
            case Code.STORED | Code.UNSTORED:
                self._restoration.settle_piece(reply)
                self._wake(self)
            case Code.WATCHED:
                self._withdraw_ending()
            case Code.CLOSED if self._is_own_ending(reply):
                self._close(Ended.WRITTEN)
            case Code.CLOSED | Code.SUPERSEDED:
                self._lose(reply)
        if reply.code is not Code.CLOSED:  # then the signal is how the stream ended
            self._handle(reply.signal)
        self._progress.set()

    @property
    def _unsent_bytes(self) -> int:
        return self._events.unsent_bytes + self._coalescer.bytes

    def _restore(self) -> Call[WriteReply]:
        written = self._events.open
        cursor = self._events.cursor_at(len(written)) if written else self._cursor
        return self._restoration.next_call(written, cursor, self._lineage)

    def _begin_restore(self) -> None:
        if self._phase is not Phase.RESTORING:
            self._restoration.begin()
        if self._phase is not Phase.RELEASING:
            metrics.RESTORES.inc()
            self._phase = Phase.RESTORING
            self._wake(self)

    def _append(self) -> Call[WriteReply] | None:
        buffer = self._events
        if not buffer.unsent_bytes:
            self._freeze()
        if not (batch := buffer.next_batch):
            return self._scripts.note_cursor(self.holder, self._cursor) if self._has_to_note else None
        if to_pack := buffer.to_pack(len(batch)):
            return self._scripts.pack(self.holder, buffer.packed, to_pack, self._lineage)
        self._has_to_note = False
        return self._scripts.append(
            self.holder,
            buffer.acknowledged + 1,
            batch,
            resend=buffer.is_resend,
            lineage=self._lineage,
            cursor=buffer.cursor_at(buffer.acknowledged + len(batch)),
        )

    def _freeze(self, *, final: bool = False) -> None:
        coalesced = self._coalescer.take(final=final)
        if coalesced and not self._events:
            coalesced.insert(0, self._start)
        self._events.freeze(coalesced, "" if self._coalescer.is_split else self._cursor)

    def _settle_progress(self, reply: WriteReply) -> None:
        self._events.acknowledge(reply.last_seq)
        if self._phase is Phase.RELEASING:
            return
        if self._ending is not None:
            self._phase = Phase.ENDING
            # Any other reply belongs to a call that was in flight before the ending.
            if reply.code is Code.OK and reply.last_seq == len(self._events):
                self.place.end(reply)
                self._close(Ended.WRITTEN)
            else:
                self._wake(self)
        elif reply.code is Code.FULL:
            self._phase = Phase.FULL
            asyncio.get_running_loop().call_later(ROOM_POLL_S, self.room)
        else:
            self._phase = Phase.WRITING
            if self._unsent_bytes:
                self._wake(self)

    def _settle_packing(self, reply: WriteReply) -> None:
        if reply.code is Code.PACKED:
            self._events.set_packed(reply.last_seq)
            self._wake(self)
        else:  # the log has fewer chunks than this worker assumes; the next PACKED has their end
            self._events.set_packed(0)
            self._settle_progress(reply)

    def _handle(self, signal: str) -> None:
        if signal == ABANDONED:
            if self._ending is not None or self._phase is Phase.CLOSED:
                return
            if self.has_output or self._is_first_output:
                self._begin_ending(Outcome.cancelled(ABANDONED), None, only_if_unwatched=True)
            else:  # the job keeps the partial answer of an earlier attempt
                self.stop(StopReason.ABANDONED)
        elif signal:
            self.stop(StopReason(signal))

    def _begin_ending(
        self, outcome: Outcome, counted: Usage | PartialUsage | None, *, only_if_unwatched: bool = False
    ) -> None:
        self._freeze(final=True)
        usage, by_target = self._completed(outcome, counted)
        if not self._events and not self._is_first_output:
            # Readers have an earlier attempt's text: only `start` makes them discard it.
            self._events.freeze([self._start])
        self._events.close(outcome.closing_events(usage, by_target))
        self._ending = outcome.ending(usage, only_if_unwatched=only_if_unwatched)
        if self._phase is not Phase.RESTORING:
            self._phase = Phase.ENDING
        self._wake(self)

    def _completed(self, outcome: Outcome, counted: Usage | PartialUsage | None) -> tuple[Usage, list[TargetUsage]]:
        """Return the usage of the whole answer, and that of each call if there were several."""
        latest = self.usage_by_target.of_call(counted, self._output, cancelled=outcome.is_cancelled)
        usage = self.usage_by_target.sum_with(latest)
        if counted is None:
            metrics.TOKENS_SAVED.inc(usage.tokens_saved or 0)
        return usage, self.usage_by_target.all_with(latest)

    @property
    def _output(self) -> Output:
        return Output(self._coalescer.deltas, self._coalescer.characters)

    def _is_own_ending(self, reply: WriteReply) -> bool:
        return self._ending is not None and reply.epoch == self.holder.epoch and reply.last_seq == len(self._events)

    def _withdraw_ending(self) -> None:
        self._events.reopen()
        self._ending = None
        if self._phase is Phase.ENDING:
            self._phase = Phase.WRITING
        self._ended.set_result(Ended.WATCHED)
        self._ended = asyncio.get_running_loop().create_future()
        self._wake(self)

    def _lose(self, reply: WriteReply) -> None:
        stream_id, epoch = self.holder.stream_id, self.holder.epoch
        logger.warning(
            "claim lost",
            extra={"stream_id": stream_id, "epoch": epoch, "code": reply.code, "signal": reply.signal},
        )
        self.is_superseded = reply.code is Code.SUPERSEDED
        self._close(Ended.LOST)

    def _close(self, ended: Ended) -> None:
        was_abandoned = False
        if self._ending is not None:
            was_abandoned = self._ending.only_if_unwatched
            self._ending = replace(self._ending, only_if_unwatched=False)  # final, if it must be written again
        if self._phase is not Phase.CLOSED:
            self._phase = Phase.CLOSED
            self._ended.set_result(ended)
            metrics.TRIMMED.inc(self._events.packed)
        if ended is Ended.LOST:
            self.stop(StopReason.LOST)
        elif was_abandoned:
            self.stop(StopReason.ABANDONED)
