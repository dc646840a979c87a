"""Answers that the fake Responses server stores: they go on without a client, and are read again and cancelled."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from tests.fakes.answer import Answer, Call, Storage
from tests.fakes.http import Connection, Request
from tests.fakes.play import Play
from tests.fakes.wire import Wire, dumps

Body = dict[str, Any]
_ENDED: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Get:
    """A request for a stored answer. ``call``: its connection."""

    response_id: str
    query: dict[str, str]
    headers: dict[str, str]
    call: Call

    @property
    def starting_after(self) -> int | None:
        at = self.query.get("starting_after")
        return None if at is None else int(at)


@dataclass(eq=False)
class StoredAnswer:
    """One answer, as far as it is generated. Also the output of its :class:`Play`."""

    call: Call
    storage: Storage
    key: str
    frames: list[tuple[int, Body]] = field(default_factory=list)
    response: Body = field(default_factory=dict)
    has_ended: bool = False
    task: asyncio.Task[None] | None = None
    connections: int = 0
    _rest: bytes = b""
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> str:
        return str(self.response.get("status", "queued"))

    async def next_frames(self, at: int) -> list[tuple[int, Body]]:
        """Return the events from index ``at``; waits for the first of them. Empty: there are no more."""
        while len(self.frames) <= at and not self.has_ended:
            grown = self._grown
            await grown.wait()
        return self.frames[at:]

    def cancel(self) -> None:
        """Stop the generation; its streams end with the event of that."""
        if self.task is not None:
            self.task.cancel()
        self.response = {**self.response, "status": "cancelled"}
        last = self.frames[-1][0] if self.frames else -1
        self._add({"type": "response.cancelled", "sequence_number": last + 1, "response": self.response})
        self.end_chunks()

    # --- the output of a Play

    async def respond(
        self, status: int, body: bytes, content_type: str = "application/json", *, retry_after: str | None = None
    ) -> None:
        raise AssertionError("errors and raw answers are not stored")

    def begin_chunks(self, content_type: str, status: int = 200) -> None:
        """Begin nothing: each connection begins its own chunks."""

    async def chunk(self, call: Call, data: bytes) -> None:
        *blocks, self._rest = (self._rest + data.replace(b"\r\n", b"\n")).split(b"\n\n")
        for block in blocks:
            lines = [line.removeprefix(b"data:") for line in block.split(b"\n") if line.startswith(b"data:")]
            if lines:
                self._add(json.loads(b"\n".join(lines)))

    def end_chunks(self) -> None:
        self.has_ended = True
        self._wake()

    async def reset(self) -> None:
        self.end_chunks()

    def _add(self, event: Body) -> None:
        number = event.get("sequence_number", self.frames[-1][0] if self.frames else -1)
        self.response = event.get("response") or self.response
        self.frames.append((number, event))
        self._wake()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()


class StoredAnswers:
    """All stored answers of one server, with its routes for them. ``arrived``: notified of each request."""

    def __init__(self, arrived: asyncio.Condition) -> None:
        self._arrived = arrived
        self.by_id: dict[str, StoredAnswer] = {}
        #: Requests to read an answer, in order, with those that were refused.
        self.gets: list[Get] = []
        #: Ids of the responses for which a cancel came, in order, with those that were refused.
        self.cancels: list[str] = []
        #: Called when a stream of a stored answer begins to be read again.
        self.on_read: Callable[[Get, StoredAnswer], None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Stop all generations."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def create(self, connection: Connection, call: Call, answer: Answer, wire: Wire, key: str) -> None:
        """Begin an answer and stream it."""
        stored = StoredAnswer(call, answer.storage, key)
        stored.task = asyncio.create_task(self._generate(stored, answer, wire))
        self._tasks.add(stored.task)
        stored.task.add_done_callback(self._tasks.discard)
        await stored.next_frames(0)
        self.by_id[stored.response["id"]] = stored
        if answer.storage.never_streams:
            await connection.respond(200, dumps(stored.response).encode())
        else:
            await self._stream(connection, call, stored, after=None)

    async def get(self, connection: Connection, request: Request, key: str) -> None:
        """Answer a GET of one response."""
        response_id = request.path.rpartition("/")[2]
        query = dict(parse_qsl(request.query))
        call = Call(0, "responses", "", {}, request.headers)
        got = Get(response_id, query, request.headers, call)
        self.gets.append(got)
        await self._notify()
        stored = self.by_id.get(response_id)
        if stored is None or stored.key != key:
            await _refuse(connection, 404, f"Response with id '{response_id}' not found.")
        elif query.get("stream") != "true" or stored.storage.sends_whole("starting_after" in query):
            await connection.respond(200, dumps(stored.response).encode())
        elif stored.storage.status is not None:
            await _refuse(connection, stored.storage.status, "This response can no longer be streamed.")
        else:
            connection.call = call
            if self.on_read is not None:
                self.on_read(got, stored)
            await self._stream(connection, call, stored, after=got.starting_after)
            connection.done()

    async def cancel(self, connection: Connection, request: Request, key: str) -> None:
        """Answer a POST that cancels a response."""
        response_id = request.path.split("/")[-2]
        self.cancels.append(response_id)
        await self._notify()
        stored = self.by_id.get(response_id)
        if stored is None or stored.key != key:
            await _refuse(connection, 404, f"Response with id '{response_id}' not found.")
        elif stored.storage.cancel_status is not None:
            await _refuse(connection, stored.storage.cancel_status, "Not now.")
        elif stored.status in _ENDED - {"cancelled"}:
            await _refuse(connection, 400, "Cannot cancel a completed response.")
        else:
            if stored.status != "cancelled":
                stored.cancel()
            await connection.respond(200, dumps(stored.response).encode())

    async def _notify(self) -> None:
        async with self._arrived:
            self._arrived.notify_all()

    async def _generate(self, stored: StoredAnswer, answer: Answer, wire: Wire) -> None:
        with suppress(asyncio.CancelledError):
            await Play(stored, stored.call, answer, wire).run()
        if not stored.has_ended:
            stored.end_chunks()

    async def _stream(self, connection: Connection, call: Call, stored: StoredAnswer, *, after: int | None) -> None:
        """Send the events after a number, as they come."""
        storage = stored.storage
        cut = storage.cuts[stored.connections] if stored.connections < len(storage.cuts) else None
        stored.connections += 1
        is_get = call is not stored.call
        after = None if storage.ignores_cursor else after
        connection.begin_chunks("text/event-stream")
        at = sent = 0
        while frames := await stored.next_frames(at):
            at += len(frames)
            for number, event in frames:
                if (after is not None and number <= after) or (is_get and number in storage.lost):
                    continue
                if sent == cut:
                    break
                if not is_get and sent == storage.keepalive_after:
                    await connection.chunk(call, _frame({"type": "keepalive", "sequence_number": number}, storage))
                shift = int(not is_get and storage.keepalive_after is not None and sent >= storage.keepalive_after)
                await connection.chunk(call, _frame(event, storage, is_get=is_get, shift=shift))
                sent += 1
            if sent == cut:
                break
        if sent == cut and storage.cut_by == "reset":
            await connection.reset()
            return
        connection.end_chunks()


def _frame(event: Body, storage: Storage, *, is_get: bool = False, shift: int = 0) -> bytes:
    if shift and "sequence_number" in event:
        event = event | {"sequence_number": event["sequence_number"] + shift}
    if not storage.has_numbers:
        event = {name: value for name, value in event.items() if name != "sequence_number"}
    if is_get and storage.other_id is not None and "response" in event:
        event = event | {"response": event["response"] | {"id": storage.other_id}}
    return f"event: {event['type']}\ndata: {dumps(event)}\n\n".encode()


async def _refuse(connection: Connection, status: int, message: str) -> None:
    report = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    await connection.respond(status, dumps({"error": report}).encode())
