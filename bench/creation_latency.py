"""Compares how soon requests begin in several trees and on a cluster.

    python -m bench.creation_latency ../before .

All systems run at once, each with its own Redis, gateway and worker, and are idle while another one is measured.
Rounds are interleaved: A, B, C, C, B, A. Requests follow one another. MONITOR on each server tells when a script
queues a stream and when a claim starts it, and slows both; so the times of clients are measured in rounds without it.
"""

import argparse
import asyncio
import re
import shlex
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
import uvloop

from bench import pace
from bench.children import ProviderProcess
from bench.http import request
from bench.stage import Stage
from bench.tables_report import percentiles_ms, write
from bench.targets.headrace import Headrace
from bench.targets.headrace_cluster import HeadraceThreeNodes

_PAUSE_S: Final = 0.02
_TEXT: Final = re.compile(r"\d{6}:(\d{13}) ")
#: A script queues a stream, and a script starts it. The names of keys differ between versions.
_QUEUED: Final = re.compile(rb'\+(\d+\.\d+) \[0 lua\] "(?i:zadd)" "hr:(?:\{desk\}:)?queue"')
_STARTED: Final = re.compile(rb'\+(\d+\.\d+) \[0 lua\] "(?i:hset)" "hr:[^"]+:state" "status" "running"')

_POSTED, _CALLED, _STARTED_AFTER = "POST → 202", "POST → provider called", "queued → started"
Times = dict[str, list[float]]


class Requests:
    """A client with one connection, which it keeps."""

    def __init__(self, port: int) -> None:
        self._port = port
        body = {"provider": "openai", "model": pace.flood(1), "messages": [{"role": "user", "content": "x" * 100}]}
        self._post = request(port, "POST", "/chat", {}, msgspec.json.encode(body))

    async def __aenter__(self) -> "Requests":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def sample(self) -> tuple[float, float]:
        """Return the seconds from a request to its 202, and to the call of the provider."""
        begun = time.monotonic()
        answer = await self._send(self._post)
        accepted = time.monotonic() - begun
        look = request(self._port, "GET", f"/chat/{answer['stream_id']}", {}, b"")
        while True:
            await asyncio.sleep(_PAUSE_S)
            state = await self._send(look)
            if state["ended_at"]:
                found = _TEXT.search(state["text"])
                assert found is not None, state
                return accepted, int(found[1]) / 1e6 - begun

    async def _send(self, wire: bytes) -> dict[str, Any]:
        self._writer.write(wire)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        answer: dict[str, Any] = msgspec.json.decode(await self._reader.readexactly(length))
        return answer


@asynccontextmanager
async def monitored(urls: Sequence[str]) -> AsyncIterator[list[bytes]]:
    """Collect what MONITOR tells of all servers."""
    seen: list[bytes] = []

    async def listen(reader: asyncio.StreamReader) -> None:
        while data := await reader.read(2**18):
            seen.append(data)

    async with AsyncExitStack() as stack:
        for url in urls:
            host, _, port = url.removeprefix("redis://").partition("/")[0].partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            writer.write(b"MONITOR\r\n")
            await reader.readline()
            listening = asyncio.create_task(listen(reader))
            stack.callback(listening.cancel)
        yield seen


async def measure(target: Headrace, samples: int, times: Times) -> None:
    async with Requests(target.port) as client:
        for _ in range(samples):
            accepted, called = await client.sample()
            times[_POSTED].append(accepted)
            times[_CALLED].append(called)
    async with Requests(target.port) as client, monitored(_urls(target)) as seen:
        for _ in range(samples):
            del seen[:]
            await client.sample()
            told = b"".join(seen)
            queued, started = (min(map(float, pattern.findall(told))) for pattern in (_QUEUED, _STARTED))
            times[_STARTED_AFTER].append(started - queued)


def _urls(target: Headrace) -> list[str]:
    if isinstance(target, HeadraceThreeNodes):
        return [node.url for node in target.cluster.nodes]
    return [target.redis_url]


async def _run(options: argparse.Namespace) -> dict[str, list[Times]]:
    """Return the times of each system, round by round."""
    targets: dict[str, Headrace] = {
        tree: Headrace({"PYTHONPATH": str(Path(tree).resolve()), "PYTHONSAFEPATH": "1"}) for tree in options.trees
    }
    targets["., three nodes"] = HeadraceThreeNodes()
    rounds: dict[str, list[Times]] = {name: [] for name in targets}
    provider = ProviderProcess()
    async with AsyncExitStack() as stack:
        await provider.start()
        stack.push_async_callback(provider.stop)
        for target in targets.values():
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-"))
            stack.push_async_callback(target.stop)
            await target.start(provider.url, Path(folder))
            await Stage(target, provider, 1).warm_up()
        for number in range(options.rounds):
            for name in list(targets) if number % 2 == 0 else reversed(targets):
                times: Times = defaultdict(list)
                await measure(targets[name], options.samples, times)
                rounds[name].append(times)
    return rounds


def _rows(rounds: dict[str, list[Times]], trees: Sequence[str]) -> list[list[str]]:
    first = rounds[trees[0]]
    rows = [
        ["", "system", "p50 ms", "p99 ms", "longest ms", f"p50, difference to {trees[0]}, ms", "the same, by round"]
    ]
    for name in (_POSTED, _CALLED, _STARTED_AFTER):
        for system, times in rounds.items():
            every = [value for each in times for value in each[name]]
            more = [(median(each[name]) - median(base[name])) * 1000 for each, base in zip(times, first, strict=True)]
            by_round = " ".join(f"{ms:+.2f}" for ms in more)
            rows.append([name, system, *percentiles_ms(every), f"{median(more):+.2f}", by_round])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.creation_latency", description=__doc__.partition("\n")[0])
    parser.add_argument("trees", nargs="+", help="folders with the source of Headrace; the first is the reference")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--samples", type=int, default=100, help="requests in a round, of each kind")
    options = parser.parse_args()
    rows = _rows(uvloop.run(_run(options)), options.trees)
    command = shlex.join(["python", "-m", "bench.creation_latency", *sys.argv[1:]])
    write("creation", command, {"creation": ("Requests one after another", rows)})


if __name__ == "__main__":
    main()
