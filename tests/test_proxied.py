"""Forwarded headers are believed from trusted proxies only."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from gateway.main import server_config
from shared.environment import load_settings
from shared.settings import Settings, SettingsError

FORWARDED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}


async def mirror(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the client that an application behind the gateway's server sees."""
    if scope["type"] == "lifespan":
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})
        return
    request = Request(scope)
    assert request.client is not None
    await JSONResponse([request.client.host, request.url.scheme])(scope, receive, send)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[str]:
    """Yield the URL of :func:`mirror` on the gateway's own server."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(server_config(settings, mirror))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await task


@pytest.mark.parametrize(
    ("trusted", "headers", "seen"),
    [
        ("", FORWARDED, ["127.0.0.1", "http"]),
        ("10.0.0.0/8,192.0.2.1", FORWARDED, ["127.0.0.1", "http"]),
        ("127.0.0.1", FORWARDED, ["203.0.113.9", "https"]),
        ("10.0.0.1, 127.0.0.0/8", FORWARDED, ["203.0.113.9", "https"]),
        ("127.0.0.1", {}, ["127.0.0.1", "http"]),
        # A client may write any address in front of the one that the proxy adds.
        ("127.0.0.1", {**FORWARDED, "X-Forwarded-For": "198.51.100.7, 203.0.113.9"}, ["203.0.113.9", "https"]),
    ],
)
async def test_forwarded_headers_count_only_from_trusted_proxies(
    monkeypatch: pytest.MonkeyPatch, trusted: str, headers: dict[str, str], seen: list[str]
) -> None:
    monkeypatch.setenv("HEADRACE_TRUSTED_PROXIES", trusted)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # the server's own variable is ignored here
    async with serving(load_settings()) as url, httpx2.AsyncClient(timeout=60, trust_env=False) as http:
        assert json.loads((await http.get(url, headers=headers)).text) == seen


@pytest.mark.parametrize("trusted", ["nginx", "*", "10.0.0.1/8", "127.0.0.1,proxy.internal"])
def test_an_invalid_proxy_address_stops_the_start(monkeypatch: pytest.MonkeyPatch, trusted: str) -> None:
    monkeypatch.setenv("HEADRACE_TRUSTED_PROXIES", trusted)
    with pytest.raises(SettingsError, match=r"HEADRACE_TRUSTED_PROXIES: .*is not an address or network"):
        load_settings()
