"""The client side of one stream: requests it until accepted, reads, polls, cancels, deletes, and gets its status."""

import asyncio
import time
from dataclasses import dataclass, field
from math import inf
from typing import Any

import httpx2

from tests.chaos.plans import StreamPlan
from tests.chaos.reader import Reader
from tests.chaos.rig import BOUND_S, GATEWAYS, Rig
from tests.chaos.socket_reader import SocketReader
from tests.chaos.transcript import Transcript

#: A client that retries expects to be accepted within this time.
_ACCEPT_S = 45.0


@dataclass(slots=True)
class Record:
    """The facts about one stream that the oracle judges. Times are ``time.monotonic()``."""

    plan: StreamPlan
    requested_at: float = 0.0
    accepted_at: float = 0.0
    stream_id: str | None = None
    #: More than one if a repeated POST got another stream.
    stream_ids: set[str] = field(default_factory=set)
    transcripts: list[Transcript] = field(default_factory=list)
    polled: list[dict[str, Any]] = field(default_factory=list)
    #: `GET /chat/{id}` when all readers were done: status code, body, time.
    final: tuple[int, dict[str, Any], float] | None = None
    cancelled: bool = False
    #: When the client was about to delete it; never if infinite.
    deleted_at: float = inf
    #: The deletion was accepted.
    is_deletion_confirmed: bool = False
    refusals: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    @property
    def deleted(self) -> bool:
        return self.deleted_at < inf


