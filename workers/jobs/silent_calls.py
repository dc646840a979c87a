"""Notes of calls that a provider has not answered yet, so that readers learn what they wait for."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from shared.broker.client import Client, run_script
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable
from workers.jobs.run import Run

#: Silence after which a call is noted. Most calls have output before that, and cost no command.
_SILENT_S: Final = 0.5


@contextmanager
def noted_if_silent(client: Client, scripts: StreamScripts, run: Run, provider: str) -> Iterator[None]:
    """Note in Redis that the call within the context has no output for a while."""
    notes = set[asyncio.Task[None]]()

    async def note() -> None:
        with suppress(BrokerUnavailable):  # readers then go on to know what they knew
            await run_script(client, scripts.note_called(run.writer.holder, provider))

    def begin() -> None:
        if not (run.has_output or run.is_discarding):
            notes.add(asyncio.get_running_loop().create_task(note()))

    timer = asyncio.get_running_loop().call_later(_SILENT_S, begin)
    try:
        yield
    finally:
        timer.cancel()
        for each in notes:
            each.cancel()
