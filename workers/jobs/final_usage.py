"""The provider's count of an answer that was cancelled: its call is read to the end, in the background.

Only with ``HEADRACE_USAGE_ON_CANCEL=exact``. The stream has ended for its readers meanwhile; the desk gets its ending
with the count, or without it after a time (docs/adr/0025).
"""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from shared.broker.client import Client, run_script, run_scripts
from shared.broker.desk_replies import OtherLanes
from shared.broker.desk_requests import Settlement
from shared.broker.ending import tokens_of
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable
from shared.protocol.events import PartialUsage, Usage
from shared.protocol.ledger import encode_ledger, nanos_of_calls
from shared.protocol.usage import encode_usage
from shared.settings import Settings
from workers.jobs.answer_reader import Answered
from workers.jobs.run import Run
from workers.writing.call_ledger import is_counted
from workers.writing.phases import StopReason

logger = logging.getLogger(__name__)

#: Reasons for which a stream ends before its call.
_ENDED_BY_US: Final = frozenset({StopReason.CANCELLED, StopReason.ABANDONED, StopReason.STORED_BYTES})
#: Calls of a worker that are read on at once. They take places of its concurrency, of which half are for new streams.
_MOST: Final = 100

Reading = asyncio.Task[Answered]


class FinalUsage:
    """One instance serves all jobs of a worker."""

    def __init__(self, client: Client, scripts: StreamScripts, settings: Settings) -> None:
        self._client = client
        self._scripts = scripts
        self._is_exact = settings.usage_on_cancel == "exact"
        self._wait_s = settings.usage_final_s
        self._most = min(_MOST, settings.concurrency // 2)
        self._hold_s = settings.lease_s / 3
        self._readings = set[Reading]()
        self._is_over = False

    def give_up(self) -> None:
        """Read no call on any more: this worker stops."""
        self._is_over = True
        for reading in self._readings:
            reading.cancel()

    def begin(self, answer: Coroutine[Any, Any, Answered], run: Run) -> Reading | None:
        """Start to read an answer so that it can be read on after a cancel. None: the caller reads it."""
        if not self._is_exact or self._is_over:
            return None
        run.writer.draft.usage_wait_ms = round(self._wait_s * 1000)
        return asyncio.create_task(answer)

    async def leave(self, reading: Reading, run: Run) -> bool:
        """Return True if a call is read on although its reader has stopped; else stop it. Call it without any
        ``await`` after the reader has stopped."""
        if reading.done():
            return False
        may_go_on = (
            run.writer.stop_reason in _ENDED_BY_US
            and run.has_output
            and run.stored is None
            and len(self._readings) < self._most
        )
        if may_go_on and not self._is_over:
            run.is_discarding = True
            self._readings.add(reading)
            reading.add_done_callback(self._readings.discard)
            return True
        reading.cancel()
        await asyncio.wait([reading])
        return False

    async def settlement(self, reading: Reading, run: Run, settlement: Settlement) -> Settlement:
        """Wait for the end of the call, and return the ending with the provider's count; unchanged without one."""
        counted = await self._counted(reading, run)
        owed = settlement.owed
        if not is_counted(counted) or owed is None:
            return settlement
        usage, ledger = run.writer.draft.final(counted)
        final = replace(owed, tokens=tokens_of(usage), cost=nanos_of_calls(ledger))
        amend = self._scripts.amend(
            settlement.stream_id, owed.text, final.text, encode_ledger(ledger), encode_usage(usage)
        )
        try:
            is_amended = await run_script(self._client, amend)
        except BrokerUnavailable:
            is_amended = False
        if not is_amended:
            logger.info("final usage too late", extra={"stream_id": settlement.stream_id})
            return settlement
        line = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
        logger.info("final usage counted", extra={"stream_id": settlement.stream_id, **line})
        return replace(settlement, owed=final, ledger=ledger)

    async def _counted(self, reading: Reading, run: Run) -> Usage | PartialUsage | None:
        now = asyncio.get_running_loop().time
        until = now() + self._wait_s
        while not reading.done() and (left := until - now()) > 0:
            await asyncio.wait([reading], timeout=min(left, self._hold_s))
            if not reading.done():
                await self._hold(run)
        if not reading.done():
            reading.cancel()
            await asyncio.wait([reading])
        with suppress(asyncio.CancelledError, Exception):  # whatever it was, the estimate stays
            _, usage = reading.result()
            return usage
        logger.info("final usage unknown", extra={"stream_id": run.stream_id})
        return None

    async def _hold(self, run: Run) -> None:
        """Extend the stream's place at the desk, whose lease is renewed no more. While Redis is unavailable, it may
        end: then the provider gets another call too early."""
        place = run.writer.place
        if (call := place.hold_ended(self._scripts)) is None:
            return
        (held,) = await run_scripts(self._client, [call])
        if isinstance(held, OtherLanes):  # the next call has them
            place.lanes = held.lanes
