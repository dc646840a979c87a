"""Readiness of ``headrace up``: polls the gateways, and Redis for the models of the workers."""

import asyncio
import ipaddress
from collections.abc import Iterable
from contextlib import aclosing

import httpx2

from headrace.console import Console
from shared.broker.catalog import read_catalog
from shared.broker.client import Client, connect
from shared.errors import BrokerUnavailable

REPORT_AFTER_S = 60.0
POLL_S = 0.1


async def wait_ready(host: str, ports: Iterable[int], redis_url: str, console: Console) -> None:
    """Wait until every gateway's ``/readyz`` returns 200 and a model is available.

    After :data:`REPORT_AFTER_S` the missing parts are reported once. The wait continues, because the supervisor also
    continues to restart them.
    """
    bases = [f"http://{_reachable(host)}:{port}" for port in ports]
    loop = asyncio.get_running_loop()
    deadline: float | None = loop.time() + REPORT_AFTER_S
    broker = connect(redis_url)
    async with httpx2.AsyncClient(trust_env=False, timeout=2) as client, aclosing(broker):
        while missing := await _missing(client, broker, bases):
            if deadline is not None and loop.time() > deadline:
                console.note(f"not ready after {REPORT_AFTER_S:.0f} s: {'; '.join(missing)}")
                deadline = None
            await asyncio.sleep(POLL_S)


def for_url(host: str) -> str:
    """Return the host for use in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _reachable(host: str) -> str:
    """Return the host for a URL; loopback for a wildcard address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return for_url(host)


async def _missing(client: httpx2.AsyncClient, broker: Client, bases: list[str]) -> list[str]:
    """List the parts that are not ready; models are checked once the gateways are ready."""
    answers = await asyncio.gather(*(_problem(client, base) for base in bases))
    missing = [f"{base}: {problem}" for base, problem in zip(bases, answers, strict=True) if problem]
    if not missing and not await _has_model(broker):
        missing = ["no worker has a model"]
    return missing


async def _problem(client: httpx2.AsyncClient, base: str) -> str | None:
    try:
        answer = await client.get(f"{base}/readyz")
    except httpx2.HTTPError:
        return "no response"
    return None if answer.status_code == 200 else f"HTTP {answer.status_code} {answer.text[:200]}".strip()


async def _has_model(broker: Client) -> bool:
    """Look in Redis, because a gateway with ``HEADRACE_AUTH`` lists models only for authenticated callers."""
    try:
        catalog = await read_catalog(broker)
    except BrokerUnavailable:
        return False
    return any(provider.open or provider.models for provider in catalog.values())
