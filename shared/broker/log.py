"""Reads whole logs, page by page."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from shared.broker.client import Client, run_script, run_scripts
from shared.broker.replies import Gone, LogPage, Lost
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable
from shared.protocol.ids import START, EventId

_PAGE_BYTES: Final = 1024 * 1024
#: Bytes and events of each log in the first exchange for several logs.
_FIRST_BYTES: Final = 64 * 1024
_MOST_EVENTS: Final = 65_536


async def read_log(client: Client, scripts: StreamScripts, stream_id: str) -> list[bytes]:
    """Return every event of the log, all of one answer; empty if there is no stream. Raises
    :class:`BrokerUnavailable`."""
    return (await read_stored_log(client, scripts, stream_id)).events


async def read_stored_log(client: Client, scripts: StreamScripts, stream_id: str) -> "StoredLog":
    """Return the whole log. Raises :class:`BrokerUnavailable`."""
    log = StoredLog(stream_id)
    async with client.whole_reads:
        while not log.is_read:
            log.take(await run_script(client, scripts.read(stream_id, log.cursor, most_bytes=_PAGE_BYTES)))
    return log


class LogsTooLarge(Exception):
    """Several logs together exceed the limit of their reader."""


@dataclass
class StoredLog:
    """A log that is read page by page. ``last``: the last reply; None if nothing was read. ``cursor``: the id of the
    last event."""

    stream_id: str
    events: list[bytes] = field(default_factory=list)
    last: LogPage | Gone | Lost | None = None
    is_read: bool = False
    cursor: EventId = START

    def take(self, page: LogPage | Gone | Lost | None) -> None:
        """Add the page that follows the cursor. A stream that is gone has no events."""
        self.last = page
        if not isinstance(page, LogPage):
            self.events.clear()
            self.is_read = True
            return
        if not page.follows(self.cursor):
            self.events.clear()
        self.events += page.events
        self.is_read = page.complete
        self.cursor = page.id_of(len(self.events))


async def read_logs(
    client: Client, scripts: StreamScripts, stream_ids: Iterable[str], *, most_bytes: int
) -> list[StoredLog]:
    """Read several logs together: in one exchange, unless some of them are large. Raises :class:`LogsTooLarge` and
    :class:`BrokerUnavailable`."""
    logs, page_bytes = [StoredLog(stream_id) for stream_id in stream_ids], _FIRST_BYTES
    async with client.whole_reads:
        while unread := [log for log in logs if not log.is_read]:
            calls = [
                scripts.read(log.stream_id, log.cursor, most_events=_MOST_EVENTS, most_bytes=page_bytes)
                for log in unread
            ]
            for log, page in zip(unread, await run_scripts(client, calls), strict=True):
                if isinstance(page, BrokerUnavailable):
                    raise page
                log.take(page)
            total = sum(len(event) for log in logs for event in log.events)
            if total > most_bytes:
                raise LogsTooLarge
            page_bytes = max(_FIRST_BYTES, (most_bytes - total) // len(unread))
    return logs
