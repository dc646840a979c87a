"""Effect of large bodies on a gateway: ``python -m bench.large_bodies`` takes half a minute.

Seven requests of 32 MiB, as many as the memory for bodies admits, arrive at once. Meanwhile another client calls
``/healthz`` without a pause; its longest waits are the figure, with the peak of the memory of gateway and worker.
"""

import asyncio
import base64
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx2

from bench.markdown import aligned
from tests.system import Process, System, ask

_BYTES: Final = 31 * 1024 * 1024
_REQUESTS: Final = 7


def _bodies() -> dict[str, dict[str, Any]]:
    text = "Words of a text that is plain and long enough. " * 400
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i in range(_BYTES // len(text))]
    image = base64.b64encode(os.urandom(_BYTES * 3 // 4)).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
    return {
        "text": ask("fast") | {"messages": turns},
        "an image": ask("fast") | {"messages": [{"role": "user", "content": [part]}]},
    }


async def main() -> None:
    rows = [["", "longest waits, ms", "accepted after, ms", "gateway, MiB", "worker, MiB"]]
    for name, body in _bodies().items():
        for count in (1, _REQUESTS):
            rows.append(await _row(f"{count} x {name}", json.dumps(body).encode(), count))
    print(aligned(rows))


async def _row(name: str, body: bytes, count: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        system = System(Path(folder), gateways=1, workers=1, providers=("openai",))
        try:
            await system.start()
            waits: list[float] = []
            other = asyncio.create_task(asyncio.to_thread(_probe, system.url, waits, system.gateways[0]))
            started = time.perf_counter()
            calls = [system.http.post(f"{system.url}/chat", content=body, timeout=120) for _ in range(count)]
            accepted = await asyncio.gather(*calls)
            seconds = time.perf_counter() - started
            assert {each.status_code for each in accepted} == {202}
            await asyncio.sleep(2)
            peaks = [_peak_mib(process) for process in (system.gateways[0], system.workers[0])]
        finally:
            await system.stop()
        await other
    longest = sorted(waits)[-5:]
    return [name, " ".join(f"{s * 1e3:.0f}" for s in reversed(longest)), f"{seconds * 1e3:.0f}", *map(str, peaks)]


def _probe(url: str, waits: list[float], gateway: Process) -> None:
    with httpx2.Client(trust_env=False) as client:
        while gateway.alive:
            started = time.perf_counter()
            try:
                client.get(f"{url}/healthz")
            except httpx2.HTTPError:
                return
            waits.append(time.perf_counter() - started)
            time.sleep(0.001)


def _peak_mib(process: Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


if __name__ == "__main__":
    asyncio.run(main())
