"""CPU of reading a provider in one process: of a token of a slow stream, and of an answer of one token.

Run it in two trees in turn to compare them: ``python -m bench.provider_reads [--tls]``.
"""

import argparse
import asyncio
import os
import time
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx2
import uvloop

from bench import pace
from bench.certificate import make_certificate
from bench.children import ProviderProcess
from shared.configuration.configuration import load_configuration
from shared.schemas import ChatRequest
from shared.settings import Settings
from workers.providers.base import Delta, Provider
from workers.providers.endpoint import endpoints_of
from workers.providers.registry import provider_of

_STREAMS, _RATE, _ANSWERS = 100, 30, 300


class Counter:
    """Sink that counts deltas. ``is_open``: from the first read on."""

    def __init__(self) -> None:
        self.is_open = False
        self.tokens = self.reads = 0

    def take(self, deltas: list[Delta]) -> None:
        self.tokens += len(deltas)
        self.reads += 1


async def read(provider: Provider, model: str, counter: Counter) -> None:
    request = ChatRequest.model_validate({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
    async with aclosing(provider.stream(request, None, counter)) as answer:
        async for part in answer:
            if isinstance(part, list):
                counter.take(part)
                counter.is_open = True


async def read_cost(provider: Provider, seconds: float) -> str:
    """Return the CPU of a read and of a token, in the middle of the streams. A late read brings several tokens."""
    counters = [Counter() for _ in range(_STREAMS)]
    model = pace.paced(_RATE, round(_RATE * (seconds + 2)))
    async with asyncio.TaskGroup() as group:
        for counter in counters:
            group.create_task(read(provider, model, counter))
            await asyncio.sleep(1 / _STREAMS)  # so that their tokens do not come together
        before, cpu = totals(counters), time.process_time()
        await asyncio.sleep(seconds)
        after, cpu = totals(counters), time.process_time() - cpu
    tokens, reads = (one - other for one, other in zip(after, before, strict=True))
    return f"read {cpu / reads * 1e6:.1f} us  token {cpu / tokens * 1e6:.1f} us ({tokens / reads:.2f} a read)"


def totals(counters: list[Counter]) -> tuple[int, int]:
    return sum(counter.tokens for counter in counters), sum(counter.reads for counter in counters)


async def answer_us(provider: Provider) -> float:
    """Return the CPU of an answer of one token, one after another."""
    model = pace.flood(1, 1)
    await read(provider, model, Counter())
    cpu = time.process_time()
    for _ in range(_ANSWERS):
        await read(provider, model, Counter())
    return (time.process_time() - cpu) / _ANSWERS * 1e6


async def with_tls(url: str, folder: Path) -> str:
    """Return the URL of the same provider over TLS, with a certificate that this process trusts from now on."""
    certificate, key = await asyncio.to_thread(make_certificate, folder)
    os.environ["SSL_CERT_FILE"] = str(certificate)
    root = urlsplit(url)
    async with httpx2.AsyncClient(trust_env=False) as http:
        files = {"certificate": str(certificate), "key": str(key)}
        answer = await http.post(f"{root.scheme}://{root.netloc}/tls", json=files)
    return f"https://127.0.0.1:{answer.raise_for_status().json()['port']}{root.path}"


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--tls", action="store_true")
    arguments = parser.parse_args()
    server = ProviderProcess()
    await server.start()
    try:
        with TemporaryDirectory() as folder:
            url = await with_tls(server.url, Path(folder)) if arguments.tls else server.url
            settings = Settings.model_validate({"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"})
            endpoints, _ = endpoints_of(load_configuration(settings))
            provider = provider_of(endpoints["openai"])
            print(await read_cost(provider, arguments.seconds), f" answer {await answer_us(provider):.0f} us")
            await provider.aclose()
    finally:
        await server.stop()


if __name__ == "__main__":
    uvloop.run(main())
