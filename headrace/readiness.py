"""Asks the gateways over loopback whether they can serve."""

import asyncio
import ipaddress
from collections.abc import Iterable

import httpx2

from headrace.console import Console

SAY_SO_AFTER_S = 60.0
POLL_S = 0.1


async def wait_ready(host: str, ports: Iterable[int], console: Console) -> None:
    """Until every gateway's ``/readyz`` answers 200 and a model is offered. What is still missing after
    :data:`SAY_SO_AFTER_S` is told, once; the wait goes on, since the supervisor goes on trying too."""
    bases = [f"http://{_reachable(host)}:{port}" for port in ports]
    loop = asyncio.get_running_loop()
    deadline: float | None = loop.time() + SAY_SO_AFTER_S
    async with httpx2.AsyncClient(trust_env=False, timeout=2) as client:
        while missing := await _missing(client, bases):
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


async def _missing(client: httpx2.AsyncClient, bases: list[str]) -> list[str]:
    """What is not ready, in words; models are asked for when the gateways are there."""
    answers = await asyncio.gather(*(_problem(client, base) for base in bases))
    missing = [f"{base} {problem}" for base, problem in zip(bases, answers, strict=True) if problem]
    if not missing and not await _offers_a_model(client, bases[0]):
        missing = ["no worker offers a model"]
    return missing


async def _problem(client: httpx2.AsyncClient, base: str) -> str | None:
    try:
        answer = await client.get(f"{base}/readyz")
    except httpx2.HTTPError:
        return "does not answer"
    return None if answer.status_code == 200 else f"says {answer.status_code} {answer.text[:200]}".strip()


async def _offers_a_model(client: httpx2.AsyncClient, base: str) -> bool:
    try:
        answer = await client.get(f"{base}/v1/models")
        return answer.status_code == 200 and bool(answer.json()["data"])
    except (httpx2.HTTPError, ValueError, KeyError, TypeError):
        return False
