"""One claimed stream in its worker's memory: what is written, what is on its way, what still gathers.

Every event of the attempt stays in the send buffer until the end, so that events that Redis has lost can be sent again. Deltas gather while an append is in flight and become one event with the next.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum, auto

from shared.broker.ending import ABANDONED, Outcome, restorable
from shared.broker.replies import Claimed, Code, WriteReply
from shared.broker.scripts import Call, Ending, Holder, StreamScripts
from shared.errors import BrokerUnavailable
from shared.protocol import events
from shared.protocol.events import Usage
from shared.protocol.usage import Estimate
from shared.settings import Settings
from workers import metrics
from workers.providers.base import Delta
from workers.writing.coalescer import Coalescer
from workers.writing.send_buffer import SendBuffer

logger = logging.getLogger(__name__)

#: Behind the notification that there is room again, in case it is lost.
ROOM_POLL_S = 1.0
#: Why a worker that leaves stops: another one takes the stream.
HANDOVER = "handover"


class Ended(Enum):
    """What became of an ending."""

    WRITTEN = auto()
    WATCHED = auto()  # a reader came; go on
    HANDED_OVER = auto()  # given up, for another worker to take
    LOST = auto()  # the stream is somebody else's, deleted or ended


class StreamWriter:
    """To be told by :meth:`asks` who is asked, before any output. ``wake`` puts this writer into the flusher's next
    pipeline. ``on_stop`` is called once, when reading the provider must end; ``stop_reason`` says why.
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
        self.stop_reason = ""
        self._fields = claimed.fields
        self._is_first_output = claimed.readable == 0
        self._attempt = claimed.attempt
        self._start = b""
        self._scripts = scripts
        self._estimate = Estimate.of(claimed.fields)
        self._wake = wake
        self._on_stop = on_stop
        self._cap = settings.cap
        self._most_unsent = 2 * settings.max_event_bytes
        self._gathering = Coalescer(settings.max_event_bytes)
        self._events = SendBuffer()
        self._restore = False
        self._full = False
        self._releasing = False
        self._release_sent = False
        self._ending: Ending | None = None
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._moved = asyncio.Event()

    @property
    def has_output(self) -> bool:
        """Whether the provider has sent anything."""
        return self._gathering.deltas > 0

    @property
    def is_written(self) -> bool:
        """The ending stands in Redis, as far as we know."""
        return self._ended.done() and self._ended.result() is Ended.WRITTEN

    @property
    def is_settled(self) -> bool:
        """Nothing more is to be said to Redis."""
        return self._ended.done()

    @property
    def bytes(self) -> int:
        """Of the events that were made of what the provider sent, so far."""
        return self._gathering.made_bytes

    # --- what the generation does

    def asks(self, provider: str, model: str) -> None:
        """Who is being asked, for `start`, which is written with the first output."""
        self._start = events.encode(events.Start(self.holder.stream_id, model, provider, self._attempt))

    async def push(self, deltas: Sequence[Delta]) -> None:
        """Take what came; returns at once unless the window or the broker holds us, so that the caller stops
        reading its provider."""
        self._gathering.add(deltas)
        self._wake(self)
        while self._backlog > self._most_unsent and not self.stop_reason:
            self._moved.clear()
            await self._moved.wait()

    async def finish(self, outcome: Outcome, usage: Usage | None) -> Ended:
        """Write what is left, the closing events and the terminal state; outlasts any trouble of the broker. Usage
        that the provider did not say is estimated. WRITTEN also where the stream had just been ended as abandoned.
        """
        while self._ending is not None:  # as abandoned, in flight
            if (ended := await self._ended) is not Ended.WATCHED:
                return ended
        if not self._ended.done():
            self._begin_ending(outcome, usage)
        return await self._ended

    async def hand_over(self) -> Ended:
        """Give the stream up as it stands. HANDED_OVER, or whatever ended it meanwhile."""
        self._releasing = True
        self._wake(self)
        return await self._ended

    # --- what others tell it

    def stop(self, reason: str) -> None:
        if not self.stop_reason:
            self.stop_reason = reason
            self._moved.set()
            self._on_stop()

    def room(self) -> None:
        """The window may have room again."""
        if self._full:
            self._full = False
            self._wake(self)

    # --- what the flusher does

    def next_call(self) -> Call[WriteReply] | None:
        """What to send now, if anything. Only one is in flight at a time."""
        if self._ended.done():
            return None
        if self._releasing and self._ending is None:
            self._release_sent = True
            return self._scripts.release(self.holder)
        if self._restore:
            body_hash = self._fields["body_hash"].decode()
            fields = restorable(self._fields)
            return self._scripts.restore(self.holder, self._events.open, fields=fields, body_hash=body_hash)
        first = self._events.next_seq
        if self._ending is not None:
            return self._scripts.finish(self.holder, first, self._events.unsent, self._ending)
        if self._full:
            return None
        if not self._events.unsent_bytes:
            self._freeze()
        batch = self._events.next_batch
        return self._scripts.append(self.holder, first, batch, resend=self._events.is_resend) if batch else None

    def settle(self, reply: WriteReply | BrokerUnavailable) -> None:
        """Take the answer to :meth:`next_call`."""
        if isinstance(reply, BrokerUnavailable):
            self._wake(self)
            return
        metrics.APPEND_ANSWERS[reply.code].inc()
        if self._release_sent:
            self._close(Ended.HANDED_OVER if reply.code is Code.OK else Ended.LOST)
        else:
            self._settle_write(reply)

    def settle_renewal(self, reply: WriteReply | BrokerUnavailable) -> None:
        """Take the answer to a renewal of the lease. It says what an append would, for a provider that is silent."""
        if isinstance(reply, BrokerUnavailable) or self._releasing:
            return
        if reply.code is Code.OK:
            if reply.last_seq < self._events.acknowledged:  # Redis lost a suffix
                self._events.acknowledge(reply.last_seq)
                self._wake(self)
            self._handle(reply.signal)
        else:
            metrics.APPEND_ANSWERS[reply.code].inc()
            self._settle_write(reply)

    def check(self, reply: WriteReply | BrokerUnavailable) -> bool:
        """Take the answer to a renewal after the end. False where nobody answered. A Redis that has forgotten the
        ending, or the stream, is told once more (design §4 rule 6)."""
        if isinstance(reply, BrokerUnavailable):
            return False
        if self.is_written and reply.code in {Code.OK, Code.MISSING, Code.BEHIND}:
            self._ended = asyncio.get_running_loop().create_future()
            if reply.code is Code.OK:
                self._events.acknowledge(reply.last_seq)
                self._wake(self)
            else:
                self._begin_restore()
        return True

    # --- inside

    def _settle_write(self, reply: WriteReply) -> None:
        match reply.code:
            case Code.OK | Code.FULL | Code.GAP:
                self._settle_progress(reply)
            case Code.MISSING | Code.BEHIND:
                self._begin_restore()
            case Code.WATCHED:
                self._withdraw_ending()
            case Code.CLOSED if self._is_own_ending(reply):
                self._close(Ended.WRITTEN)
            case Code.CLOSED | Code.SUPERSEDED:
                self._lose(reply)
        self._handle(reply.signal)
        self._moved.set()

    @property
    def _backlog(self) -> int:
        return self._events.unsent_bytes + self._gathering.bytes

    def _begin_restore(self) -> None:
        metrics.RESTORES.inc()
        self._restore = True
        self._wake(self)

    def _freeze(self, *, final: bool = False) -> None:
        gathered = self._gathering.take(final=final)
        if gathered and not self._events:
            gathered.insert(0, self._start)
        self._events.freeze(gathered)

    def _settle_progress(self, reply: WriteReply) -> None:
        self._restore = False
        self._events.acknowledge(reply.last_seq)
        if self._ending is not None:
            # Anything but the whole is the answer to what was in flight before the ending.
            if reply.code is Code.OK and reply.last_seq == len(self._events):
                self._close(Ended.WRITTEN)
            else:
                self._wake(self)
        elif reply.code is Code.FULL:
            self._full = True
            asyncio.get_running_loop().call_later(ROOM_POLL_S, self.room)
        elif self._backlog:
            self._wake(self)

    def _handle(self, signal: str) -> None:
        if signal == ABANDONED:
            if self._ending is None and not self._ended.done():
                self._begin_ending(Outcome.cancelled(ABANDONED), None, only_if_unwatched=True)
        elif signal:
            self.stop(signal)

    def _begin_ending(self, outcome: Outcome, usage: Usage | None, *, only_if_unwatched: bool = False) -> None:
        self._freeze(final=True)
        if usage is None:
            sent = self._gathering
            usage = self._estimate.usage(sent.deltas, sent.characters, cancelled=outcome.is_cancelled)
            metrics.TOKENS_SAVED.inc(usage.tokens_saved or 0)
        if not self._events and not self._is_first_output:
            # An earlier attempt's text is with the readers: only `start` can tell them that it no longer stands.
            self._events.freeze([self._start])
        self._events.close(outcome.closing_events(usage))
        self._ending = outcome.ending(usage, only_if_unwatched=only_if_unwatched)
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
        stream_id, epoch = self.holder.stream_id, self.holder.epoch
        logger.warning("stream %s epoch %d is no longer ours: %s %s", stream_id, epoch, reply.code, reply.signal)
        self._close(Ended.LOST)

    def _close(self, ended: Ended) -> None:
        if self._ending is not None:
            self._ending = replace(self._ending, only_if_unwatched=False)  # settled, should it have to be said again
        if not self._ended.done():
            self._ended.set_result(ended)
            metrics.TRIMMED.inc(max(0, len(self._events) - self._cap))
        self.stop(ended.name.lower())
