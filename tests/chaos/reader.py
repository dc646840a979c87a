"""A client that reads one stream to its end, over as many connections and gateways as that takes."""

import asyncio
import random
from collections.abc import Mapping

import h11

from tests.chaos.rig import GATEWAYS, Rig
from tests.chaos.transcript import Transcript
from tests.sse_client import Broken, SseConnection, open_sse

#: Errors of the network after which a client tries again.
NETWORK_ERRORS = (OSError, TimeoutError, Broken, h11.RemoteProtocolError)
_OPEN_S = 10.0
_SLOW = 0.15
_FICKLE = 0.5


class Reader:
    """Reader of one stream. ``rng`` chooses its gateways, the form of its cursor, and when it disconnects without a
    reason."""

    def __init__(self, rig: Rig, rng: random.Random) -> None:
        self.transcript = Transcript()
        self._rig = rig
        self._rng = rng

    async def read(self, stream_id: str) -> None:
        """Read until the stream has ended for this reader."""
        while not self.transcript.has_ended:
            await asyncio.sleep(self._rng.uniform(0, 0.3))
            gateway = self._rng.randrange(GATEWAYS)
            headers, query = self._cursor()
            url = f"{self._rig.address(gateway)}/chat/stream/{stream_id}{query}"
            await self.follow(gateway, "GET", url, headers)

    async def follow(
        self, gateway: int, method: str, url: str, headers: Mapping[str, str], body: object = None
    ) -> SseConnection | None:
        """Read one connection until either side ends it. Return None if there was no response."""
        slow, stay = self._rng.random() < _SLOW, self._rng.randint(1, 60)
        fickle = self._rng.random() < _FICKLE
        try:
            async with asyncio.timeout(_OPEN_S):
                connection = await open_sse(
                    method, url, headers=headers, json=body, receive_buffer=4096 if slow else None
                )
        except NETWORK_ERRORS:
            return None
        async with connection:
            if connection.status == 200:
                with self._rig.a_reader_on(gateway):
                    await self._take(connection, stay if fickle else None, slow=slow)
            else:
                await self._refused(connection)
        return connection

    async def _take(self, connection: SseConnection, stay: int | None, *, slow: bool) -> None:
        taken = 0
        try:
            async for frame in connection.frames():
                self.transcript.take(frame)
                taken += 1
                if taken == stay and not self.transcript.has_ended:
                    return
                if slow:
                    await asyncio.sleep(0.02)
        except NETWORK_ERRORS:
            return
        if not self.transcript.has_ended:
            self.transcript.complaints.append("a clean end without done")

    async def _refused(self, connection: SseConnection) -> None:
        if connection.status == 503:
            if "retry-after" not in connection.headers:
                self.transcript.complaints.append("503 without Retry-After")
            await asyncio.sleep(0.3)
        else:
            self.transcript.refuse(connection.status)

    def _cursor(self) -> tuple[dict[str, str], str]:
        """Return the cursor as header, as query, or as a header beside an older query, as an EventSource sends."""
        how = self._rng.randrange(3)
        cursor = self.transcript.cursor
        if cursor is None:
            return {}, ""
        self.transcript.resumes += 1
        if how == 0:
            return {"Last-Event-ID": cursor}, ""
        if how == 1:
            return {}, f"?last_event_id={cursor}"
        return {"Last-Event-ID": cursor}, f"?last_event_id={self.transcript.epoch}-1"
