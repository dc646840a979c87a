"""A client of Responses over WebSocket that creates a response, or reads one, to its end: over as many connections
and gateways as that takes, with the messages of docs/protocol.md."""

import asyncio
import json
import random
import socket
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from tests.chaos.numbered import NumberedTranscript
from tests.chaos.reader import NETWORK_ERRORS
from tests.chaos.rig import GATEWAYS, Rig
from tests.sse_client import open_sse

#: Closes after which a client connects again.
_PASSING = frozenset({1001, 1006, 1011, 1012, 1013})
_GONE = frozenset({404, 410})
_UNAVAILABLE = 503
_NOT_SERVED = 426  # by a gateway of 0.2.0
_OPEN_S = 10.0
_SLOW = 0.15
_FICKLE = 0.5
_AGAIN = 0.3


@dataclass(frozen=True, slots=True)
class _Asked:
    """A message of the client, and the reader of the events that follow. ``after``: number of the last event before
    them."""

    message: dict[str, Any]
    after: int
    transcript: NumberedTranscript


class SocketReader:
    """Reads a response, once for each of its ``transcripts``, all at once on one connection. ``rng`` chooses its
    gateways, when it disconnects without a reason, and how many events it reads again."""

    def __init__(self, rig: Rig, rng: random.Random, readers: int = 1) -> None:
        self.transcripts = [NumberedTranscript() for _ in range(readers)]
        #: Codes of refused requests, for the complaint of a client that is never accepted.
        self.refusals: set[str] = set()
        self._rig = rig
        self._rng = rng

    async def read(self, stream_id: str) -> None:
        """Read until the response has ended for all of its readers."""
        while unended := [each for each in self.transcripts if not each.has_ended]:
            await asyncio.sleep(self._rng.uniform(0, 0.3))
            await self._exchange([self._resume(stream_id, transcript) for transcript in unended])

    async def create(self, request: dict[str, Any]) -> None:
        """Send a request and read one connection. Sent again, it attaches by its ``idempotency_key``."""
        message = {"type": "response.create", **request}
        await self._exchange([_Asked(message, -1, self.transcripts[0])])

    def _resume(self, stream_id: str, transcript: NumberedTranscript) -> _Asked:
        last = -1 if transcript.cursor is None else int(transcript.cursor)
        after = self._rng.randint(-1, last) if self._rng.random() < _AGAIN else last
        transcript.resumes += last >= 0
        message = {"type": "response.resume", "response_id": f"resp_{stream_id}", "starting_after": after}
        return _Asked(message, after, transcript)

    async def _exchange(self, asked: list[_Asked]) -> None:
        gateway = self._rng.randrange(GATEWAYS)
        slow, stay = self._rng.random() < _SLOW, self._rng.randint(1, 40)
        fickle = self._rng.random() < _FICKLE
        try:
            async with asyncio.timeout(_OPEN_S):
                connection = await self._connect(gateway, slow=slow)
        except (OSError, TimeoutError, EOFError, InvalidHandshake) as error:
            status = error.response.status_code if isinstance(error, InvalidStatus) else _UNAVAILABLE
            if status == _NOT_SERVED:
                await asyncio.gather(*(self._over_http(gateway, each) for each in asked))
            elif status != _UNAVAILABLE:
                asked[0].transcript.complaints.append(f"handshake: {status}")
            return
        try:
            with self._rig.a_reader_on(gateway):
                await self._take(connection, asked, stay if fickle else None, slow=slow)
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code not in _PASSING:
                asked[0].transcript.complaints.append(f"closed: {closed.rcvd}")
        finally:
            if self._rng.random() < 0.5:
                connection.transport.abort()  # as a network does
            await connection.close()

    async def _connect(self, gateway: int, *, slow: bool) -> ClientConnection:
        sock = socket.socket()
        sock.setblocking(False)
        if slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._rig.clients[gateway].port))
        url = self._rig.address(gateway).replace("http", "ws", 1) + "/v1/responses"
        return await connect(
            url,
            sock=sock,
            max_size=None,
            max_queue=1 if slow else 16,
            proxy=None,
            close_timeout=1,
            ping_interval=None,
        )

    async def _take(self, connection: ClientConnection, asked: list[_Asked], stay: int | None, *, slow: bool) -> None:
        names = [self._rng.choice([None, "first"]), "second", "third"]
        transcripts = {name: each.transcript for name, each in zip(names, asked, strict=False)}
        for name, each in zip(names, asked, strict=False):
            each.transcript.begin(each.after)
            await connection.send(json.dumps(each.message | ({} if name is None else {"stream_id": name})))
        taken = 0
        while taken != stay and not all(each.has_ended for each in transcripts.values()):
            event = json.loads(await connection.recv())
            transcript = transcripts[event.get("stream_id")]
            if "sequence_number" not in event:
                await self._refused(event, transcript)
                return
            transcript.take_event(event)
            taken += 1
            if slow:
                await asyncio.sleep(0.02)

    async def _over_http(self, gateway: int, asked: _Asked) -> None:
        """Send the same request to a gateway that serves no WebSockets."""
        url, body, transcript = f"{self._rig.address(gateway)}/v1/responses", dict(asked.message), asked.transcript
        transcript.begin(asked.after)
        if body.pop("type") == "response.create":
            headers = {"Idempotency-Key": body.pop("idempotency_key")}
            opening = open_sse("POST", url, headers=headers, json={**body, "stream": True})
        else:
            opening = open_sse("GET", f"{url}/{body['response_id']}?stream=true&starting_after={asked.after}")
        try:
            async with asyncio.timeout(_OPEN_S):
                connection = await opening
            async with connection:
                if connection.status in _GONE:
                    transcript.refuse(connection.status)
                elif connection.status != _UNAVAILABLE:
                    assert connection.status == 200, connection.status
                    with self._rig.a_reader_on(gateway):
                        async for frame in connection.frames():
                            transcript.take_event(frame.data)
        except NETWORK_ERRORS:
            return

    async def _refused(self, event: dict[str, Any], transcript: NumberedTranscript) -> None:
        """Take an error that is no event of the response."""
        status = event["status"]
        if status in _GONE:
            transcript.refuse(status)
        elif status != _UNAVAILABLE:
            transcript.complaints.append(f"error {status}: {event['error']}")
            transcript.refuse(status)
        else:
            self.refusals.add(event["error"]["code"])
            is_cut = "response_id" in event  # by a gateway that drains; the client resumes elsewhere at once
            if not is_cut and "retry-after" not in event["headers"]:
                transcript.complaints.append(f"503 without Retry-After: {event['error']}")
            await asyncio.sleep(0.3)
