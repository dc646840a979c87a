"""CPU costs of Redis alone, for ``capacity.json``: ``python -m bench.broker_costs`` takes a few seconds.

A hundred streams are on a Redis of their own, without gateway and worker, so the costs are floors. CPU is the
server's, from /proc, and ours. A pipeline of a hundred, or one command alone, is repeated.
"""

import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.cpu import cpu_s
from bench.markdown import aligned
from shared.broker.client import Client, connect, run_script, run_scripts
from shared.broker.creation import NewStream, create
from shared.broker.declarations import Call
from shared.broker.ending import holder_of
from shared.broker.keys import tail_key
from shared.broker.pipeline_connection import PipelineConnection, pack
from shared.broker.replies import Claimed
from shared.broker.scripts import Holder, StreamScripts
from shared.protocol import events
from shared.protocol.ids import EventId, new_stream_id
from shared.rate_limits import Demand, Limits
from shared.settings import Settings
from tests.broker import Broker

_STREAMS: Final = 100
_TOKENS: Final = 500
_ROUNDS: Final = 100
_GATEWAY: Final = "g00112233"
_HOLDER: Final = "w00112233.0123456789abcdef"
_SCRIPTS: Final = StreamScripts(Settings())


class Costs:
    """CPU of the server and of this process, by name, in µs for each of ``count``. A later measurement replaces an
    earlier one of the same name."""

    def __init__(self, pid: int) -> None:
        self.rows: dict[str, list[str]] = {"": ["", "Redis us", "ours us"]}
        self._pid = pid

    async def measure(
        self, name: str, count: int, repeat: Callable[[], Awaitable[Any]], rounds: int = _ROUNDS
    ) -> None:
        server, own = cpu_s(self._pid), time.process_time()
        for _ in range(rounds):
            await repeat()
        spent = cpu_s(self._pid) - server, time.process_time() - own
        self.rows[name] = [name, *(f"{seconds / count / rounds * 1e6:.2f}" for seconds in spent)]


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder))
        await broker.start()
        client, line = connect(broker.url), PipelineConnection(broker.url)
        try:
            await _measure(client, line, Costs((await client.info("server"))["process_id"]))
        finally:
            await line.aclose()
            await client.aclose()
            broker.kill()


async def _measure(client: Client, line: PipelineConnection, costs: Costs) -> None:
    empty = await _used_bytes(client)
    holders = [await _stream(client, line) for _ in range(_STREAMS)]
    start = events.encode(events.Start(holders[0].stream_id, "gpt-some", "openai", 1))
    await run_scripts(line, [_SCRIPTS.append(holder, 1, [start]) for holder in holders])
    await run_scripts(line, _acknowledgements(holders))
    begun = await _used_bytes(client)

    written = 1

    async def append() -> None:
        nonlocal written
        written += 1
        stored = events.encode(events.Token(" token", written, 1))
        await run_scripts(line, [_SCRIPTS.append(holder, written, [stored]) for holder in holders])

    for _ in range(_TOKENS // _ROUNDS):
        await run_scripts(line, _acknowledgements(holders, written))
        await costs.measure("append, one event, one gateway notified", _STREAMS, append)
    filled = await _used_bytes(client)

    keys = [tail_key(holder.stream_id) for holder in holders]
    cursors = [f"{holder.epoch}-{written - 1}" for holder in holders]
    together = pack(("XREAD", "COUNT", 256, "STREAMS", *keys, *cursors))
    apart = b"".join(pack(("XREAD", "STREAMS", key, at)) for key, at in zip(keys, cursors, strict=True))
    await costs.measure("a tail in an XREAD of a hundred", _STREAMS, lambda: line.exchange_packed(together, 1))
    await costs.measure("a tail in an XREAD of its own", _STREAMS, lambda: line.exchange_packed(apart, _STREAMS))
    renewals = [_SCRIPTS.renew(holder) for holder in holders]
    await costs.measure("renewal of a lease", _STREAMS, lambda: run_scripts(line, renewals))
    leads = _acknowledgements(holders, written)
    await costs.measure("acknowledgement", _STREAMS, lambda: run_scripts(line, leads))
    ping = pack(("PING",))
    await costs.measure("an exchange beside its commands", 1, lambda: line.exchange_packed(ping, 1), rounds=3000)

    print(aligned(list(costs.rows.values())))
    print(f"\nKiB a stream before its first token: {(begun - empty) / _STREAMS / 1024:.1f} (shared keys included)")
    print(f"bytes a token in log and tail, one an event: {(filled - begun) / _STREAMS / (written - 1):.0f}")


async def _stream(client: Client, line: PipelineConnection) -> Holder:
    stream_id = new_stream_id()
    fields: dict[str, str | bytes | int] = {"principal": "p", "on_disconnect": "cancel", "grace_ms": 60_000}
    fields |= {"body_hash": "0" * 64, "provider": "openai", "model": "gpt-some", "request": "r" * 600}
    demand = Demand("an-account", Limits(), 0)
    await create(client, _SCRIPTS, NewStream(stream_id, fields, "0" * 64, None, demand))
    claimed = await run_script(line, _SCRIPTS.claim(stream_id, _HOLDER))
    assert isinstance(claimed, Claimed)
    return holder_of(stream_id, claimed, _HOLDER)


def _acknowledgements(holders: Sequence[Holder], at: int = 1) -> list[Call[Any]]:
    return [_SCRIPTS.acknowledge(holder.stream_id, _GATEWAY, EventId(holder.epoch, at)) for holder in holders]


async def _used_bytes(client: Client) -> int:
    used: int = (await client.info("memory"))["used_memory"]
    return used


if __name__ == "__main__":
    uvloop.run(main())
