"""Real Redis, hub and stream for tests of the live modules, without a gateway or a worker around them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.live.hub import Hub
from shared.broker.client import Client, connect, run_script
from shared.broker.creation import NewStream, create
from shared.broker.ending import Outcome, holder_of
from shared.broker.replies import Claimed, Code, LogPage
from shared.broker.routes import ONE_SERVER, Routes
from shared.broker.scripts import Holder, StreamScripts
from shared.protocol import events
from shared.protocol.chunks import compress
from shared.protocol.ids import START, EventId, new_stream_id
from shared.rate_limits import Demand, Limits
from shared.settings import Settings

OWNER = "p"


@asynccontextmanager
async def hub_at(
    redis_url: str, settings: Settings | None = None, routes: Routes = ONE_SERVER, *, keeps_leases: bool = True
) -> AsyncIterator[tuple[Hub, Client]]:
    """Yield a hub, with its tasks running as in a gateway, and a client of the same Redis. ``keeps_leases``: without
    it, the test makes the rounds of acknowledgements."""
    settings = settings or Settings(redis_url=redis_url)
    client = connect(redis_url, timeout_s=60)
    hub = Hub(client, StreamScripts(settings, routes), settings, "g1")
    loops = [hub.follow_tails(), hub.listen_for_growth(), *([hub.leases.keep()] if keeps_leases else [])]
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield hub, client
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.aclose()


class WrittenStream:
    """A stream in Redis, written step by step as a worker writes it."""

    def __init__(self, client: Client, settings: Settings | None = None) -> None:
        self.id = new_stream_id()
        self._client = client
        self._scripts = StreamScripts(settings or Settings())
        self._holder: Holder | None = None
        self._log: list[bytes] = []

    @property
    def epoch(self) -> int:
        return self._held.epoch

    async def create(self) -> None:
        """Queue the stream."""
        fields: dict[str, str | bytes | int] = {"principal": OWNER, "on_disconnect": "continue", "grace_ms": 0}
        fields |= {"provider": "fake", "model": "m", "request": '{"messages":[]}', "body_hash": "00"}
        demand = Demand("a", Limits(), 0)
        await create(self._client, self._scripts, NewStream(self.id, fields, "00", None, demand))

    async def begin(self) -> None:
        """Claim the stream and write `start`."""
        claimed = await run_script(self._client, self._scripts.claim(self.id, "w1.token"))
        assert isinstance(claimed, Claimed)
        self._holder = holder_of(self.id, claimed, "w1.token")
        await self._append(events.Start(self.id, model="m", provider="fake", attempt=1))

    async def write(self, *words: str) -> None:
        """Append one token for each word."""
        await self._append(*(events.Token(word, index) for index, word in enumerate(words)))

    async def end(self) -> None:
        outcome = Outcome("stop")
        closing = outcome.closing_events(None)
        chunks = compress([*self._log, *closing])
        call = self._scripts.finish(self._held, len(self._log) + 1, closing, chunks, outcome.ending(None))
        await run_script(self._client, call)

    async def delete(self) -> None:
        await run_script(self._client, self._scripts.delete(self.id))

    async def log_page(self, after: EventId = START) -> LogPage:
        """Read a page as a route does when it admits a client."""
        page = await run_script(self._client, self._scripts.read(self.id, after))
        assert isinstance(page, LogPage)
        return page

    @property
    def _held(self) -> Holder:
        assert self._holder is not None
        return self._holder

    async def _append(self, *new: events.Event) -> None:
        stored = [events.encode(event) for event in new]
        reply = await run_script(self._client, self._scripts.append(self._held, len(self._log) + 1, stored))
        assert reply.code is Code.OK
        self._log += stored