class Chat:
    def __init__(self, rig: Rig, plan: StreamPlan) -> None:
        self.record = Record(plan)
        self._rig = rig
        self._plan = plan
        self._rng = plan.rng("client")

    async def run(self) -> None:
        """Run the client. Never raises; ends within the bound."""
        await asyncio.sleep(self._plan.start_s)
        record = self.record
        record.requested_at = time.monotonic()
        try:
            async with asyncio.timeout(BOUND_S):
                await self._use()
        except TimeoutError:
            seen = [(t.cursor, t.has_ended) for t in record.transcripts]
            record.complaints.append(f"not over after {BOUND_S:g} s; readers (cursor, ended): {seen}")

    async def _use(self) -> None:
        first: Reader | SocketReader
        if self._plan.is_response:
            first = self._new_socket_reader("reader 0")
            await self._create(first)
        else:
            first = self._new_reader("reader 0")
            await (self._post() if self._plan.route == "/chat" else self._post_stream(first))
        record = self.record
        if record.stream_id is None:
            if not record.complaints:
                record.complaints.append(f"not accepted within {_ACCEPT_S:g} s: {sorted(record.refusals)}")
            return
        record.accepted_at = time.monotonic()
        others = [self._another_reader(f"reader {i}") for i in range(1, self._plan.readers)]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll(record.stream_id))
            tasks.create_task(self._stop(record.stream_id))
            for reader in (first, *others):
                tasks.create_task(reader.read(record.stream_id))
        response = await self._until_answered("GET", f"/chat/{record.stream_id}")
        record.final = response.status_code, response.json(), time.monotonic()

    # --- requests with one Idempotency-Key

    async def _post(self) -> None:
        while self._may_still_request():
            response = await self._try("POST", "/chat", json=self._plan.body, headers=self._key)
            if response is not None and self._take_response(response.status_code, response.headers, response.text):
                return
            await asyncio.sleep(self._rng.uniform(0.05, 0.5))

    async def _post_stream(self, reader: Reader) -> None:
        """Open the reader's first connection; sometimes resume by the same POST, as fetch-based clients do."""
        while self._may_still_request() or reader.transcript.cursor:
            gateway = self._rng.randrange(GATEWAYS)
            cursor = reader.transcript.cursor
            headers = self._key | ({"Last-Event-ID": cursor} if cursor else {})
            url = f"{self._rig.address(gateway)}/chat/stream"
            connection = await reader.follow(gateway, "POST", url, headers, self._plan.body)
            status = None if connection is None else connection.status
            if connection is not None and status == 200 and "x-stream-id" in connection.headers:
                self._take_id(connection.stream_id)
            elif status == 200 and cursor:
                self._take_resume_without_key(reader.transcript, cursor)
            elif status is not None and status not in (503, 404, 410):
                self.record.complaints.append(f"POST /chat/stream: {status}")
                return
            if reader.transcript.has_ended or (self.record.stream_id and self._rng.random() < 0.7):
                return
            await asyncio.sleep(self._rng.uniform(0.05, 0.5))

    async def _create(self, reader: SocketReader) -> None:
        """Create a response over WebSockets; sometimes attach again by the same message."""
        request = {**self._plan.response_request, "idempotency_key": self._key["Idempotency-Key"]}
        while self._may_still_request():
            await reader.create(request)
            self.record.refusals |= reader.refusals
            (transcript,) = reader.transcripts
            if transcript.stream_id is not None:
                self._take_id(transcript.stream_id)
            if transcript.has_ended or (self.record.stream_id and self._rng.random() < 0.7):
                return
            await asyncio.sleep(self._rng.uniform(0.05, 0.5))

    def _take_resume_without_key(self, transcript: Transcript, cursor: str) -> None:
        """Check a 200 that names no stream: Redis has lost the key, so the response may hold that error only."""
        if transcript.cursor != cursor:
            self.record.complaints.append(f"events to {transcript.cursor} without X-Stream-Id")
        if transcript.done is not None and transcript.done.data["reason"] != "resume_without_key":
            self.record.complaints.append(f"done {transcript.done.data['reason']} without X-Stream-Id")

    @property
    def _key(self) -> dict[str, str]:
        return {"Idempotency-Key": f"{self._plan.seed}-{self._plan.number}"}

    def _may_still_request(self) -> bool:
        return time.monotonic() < self.record.requested_at + _ACCEPT_S

    def _take_response(self, status: int, headers: httpx2.Headers, text: str) -> bool:
        if status == 202:
            self._take_id(headers["x-stream-id"])
        elif status != 503:
            self.record.complaints.append(f"POST /chat: {status} {text[:200]}")
        else:
            self.record.refusals.add(text[:200])
        return status != 503

    def _take_id(self, stream_id: str) -> None:
        self.record.stream_id = stream_id
        self.record.stream_ids.add(stream_id)

    # --- meanwhile

    async def _poll(self, stream_id: str) -> None:
        rng = self._plan.rng("polls")
        for _ in range(self._plan.polls):
            await asyncio.sleep(rng.uniform(0.1, 2))
            response = await self._try("GET", f"/chat/{stream_id}")
            if response is not None and response.status_code == 200:
                self.record.polled.append(response.json())

    async def _stop(self, stream_id: str) -> None:
        plan = self._plan
        if plan.cancel_s is not None:
            await asyncio.sleep(plan.cancel_s)
            self.record.cancelled = True
            await self._until_answered("POST", f"/chat/{stream_id}/cancel")
        if plan.delete_s is not None:
            await asyncio.sleep(plan.delete_s)
            self.record.deleted_at = time.monotonic()
            answer = await self._until_answered("DELETE", f"/chat/{stream_id}")
            self.record.is_deletion_confirmed = answer.status_code == 204

    async def _until_answered(self, method: str, path: str) -> httpx2.Response:
        """Repeat a request until it gets a response other than 503."""
        while True:
            response = await self._try(method, path)
            if response is not None and response.status_code != 503:
                if response.status_code >= 500:
                    self.record.complaints.append(f"{method} {path}: {response.status_code}")
                return response
            await asyncio.sleep(0.3)

    async def _try(self, method: str, path: str, **options: Any) -> httpx2.Response | None:
        url = self._rig.address(self._rng.randrange(GATEWAYS)) + path
        try:
            return await self._rig.http.request(method, url, **options)
        except httpx2.HTTPError:
            return None

    def _another_reader(self, name: str) -> Reader | SocketReader:
        rng = self._plan.rng(f"{name} dialect")
        if self._plan.is_response and rng.random() < 0.5:
            return self._new_socket_reader(name, rng.choice([1, 2, 3]))
        return self._new_reader(name)

    def _new_socket_reader(self, name: str, readers: int = 1) -> SocketReader:
        reader = SocketReader(self._rig, self._plan.rng(name), readers)
        self.record.transcripts += reader.transcripts
        return reader

    def _new_reader(self, name: str) -> Reader:
        reader = Reader(self._rig, self._plan.rng(name))
        reader.transcript.may_continue = self._plan.is_stored
        self.record.transcripts.append(reader.transcript)
        return reader
