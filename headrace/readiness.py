"""Asks the gateways over loopback whether they can serve, and Redis what workers offer."""

import asyncio
import ipaddress
from collections.abc import Iterable
from contextlib import aclosing

import httpx2

from headrace.console import Console
from shared.broker.catalog import read_catalog
from shared.broker.client import Client, connect
from shared.errors import BrokerUnavailable

SAY_SO_AFTER_S = 60.0
POLL_S = 0.1


async def wait_ready(host: str, ports: Iterable[int], redis_url: str, console: Console) -> None:
    """Until every gateway's ``/readyz`` answers 200 and a model is offered. What is still missing after
    :data:`SAY_SO_AFTER_S` is told, once; the wait goes on, since the supervisor goes on trying too."""
    bases = [f"http://{_reachable(host)}:{port}" for port in ports]
    loop = asyncio.get_running_loop()
    deadline: float | None = loop.time() + SAY_SO_AFTER_S
    broker = connect(redis_url)
    async with httpx2.AsyncClient(trust_env=False, timeout=2) as client, aclosing(broker):
        while missing := await _missing(client, broker, bases):
            if deadline is not None and loop.time() > deadline:
                console.note(f"not ready after {SAY_SO_AFTER_S:.0f} s: {'; '.join(missing)}")
                deadline = None
            await asyncio.sleep(POLL_S)


def for_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _reachable(host: str) -> str:
    """A wildcard address is for listening; it is reached over loopback."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return for_url(host)


async def _missing(client: httpx2.AsyncClient, broker: Client, bases: list[str]) -> list[str]:
    """What is not ready, in words; models are asked for when the gateways are there."""
    answers = await asyncio.gather(*(_problem(client, base) for base in bases))
    missing = [f"{base} {problem}" for base, problem in zip(bases, answers, strict=True) if problem]
    if not missing and not await _is_something_offered(broker):
        missing = ["no worker offers a model"]
    return missing


async def _problem(client: httpx2.AsyncClient, base: str) -> str | None:
    try:
        answer = await client.get(f"{base}/readyz")
    except httpx2.HTTPError:
        return "does not answer"
    return None if answer.status_code == 200 else f"says {answer.status_code} {answer.text[:200]}".strip()


async def _is_something_offered(broker: Client) -> bool:
    """Redis is asked: a gateway with ``HEADRACE_AUTH`` tells only those who show who they are."""
    try:
        catalog = await read_catalog(broker)
    except BrokerUnavailable:
        return False
    return any(shelf.open or shelf.models for shelf in catalog.values())
