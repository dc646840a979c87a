"""Writer of one claimed stream: appends its draft to the log, heals the log and ends the stream.

Every event of the attempt stays in the draft until the end, so that events that Redis has lost can be sent again.
Deltas coalesce while an append is in flight and become one event with the next.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from shared.broker.declarations import Call
from shared.broker.desk_requests import Settlement
from shared.broker.ending import ABANDONED, Outcome
from shared.broker.replies import Claimed, Code, WriteReply
from shared.broker.scripts import Ending, Holder, StreamScripts
from shared.errors import BrokerUnavailable
from shared.protocol.events import PartialUsage, Usage
from shared.settings import Settings
from workers import metrics
from workers.writing.coalescer import Written
from workers.writing.draft import Draft
from workers.writing.phases import Ended, Phase, StopReason
from workers.writing.place import HeldPlace
from workers.writing.restoration import Restoration

logger = logging.getLogger(__name__)

#: Poll interval behind the notification of room in the window, in case that is lost.
ROOM_POLL_S = 1.0


class StreamWriter:
    """One stream's writer. ``wake`` puts it into the flusher's next pipeline. ``on_stop`` is called once, when the
    reading of the provider must end; ``stop_reason`` has the reason. ``is_superseded``: another worker has taken the
    stream over, or will."""

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
        self.draft = Draft(holder, claimed, settings=settings, scripts=scripts, on_growth=partial(wake, self))
        self.stop_reason: StopReason | None = None
        self.place = HeldPlace(holder, claimed.fields)
        self.is_superseded = False
        self._events = self.draft.events
        self._restoration = Restoration(scripts, holder, claimed.fields)
        self._scripts = scripts
        self._wake = wake
        self._on_stop = on_stop
        self._phase = Phase.WRITING
        self._ending: Ending | None = None
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._progress = asyncio.Event()

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

    # --- called by the job

    def forget_cursor(self) -> None:
        """Forget where the provider's stored answer is, because it was given up."""
        self.draft.forget_cursor()
        self._restoration.set_field("provider_cursor", None)

    def keep_ledger(self) -> None:
        """Keep the ledger, which has grown, for a Redis that loses the stream."""
        for name, value in self.draft.ledger.fields.items():
            self._restoration.set_field(name, value.encode() or None)

    async def push(self, deltas: Sequence[Written], cursor: str = "") -> None:
        """Add ``deltas`` to the draft. Returns at once unless the unsent bytes exceed their limit; then it waits, so
        that the caller stops reading its provider."""
        self.draft.add(deltas, cursor)
        while not self.draft.has_room and self.stop_reason is None:
            self._progress.clear()
            await self._progress.wait()

    async def finish(self, outcome: Outcome, usage: Usage | PartialUsage | None) -> Ended:
        """Write the remaining events, the closing events and the terminal state; retries through any outage of Redis.
        Counts that the provider did not report are estimated. Also returns WRITTEN if the stream was ended as
        abandoned meanwhile."""
        return await self._end(partial(self._begin_ending, outcome, usage))

    async def hand_over(self) -> Ended:
        """Release the stream as it is. Returns HANDED_OVER, or the result that came first."""
        return await self._end(self._begin_release)

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
                return self.draft.next_append() if self._ending is None else self.draft.finish(self._ending)
            case Phase.RESTORING:
                draft = self.draft
                return self._restoration.next_call(self._events.open, draft.open_cursor, draft.lineage)
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
            case Phase.WRITING | Phase.FULL | Phase.RESTORING:
                self._settle_write(reply)
            case Phase.RELEASED:
                # SUPERSEDED is also the reply to a repeated release, and BEHIND leaves the stream to another claim.
                self.is_superseded = reply.code in {Code.SUPERSEDED, Code.BEHIND}
                self._close(Ended.HANDED_OVER if reply.code is Code.OK else Ended.LOST)
            case _:  # the call was made before the release, or before a renewal showed the end
                pass

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
            if reply.signal:
                self._handle(reply.signal)
        else:
            metrics.count_replies([reply])
            self._settle_write(reply)

    def check(self, reply: WriteReply | BrokerUnavailable) -> bool:
        """Handle the reply to a renewal after the end. Returns False if Redis did not answer. If Redis has lost the
        ending or the stream, it is written again (rule E6)."""
        if isinstance(reply, BrokerUnavailable):
            return False
        if self._ending is not None and self.is_written and reply.code in {Code.OK, Code.MISSING, Code.BEHIND}:
            self._ending = replace(self._ending, only_if_unwatched=False)  # it is final
            self._ended = asyncio.get_running_loop().create_future()
            self._phase = Phase.WRITING
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
                self.draft.has_to_note = False
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
        if reply.signal and reply.code is not Code.CLOSED:  # then the signal is how the stream ended
            self._handle(reply.signal)
        self._progress.set()

    def _begin_restore(self) -> None:
        if self._phase is not Phase.RESTORING:
            self._restoration.begin()
        metrics.RESTORES.inc()
        self._phase = Phase.RESTORING
        self._wake(self)

    def _settle_progress(self, reply: WriteReply) -> None:
        self._events.acknowledge(reply.last_seq)
        if self._ending is not None:
            self._phase = Phase.WRITING
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
            if self.draft.has_unsent:
                self._wake(self)

    def _settle_packing(self, reply: WriteReply) -> None:
        if reply.code is Code.PACKED:
            self._events.set_packed(reply.last_seq)
            self._wake(self)
        else:  # the log has fewer chunks than this worker assumes; the next PACKED has their end
            self._events.set_packed(0)
            self._settle_progress(reply)

    def _handle(self, signal: str) -> None:
        if signal != ABANDONED:
            self.stop(StopReason(signal))
        elif self._ending is None and self._phase is not Phase.CLOSED:
            if self.draft.has_output or self.draft.is_first:
                self._begin_ending(Outcome.cancelled(ABANDONED), None, only_if_unwatched=True)
            else:  # the job keeps the partial answer of an earlier attempt
                self.stop(StopReason.ABANDONED)

    async def _end(self, begin: Callable[[], None]) -> Ended:
        """Call ``begin`` unless the stream ends as abandoned, and return how it ended."""
        while True:
            if self._ending is None and self._phase is not Phase.CLOSED:
                begin()
            if (ended := await self._ended) is not Ended.WATCHED:
                return ended

    def _begin_release(self) -> None:
        self._phase = Phase.RELEASING
        self._wake(self)

    def _begin_ending(
        self, outcome: Outcome, counted: Usage | PartialUsage | None, *, only_if_unwatched: bool = False
    ) -> None:
        self._ending = self.draft.ending(outcome, counted, only_if_unwatched=only_if_unwatched)
        if self._phase is not Phase.RESTORING:
            self._phase = Phase.WRITING
        self._wake(self)

    def _is_own_ending(self, reply: WriteReply) -> bool:
        return self._ending is not None and reply.epoch == self.holder.epoch and reply.last_seq == len(self._events)

    def _withdraw_ending(self) -> None:
        self._events.reopen()
        self._ending = None
        self._ended.set_result(Ended.WATCHED)
        self._ended = asyncio.get_running_loop().create_future()
        self._wake(self)

    def _lose(self, reply: WriteReply) -> None:
        about = {"stream_id": self.holder.stream_id, "epoch": self.holder.epoch}
        logger.warning("claim lost", extra={**about, "code": reply.code, "signal": reply.signal})
        self.is_superseded = reply.code is Code.SUPERSEDED
        self._close(Ended.LOST)

    def _close(self, ended: Ended) -> None:
        self._phase = Phase.CLOSED
        self._ended.set_result(ended)
        metrics.TRIMMED.inc(self._events.packed)
        if ended is Ended.LOST:
            self.stop(StopReason.LOST)
        elif self._ending is not None and self._ending.only_if_unwatched:
            self.stop(StopReason.ABANDONED)
