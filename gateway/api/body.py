"""Reads a request body within the limits of size, time and memory."""

import asyncio

from fastapi import HTTPException, Request

from gateway.auth.principal import ANONYMOUS, Principal
from gateway.intake.body_memory import BodyShare
from gateway.state import GatewayState
from shared.errors import BodyTooLarge


async def read_body(request: Request, caller: Principal, most_bytes: int) -> bytes:
    """Read the body when there is memory for it, of which each principal has a share. Raises :class:`BodyTooLarge` as
    early as possible, :class:`Overloaded`, and 408 if the body does not arrive in time."""
    declared = _declared_bytes(request)
    gateway: GatewayState = request.app.state.gateway
    if declared is not None and declared > most_bytes:
        raise _too_large(gateway, f"has {declared} bytes; the limit is {most_bytes}", most_bytes)
    share = gateway.body_memory.begin(None if caller is ANONYMOUS else caller.id)
    await share.take(gateway.body_memory.small_body_bytes if declared is None else declared)
    body = await _read(request, gateway, share, most_bytes)
    share.shrink(len(body))
    share.size = len(body)
    return body


async def _read(request: Request, gateway: GatewayState, share: BodyShare, most_bytes: int) -> bytes:
    deadline_s = gateway.settings.request_deadline_s
    is_declared = _declared_bytes(request) is not None
    body = bytearray()
    try:
        async with asyncio.timeout(deadline_s) as deadline:
            async for piece in request.stream():
                body += piece
                if len(body) > most_bytes:
                    raise _too_large(gateway, f"has more than {most_bytes} bytes", most_bytes)
                if not is_declared and len(body) > gateway.body_memory.small_body_bytes:
                    deadline.reschedule(None)  # the wait for memory has a limit of its own
                    await share.take(most_bytes)
                    deadline.reschedule(asyncio.get_running_loop().time() + deadline_s)
                    is_declared = True
    except TimeoutError:
        raise HTTPException(408, f"body: not received within {deadline_s:g} s") from None
    return bytes(body)


def _declared_bytes(request: Request) -> int | None:
    """Return the size of the body; None if it is sent in chunks."""
    if "transfer-encoding" in request.headers:
        return None
    declared = request.headers.get("content-length", "0")
    return int(declared) if declared.isdecimal() else None


def _too_large(gateway: GatewayState, problem: str, most_bytes: int) -> BodyTooLarge:
    is_setting = most_bytes == gateway.settings.max_body_bytes
    detail = f"HEADRACE_MAX_BODY_BYTES is {most_bytes}; raise it, and the limit of a reverse proxy before the gateway"
    return BodyTooLarge(f"body: {problem}; send a smaller request", detail=detail if is_setting else None)
