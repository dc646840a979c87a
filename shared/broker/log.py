"""Reads a stream's whole log, page by page."""

from shared.broker.client import Client, run_script
from shared.broker.replies import LogPage
from shared.broker.scripts import StreamScripts
from shared.protocol.ids import START, EventId

_PAGE_BYTES = 1024 * 1024


async def read_log(client: Client, scripts: StreamScripts, stream_id: str) -> list[bytes]:
    """Return every event of the readable epoch, all of one epoch; empty if there is no stream. Raises
    :class:`BrokerUnavailable`."""
    cursor, stored = START, list[bytes]()
    while True:
        page = await run_script(client, scripts.read(stream_id, cursor, most_bytes=_PAGE_BYTES))
        if not isinstance(page, LogPage):
            return []
        if page.epoch != cursor.epoch:
            stored.clear()
        stored += page.events
        if page.complete:
            return stored
        cursor = EventId(page.epoch, len(stored))
