"""Reads streams that have ended from Redis, as the archive keeps them."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shared.archive.records import ArchivedStream
from shared.broker.answer import answer_view
from shared.broker.client import REDIS_ERRORS, Client, run_commands
from shared.broker.keys import state_key, tombstone_key
from shared.broker.log import LogsTooLarge, StoredLog, read_logs, read_stored_log
from shared.broker.pipeline_connection import Command
from shared.broker.replies import LogPage
from shared.broker.scripts import StreamScripts
from shared.broker.status import STATE_FIELDS, state_of
from shared.broker.stored_request import read_request
from shared.errors import BrokerUnavailable, ContentUnreadable
from shared.protocol import events
from shared.protocol.joining import join_events
from shared.protocol.ledger import decode_ledger
from shared.protocol.transcript import fold

#: Fields of the state that dialects need to render the answer, or a chat to go on.
_OF_DIALECTS: Final = ("response", "follow_up", "shown", "run", "title", "earlier", "chat_history")
_FIELDS: Final = (
    *STATE_FIELDS,
    *("unarchived", "archive", "principal", "idempotency", "key_id", "lineage", "request_bytes"),
    *_OF_DIALECTS,
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A stream that is to be archived. ``fields``: of its state, without the request; ``request_size``: bytes."""

    stream_id: str
    fields: Mapping[str, bytes | None]
    request_size: int

    @property
    def unarchived(self) -> str:
        """The mark of its state."""
        return (self.fields["unarchived"] or b"").decode()

    @property
    def digest(self) -> str | None:
        return (self.fields["idempotency"] or b"").decode() or None


@dataclass(frozen=True, slots=True)
class Looked:
    """The states of some streams. ``waiting``: those that are to be archived. ``deleted``: by their owners.
    ``others``: archived by another process, gone, or running again."""

    waiting: list[Waiting]
    deleted: list[str]
    others: list[str]


class RecordUnusable(Exception):
    """A stream cannot be archived as it is. The message says why, without any content."""


class StreamChanged(Exception):
    """A stream was removed or ended again while it was read."""


Read = ArchivedStream | RecordUnusable | StreamChanged


async def look_at(client: Client, stream_ids: Sequence[str]) -> Looked:
    """Read the states of streams. Raises :class:`BrokerUnavailable`."""
    commands: list[Command] = []
    for stream_id in stream_ids:
        state = state_key(stream_id)
        commands += [("HMGET", state, *_FIELDS), ("HSTRLEN", state, "request"), ("GET", tombstone_key(stream_id))]
    replies = iter(await run_commands(client, commands))
    looked = Looked([], [], [])
    for stream_id in stream_ids:
        fields: dict[str, bytes | None] = dict(zip(_FIELDS, next(replies), strict=True))
        size, tombstone = next(replies), next(replies) or b""
        if fields["unarchived"] is not None:
            looked.waiting.append(Waiting(stream_id, fields, size + int(fields["request_bytes"] or 0)))
        elif fields["status"] is None and tombstone.startswith(b"deleted "):
            looked.deleted.append(stream_id)
        else:
            looked.others.append(stream_id)
    return looked


async def read_records(
    client: Client, scripts: StreamScripts, waiting: Sequence[Waiting], *, most_bytes: int
) -> AsyncIterator[tuple[list[Waiting], list[Read]]]:
    """Read some streams, and yield them in the same order: together, or one by one if their logs are larger than
    ``most_bytes``, so that they are not in memory together. Raises :class:`BrokerUnavailable`."""
    try:
        ids = [each.stream_id for each in waiting]
        logs = await read_logs(client, scripts, ids, most_bytes=most_bytes)
    except (LogsTooLarge, ContentUnreadable):
        logs = None
    if logs is None:
        for each in waiting:
            yield [each], [await _read_record(client, scripts, each, None)]
    else:
        pairs = zip(waiting, logs, strict=True)
        yield [*waiting], [await _read_record(client, scripts, each, log) for each, log in pairs]


async def _read_record(client: Client, scripts: StreamScripts, waiting: Waiting, log: StoredLog | None) -> Read:
    try:
        log = log or await read_stored_log(client, scripts, waiting.stream_id)
        request = await _read_request(client, scripts, waiting)
        return await asyncio.to_thread(_record, scripts, waiting, request, log)
    except ContentUnreadable:
        return RecordUnusable("HEADRACE_CONTENT_KEYS lacks the key of this stream")
    except (RecordUnusable, StreamChanged) as error:
        return error
    except (*REDIS_ERRORS, BrokerUnavailable):
        raise
    except Exception as error:  # noqa: BLE001  damaged data, or a bug of ours, must not hold up other streams
        return RecordUnusable(f"its data is damaged: {type(error).__name__}")  # its message may quote content


async def _read_request(client: Client, scripts: StreamScripts, waiting: Waiting) -> bytes:
    stream_id = waiting.stream_id
    if size := int(waiting.fields["request_bytes"] or 0):
        request = await read_request(client, scripts.sealing, stream_id, size)
    else:
        (request,) = await run_commands(client, [("HGET", state_key(stream_id), "request")])
        request = scripts.sealing.open(stream_id, request) if request is not None else None
    if request is None:
        raise StreamChanged
    return request


def _record(scripts: StreamScripts, waiting: Waiting, request: bytes, log: StoredLog) -> ArchivedStream:
    stream_id = waiting.stream_id
    text = scripts.sealing.texts(stream_id, _FIELDS, [waiting.fields[name] for name in _FIELDS])
    state = state_of(text)
    if not isinstance(log.last, LogPage) or log.last.status != state.status:
        raise StreamChanged
    if not log.events or not events.is_done(log.events[-1]):
        raise RecordUnusable("its log is incomplete")
    transcript = fold(map(events.decode, log.events))
    view = answer_view(stream_id, state, transcript)
    has_cursors = text["archive"] == "events"
    kept = (*_OF_DIALECTS, "lineage") if has_cursors else _OF_DIALECTS
    return ArchivedStream(
        stream_id=stream_id,
        principal=text["principal"] or "",
        chat_id=text["chat"],
        status=state.status,
        model=view["model"],
        provider=view["provider"],
        created=int(text["created"] or 0),
        started=int(text["started"]) if text["started"] else None,
        ended=int(text["ended"] or 0),
        view=view,
        request=request,
        fields={name: value for name in kept if (value := text[name]) is not None},
        events=log.events if has_cursors else join_events(log.events),
        has_cursors=has_cursors,
        end=str(log.cursor),
        text=transcript.text,
        ledger=decode_ledger(text["ledger"], text["key_id"] or ""),
    )
