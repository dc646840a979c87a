"""Reads a request body within the limits of size and time."""

import asyncio

from fastapi import HTTPException, Request

from gateway.state import GatewayState
from shared.errors import BodyTooLarge


async def read_body(request: Request, most_bytes: int) -> bytes:
    """Read the body. Raises :class:`BodyTooLarge` as early as possible, and 408 if the body does not arrive in
    time."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise BodyTooLarge(f"body: has {int(declared)} bytes; the limit is {most_bytes}")
    gateway: GatewayState = request.app.state.gateway
    try:
        async with asyncio.timeout(gateway.settings.request_deadline_s):
            return await _read(request, most_bytes)
    except TimeoutError:
        raise HTTPException(408, f"body: not received within {gateway.settings.request_deadline_s:g} s") from None


async def _read(request: Request, most_bytes: int) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most_bytes:
            raise BodyTooLarge(f"body: has more than {most_bytes} bytes")
    return bytes(body)
