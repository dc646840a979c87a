"""Readiness of ``headrace up``: polls the gateways. Each is ready once its worker has published its models."""

import asyncio
import ipaddress
from collections.abc import Iterable

import httpx2

from headrace.console import Console

REPORT_AFTER_S = 60.0
POLL_S = 0.1


async def wait_ready(host: str, ports: Iterable[int], console: Console) -> None:
    """Wait until every gateway's ``/readyz`` returns 200, and says that it accepts requests: the models of an earlier
    run are known before a worker has published those of this one.

    After :data:`REPORT_AFTER_S` the missing parts are reported once. The wait continues, because the supervisor also
    continues to restart them.
    """
    bases = [f"http://{_reachable(host)}:{port}" for port in ports]
    loop = asyncio.get_running_loop()
    deadline: float | None = loop.time() + REPORT_AFTER_S
    async with httpx2.AsyncClient(trust_env=False, timeout=2) as client:
        while missing := await _missing(client, bases):
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


async def _missing(client: httpx2.AsyncClient, bases: list[str]) -> list[str]:
    """List the gateways that are not ready, with the reasons."""
    answers = await asyncio.gather(*(_problem(client, base) for base in bases))
    return [f"{base}: {problem}" for base, problem in zip(bases, answers, strict=True) if problem]


async def _problem(client: httpx2.AsyncClient, base: str) -> str | None:
    try:
        answer = await client.get(f"{base}/readyz")
    except httpx2.HTTPError:
        return "no response"
    if answer.status_code != 200:
        return f"HTTP {answer.status_code} {answer.text[:200]}".strip()
    return None if answer.json().get("accepting") else "no worker accepts requests yet"
