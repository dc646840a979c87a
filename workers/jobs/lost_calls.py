"""Calls of workers that died: the next worker adds them to the ledger, before its own output replaces theirs."""

import asyncio
from typing import Final

from shared.broker.client import Client, run_script
from shared.broker.log import read_log
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable
from shared.priced_calls import lost_calls
from shared.protocol import events
from shared.protocol.logged_calls import calls_of
from workers.jobs.run import Run

_RETRY_S: Final = 0.2


class LostCalls:
    """One instance serves all jobs of a worker."""

    def __init__(self, client: Client, scripts: StreamScripts) -> None:
        self._client = client
        self._scripts = scripts

    async def account(self, run: Run) -> None:
        """Add the calls that the claimed log is of and the ledger does not have, estimated from their output. Their
        entries are in Redis when this returns. A call that had no output has left no trace, and is not known."""
        if not run.readable:
            return
        ledger, writer = run.writer.draft.ledger, run.writer
        log = await self._read_log(run)
        lost = lost_calls(self._scripts.prices, ledger.claimed.fields, log)
        if not lost:
            return
        calls = len(calls_of(map(events.decode, log)))
        ledger.add_lost(lost, int(run.fields["log_epoch"]), calls)
        writer.keep_ledger()
        note = self._scripts.note_ledger(writer.holder, ledger.fields)
        while True:
            try:
                await run_script(self._client, note)
            except BrokerUnavailable:
                await asyncio.sleep(_RETRY_S)
                continue
            return

    async def _read_log(self, run: Run) -> list[bytes]:
        while True:
            try:
                return await read_log(self._client, self._scripts, run.stream_id)
            except BrokerUnavailable:
                await asyncio.sleep(_RETRY_S)
