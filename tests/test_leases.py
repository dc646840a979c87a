"""The places at the desk of streams that a worker holds, between the steps of others."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.broker.client import Client, connect
from shared.broker.creation import NewStream, create
from shared.broker.ending import Outcome, end_claimed, holder_of
from shared.broker.keys import account_keys, of_key
from shared.broker.replies import Claimed
from shared.broker.scripts import StreamScripts
from shared.protocol.ids import new_stream_id
from shared.rate_limits import Demand, Limits
from shared.settings import Settings
from tests.broker import Broker
from workers.jobs.claims import claim
from workers.writing.leases import Leases
from workers.writing.writer import StreamWriter

SETTINGS = Settings()
SCRIPTS = StreamScripts(SETTINGS)
DEMAND = Demand("an-account", Limits(concurrent_streams=1), 0)
STREAMS = account_keys(DEMAND.account)["streams"]
TOKEN = "w1.token"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    broker = Broker(tmp_path)
    await broker.start()
    client = connect(broker.url)
    yield client
    await client.aclose()
    broker.kill()


class Held:
    """A stream that a worker holds, and the worker's leases."""

    def __init__(self, client: Client, claimed: Claimed, stream_id: str) -> None:
        self._client = client
        self.leases = Leases(client, SCRIPTS, SETTINGS, "w1")
        self._claimed = claimed
        self.writer = StreamWriter(
            holder_of(stream_id, claimed, TOKEN),
            claimed,
            settings=SETTINGS,
            scripts=SCRIPTS,
            wake=lambda _: None,
            on_stop=lambda: None,
        )

    async def renew(self) -> None:
        servers = self._client.servers
        connection = servers.connection(servers.nodes[0])
        await self.leases._renew(connection, [self.writer])
        await connection.aclose()

    async def end(self) -> None:
        """End the stream, and settle it."""
        stream_id = self.writer.holder.stream_id
        assert await end_claimed(self._client, SCRIPTS, stream_id, self._claimed, TOKEN, Outcome("stop"))

    async def hold_renewed(self) -> None:
        renewed, self.leases._renewed = self.leases._renewed, {}
        await self.leases._hold(renewed)


@pytest.fixture
async def held(client: Client) -> Held:
    fields: dict[str, str | bytes | int] = {"principal": "p", "account": DEMAND.account, "on_disconnect": "continue"}
    fields |= {"grace_ms": 0, "body_hash": "00", "limited": 1}
    stream_id = new_stream_id()
    await create(client, SCRIPTS, NewStream(stream_id, fields, "00", None, DEMAND))
    claimed = await claim(client, SCRIPTS, stream_id, TOKEN)
    assert claimed is not None
    return Held(client, claimed, stream_id)


async def test_a_stream_that_is_settled_between_its_renewal_and_its_extension_stays_so(
    client: Client, held: Held
) -> None:
    """Else it would take its account's slot for hours."""
    with held.leases.hold(held.writer):
        await held.renew()
        assert await client.zcard(STREAMS) == 1
        await held.end()
        assert await client.zcard(STREAMS) == 0
        for _ in range(3):
            await held.hold_renewed()
            await held.renew()
        assert await client.zcard(STREAMS) == 0


async def test_a_stream_that_the_desk_has_lost_is_counted_after_one_more_renewal(client: Client, held: Held) -> None:
    with held.leases.hold(held.writer):
        await client.delete(of_key(held.writer.holder.stream_id), STREAMS)
        await held.renew()
        await held.hold_renewed()
        assert await client.zcard(STREAMS) == 0
        await held.renew()
        await held.hold_renewed()
        assert await client.zcard(STREAMS) == 1


async def test_a_stream_that_is_settled_before_it_is_counted_again_stays_so(client: Client, held: Held) -> None:
    with held.leases.hold(held.writer):
        await client.delete(of_key(held.writer.holder.stream_id), STREAMS)
        await held.renew()
        await held.hold_renewed()
        await held.renew()
        await held.end()
        await held.hold_renewed()
        assert await client.zcard(STREAMS) == 0
