"""A plain WebSocket client of ``/v1/responses``, from the library ``websockets``."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.system import System

ENDINGS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
Event = dict[str, Any]


class ResponseSocket:
    """One connection. ``closed``: close code and reason, once it is closed."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._unread: list[Event] = []

    async def send(self, kind: str, **members: Any) -> None:
        await self.connection.send(json.dumps({"type": kind, **members}))

    async def create(self, model: str, given: Any = "hi", **members: Any) -> None:
        await self.send("response.create", model=model, input=given, **members)

    async def next(self, track: str | None = None) -> Event:
        """Return the next event of a track; those of others stay unread."""
        found = next((event for event in self._unread if event.get("stream_id") == track), None)
        if found is not None:
            self._unread.remove(found)
            return found
        while True:
            event: Event = json.loads(await asyncio.wait_for(self.connection.recv(), 60))
            if event.get("stream_id") == track:
                return event
            self._unread.append(event)

    async def until(self, kind: str, track: str | None = None) -> list[Event]:
        """Return the next events up to one of this type."""
        seen = [await self.next(track)]
        while seen[-1]["type"] != kind:
            assert seen[-1]["type"] not in ENDINGS, seen[-1]
            seen.append(await self.next(track))
        return seen

    async def rest(self, track: str | None = None) -> list[Event]:
        """Return all events of a response up to its ending."""
        seen = [await self.next(track)]
        while seen[-1]["type"] not in ENDINGS:
            seen.append(await self.next(track))
        return seen

    async def closed(self) -> tuple[int | None, str | None]:
        """Wait until the server has closed. Unread events are left out."""
        try:
            async with asyncio.timeout(60):
                while True:
                    self._unread.append(json.loads(await self.connection.recv()))
        except ConnectionClosed:
            return self.connection.close_code, self.connection.close_reason

    def cut(self) -> None:
        """Reset the connection, as a network does."""
        self.connection.transport.abort()


@asynccontextmanager
async def open_socket(
    system: System | str, gateway: int = 0, headers: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[ResponseSocket]:
    base = system if isinstance(system, str) else system.gateways[gateway].url
    url = base.replace("http", "ws", 1) + "/v1/responses"
    made = connect(url, additional_headers=headers, max_size=None, proxy=None, **options)
    async with made as connection:
        yield ResponseSocket(connection)


def text_of(events: list[Event]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def response_id(events: list[Event]) -> str:
    found: str = next(event["response"]["id"] for event in events if "response" in event)
    return found
