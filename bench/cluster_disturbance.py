"""Delivery latency while slots move and masters die: ``python -m bench.cluster_disturbance`` takes two minutes.

Three masters and three replicas (Valkey 9) on this machine, two gateways and two workers. Each phase is a disturbance
of one node; its streams are compared with the others, and with a phase without a disturbance. A token's latency is
the time from its provider to its client. Requires no other load.
"""

import argparse
import asyncio
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from bench import pace
from bench.children import REPOSITORY, ProviderProcess
from bench.delivery_client import Delivery
from bench.tables_report import percentiles_ms, write
from bench.targets.headrace_cluster import HeadraceDisturbed
from shared.broker.cluster.slots import BUCKET_TAGS, slot_of
from shared.broker.keys import DESK, state_key
from tests.broker_cluster import Cluster, Node

#: Time before and after each disturbance.
_SETTLE_S: Final = 2.0
#: A disturbance counts for so long after it is over.
_AFTER_S: Final = 1.0
_LINE_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the run. ``disturbed``: ids of the streams of the node; ``took_s``: of the disturbance itself."""

    name: str
    begun_us: int
    ended_us: int
    disturbed: frozenset[str]
    took_s: float


class Disturbances:
    """Runs phases one after another, on a cluster with these live streams."""

    def __init__(self, cluster: Cluster, ids: Collection[str], undisturbed_s: float) -> None:
        self.phases: list[Phase] = []
        self._cluster = cluster
        self._ids = ids
        self._undisturbed_s = undisturbed_s

    async def run(self) -> None:
        desk = await self._cluster.owner(DESK)
        other = next(node for node in await self._cluster.masters() if node is not desk)
        await self._phase("undisturbed", other, partial(asyncio.sleep, 0), self._undisturbed_s)
        await self._phase("slots move at once, there and back", other, partial(self._move_at_once, other, desk))
        await self._phase("slots move key by key, there and back", other, partial(self._move_by_key, other, desk))
        await self._phase("the desk's slot moves key by key, there and back", None, partial(self._move_desk, other))
        await self._phase("a master dies", other, partial(self._kill, other))
        await self._cluster.restart(other)
        await self._cluster.settled()
        await asyncio.sleep(_SETTLE_S)
        desk = await self._cluster.owner(DESK)
        await self._phase("the desk's master dies", desk, partial(self._kill, desk))

    async def _phase(
        self, name: str, node: Node | None, disturb: Callable[[], Awaitable[Any]], after_s: float = _AFTER_S
    ) -> None:
        owned = await self._cluster.owned_by(node) if node is not None else set()
        disturbed = frozenset(stream_id for stream_id in self._ids if slot_of(state_key(stream_id)) in owned)
        begun_us, begun = time.monotonic_ns() // 1000, time.monotonic()
        await disturb()
        took_s = time.monotonic() - begun
        await asyncio.sleep(after_s)
        self.phases.append(Phase(name, begun_us, time.monotonic_ns() // 1000, disturbed, took_s))
        await asyncio.sleep(_SETTLE_S)
        print(f"{name}: {took_s:.2f} s", flush=True)

    async def _move_at_once(self, node: Node, target: Node) -> None:
        slots = sorted(await self._cluster.owned_by(node))
        await self._cluster.move_at_once(slots, target)
        await self._cluster.move_at_once(slots, node)

    async def _move_by_key(self, node: Node, target: Node) -> None:
        slots = await self._cluster.slots_of(node, [f"{{{tag}}}" for tag in BUCKET_TAGS])
        await self._cluster.move_slots(slots, target)
        await self._cluster.move_slots(slots, node)

    async def _move_desk(self, target: Node) -> None:
        source = await self._cluster.owner(DESK)
        for node in (target, source):
            await self._cluster.move_slots([slot_of(DESK)], node)

    async def _kill(self, node: Node) -> None:
        slots = await self._cluster.owned_by(node)
        await self._cluster.kill(node)
        while True:
            await asyncio.sleep(0.02)
            owner = await self._cluster.owner(min(slots))
            if owner.is_running:
                return


async def _run(options: argparse.Namespace) -> tuple[list[Phase], dict[str, Any]]:
    target, provider = HeadraceDisturbed({"HEADRACE_PROVIDER_RETRIES": "0"}), ProviderProcess()
    await provider.start()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        try:
            await target.start(provider.url, Path(folder))
            model = pace.paced(options.rate, options.tokens)
            job = Delivery(
                target.ports, target.request(model, "x").body.decode(), options.streams, 2.0, options.tokens
            )
            return await _read_through(job, target.cluster, options.undisturbed_s)
        finally:
            await target.stop()
            await provider.stop()


async def _read_through(job: Delivery, cluster: Cluster, undisturbed_s: float) -> tuple[list[Phase], dict[str, Any]]:
    pipe = asyncio.subprocess.PIPE
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.delivery_client"), stdin=pipe, stdout=pipe, cwd=REPOSITORY, limit=_LINE_BYTES
    )
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        client.stdin.write(msgspec.json.encode(job) + b"\n")
        first: dict[str, Any] = json.loads(await client.stdout.readline())
        await asyncio.sleep(_SETTLE_S)
        disturbances = Disturbances(cluster, first["ids"], undisturbed_s)
        await disturbances.run()
        result: dict[str, Any] = json.loads(await client.stdout.readline())
        return disturbances.phases, result
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()


def _rows(phases: Collection[Phase], received: Mapping[str, list[tuple[int, int]]]) -> list[list[str]]:
    rows = [["phase", "it took s", "streams", "number", "tokens", "p50 ms", "p99 ms", "longest ms"]]
    for phase in phases:
        groups = {"of the node": phase.disturbed, "others": received.keys() - phase.disturbed}
        for name, ids in groups.items():
            latencies = [
                latency / 1e6
                for stream_id in ids
                for at, latency in received[stream_id]
                # A token counts if it was on its way at any time of the phase.
                if at >= phase.begun_us and at - latency <= phase.ended_us
            ]
            if latencies:
                counts = [f"{len(ids)}", f"{len(latencies):,}"]
                rows.append([phase.name, f"{phase.took_s:.2f}", name, *counts, *percentiles_ms(latencies)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.cluster_disturbance", description=__doc__.partition(":")[0]
    )
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--rate", type=float, default=10, help="tokens a second of each stream")
    parser.add_argument("--tokens", type=int, default=900, help="of each stream; they must last through all phases")
    parser.add_argument("--undisturbed-s", type=float, default=10, help="the phase without a disturbance")
    options = parser.parse_args()
    phases, result = uvloop.run(_run(options))
    counts = [["refused requests", "connections that broke off", "tokens lost, twice or out of order"]]
    counts.append([f"{result[name]}" for name in ("refused", "broken", "wrong")])
    title = f"Latency of a token, {options.streams} streams, {options.rate:g} tokens/s each"
    command = shlex.join(["python", "-m", "bench.cluster_disturbance", *sys.argv[1:]])
    tables = {"latency": (title, _rows(phases, result["received"])), "counts": ("All streams", counts)}
    write("disturbance", command, tables)


if __name__ == "__main__":
    main()
