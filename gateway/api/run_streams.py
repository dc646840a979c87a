"""Responses that stream a run of AG-UI, from its start or after a cursor."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import msgspec
from fastapi import Response

from gateway import metrics
from gateway.archive.reads import open_archived_log, read_stored_fields
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own
from gateway.dialects.ag_ui.cursor import Cursor
from gateway.dialects.ag_ui.frames import MESSAGES, NOT_KEPT, Run, with_messages
from gateway.dialects.ag_ui.stream import AgUiEvents
from gateway.live.batch import Batch
from gateway.live.feed import Feed
from gateway.live.sse import StreamResponse
from gateway.live.subscription import Drained, StreamSource, Subscription
from gateway.state import GatewayState
from shared.broker.replies import LogPage
from shared.errors import BrokerUnavailable, StreamGone, StreamNotFound, StreamRecovering
from shared.protocol.ids import START
from shared.protocol.lifecycle import TERMINAL

logger = logging.getLogger(__name__)

_RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that a client may read. ``log_page``: the first page of its log."""

    stream_id: str
    source: StreamSource
    log_page: LogPage


class RunSubscription(Subscription):
    """Subscription to a run. A snapshot may be part of what its renderer returns first; so that never goes to the
    client directly, neither as the first batch nor with a heartbeat."""

    def __init__(
        self,
        source: StreamSource,
        stream_id: str,
        log_page: LogPage,
        renderer: AgUiEvents,
        queue_position: int = 0,
    ) -> None:
        super().__init__(source, stream_id, START, log_page, renderer, queue_position)
        self.renderer = renderer
        self._has_events = bool(log_page.events)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        if not self._has_events and (frames := self.renderer.begin()):
            yield frames
        async with aclosing(super().chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    def take(self, feed: Feed, batch: Batch) -> bool:
        return self.cursor != START and super().take(feed, batch)


async def open_run(gateway: GatewayState, grant: Grant, stream_id: str) -> OpenRun:
    """Open a run in Redis, or else in the archive. Raises as :func:`read_own` and :func:`open_archived_log` do."""
    try:
        return OpenRun(stream_id, gateway.hub, await read_own(gateway, grant, stream_id, START))
    except (StreamGone, StreamNotFound) as error:
        log = await open_archived_log(gateway, grant, stream_id, error, status_url=f"/chat/{stream_id}")
        return OpenRun(stream_id, log, log.page(START))


def has_whole(cursor: Cursor, log_page: LogPage) -> bool:
    """Return True for the cursor of the run's ending."""
    return cursor.is_end and log_page.status in TERMINAL and cursor.at == log_page.end


async def resumed_run(
    gateway: GatewayState,
    grant: Grant,
    opened: OpenRun,
    cursor: Cursor | None,
    headers: dict[str, str],
    *,
    resumable: bool,
    repeats_end: bool = False,
) -> Response:
    """Stream a run that has begun before, after a cursor. ``resumable``, ``repeats_end``: of the renderer."""
    about = await _read_run(gateway, opened.stream_id)
    renderer = AgUiEvents(about, after=cursor, joins=True, resumable=resumable, repeats_end=repeats_end)
    subscription = RunSubscription(opened.source, opened.stream_id, opened.log_page, renderer)
    beyond = None
    if cursor is not None and cursor.at != START:
        renderer.is_stale = _is_foreign(cursor, opened.log_page)
        metrics.RESUMES.labels("reset" if renderer.is_stale else "same_epoch").inc()
        if not renderer.is_stale and cursor.at.seq > opened.log_page.length:
            beyond = cursor
    return stream_run(gateway, grant, subscription, headers, beyond=beyond)


def stream_run(
    gateway: GatewayState,
    grant: Grant,
    subscription: RunSubscription,
    headers: dict[str, str],
    *,
    beyond: Cursor | None = None,
) -> Response:
    """Stream a run. ``beyond``: a cursor beyond the end of its log."""
    chunks = _chunks(gateway, grant, subscription, beyond)
    watched = gateway.live_grants.watch(grant)
    return StreamResponse(chunks, gateway.settings, watched, headers, subscription)


def _is_foreign(cursor: Cursor, log_page: LogPage) -> bool:
    """Return True if the log cannot have the cursor's frame, now or later."""
    if not log_page.follows(cursor.at):
        return True
    if log_page.status in TERMINAL:
        return cursor.at.seq > log_page.length or (cursor.is_end and cursor.at != log_page.end)
    return cursor.is_end and cursor.at.seq <= log_page.length


async def _chunks(
    gateway: GatewayState, grant: Grant, subscription: RunSubscription, beyond: Cursor | None
) -> AsyncGenerator[bytes, None]:
    """Yield the chunks, with the messages of the request in each snapshot."""
    if beyond is not None and not await _is_reached(gateway, grant, subscription.stream_id, beyond):
        subscription.renderer.is_stale = True
    async with aclosing(subscription.chunks()) as chunks:
        async for chunk in chunks:
            if MESSAGES not in chunk:
                yield chunk
            elif (messages := await _read_messages(gateway, subscription.stream_id)) is not None:
                yield with_messages(chunk, messages)
            else:  # too large to be kept, deleted meanwhile, or changed by a hook
                yield NOT_KEPT
                return


async def _is_reached(gateway: GatewayState, grant: Grant, stream_id: str, cursor: Cursor) -> bool:
    """Wait until the log has the event of the cursor: Redis may have lost the end of the log, and the worker that
    still has it writes it again. Return False if that takes too long, or the stream is gone. Raises
    :class:`Drained`."""
    loop = asyncio.get_running_loop()
    until = loop.time() + gateway.hub.lost_after_s
    while not gateway.hub.draining:
        try:
            log_page = await read_own(gateway, grant, stream_id, START, most_events=0)
        except BrokerUnavailable:
            until = loop.time() + gateway.hub.lost_after_s
        except (StreamGone, StreamNotFound):
            return False
        except StreamRecovering:
            logger.debug("run not restored yet", extra={"stream_id": stream_id})
        else:
            if _is_foreign(cursor, log_page):
                return False
            if cursor.at.seq <= log_page.length:
                return True
        if loop.time() > until:
            return False
        await asyncio.sleep(_RETRY_S)
    raise Drained


async def _read_run(gateway: GatewayState, stream_id: str) -> Run:
    """Return what is stored of a run. A stream of another dialect is a run without messages."""
    fields = await read_stored_fields(gateway, stream_id, ("status", "run", "shown"))
    if fields["run"] is None:
        return Run(stream_id, stream_id, has_messages=False)
    ids = msgspec.json.decode(fields["run"])
    return Run(ids["threadId"], ids["runId"], fields["shown"] is not None)


async def _read_messages(gateway: GatewayState, stream_id: str) -> bytes | None:
    """Return the entries of the list of messages; None if they are not kept. Wait for Redis; raises
    :class:`Drained`."""
    while not gateway.hub.draining:
        try:
            fields = await read_stored_fields(gateway, stream_id, ("status", "run", "shown"))
        except BrokerUnavailable:
            await asyncio.sleep(_RETRY_S)
        else:
            shown = fields["shown"] if fields["run"] is not None else None
            return None if shown is None else shown[1:-1].encode()
    raise Drained
