"""The proxy injects its faults, and nothing else."""

import asyncio
import time

import pytest

from headrace_conformance import Fault, FaultProxy

RESPONSE = bytes(range(256)) * 400


async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\n")
    writer.write(RESPONSE)
    await writer.drain()
    writer.close()


async def received(fault: Fault, size: int = -1) -> bytes:
    """Return the response through a proxy with a fault, or its first bytes."""
    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, FaultProxy(f"http://{host}:{port}", fault) as proxy:
        there, back = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        back.write(b"request\n")
        try:
            return await (there.readexactly(size) if size >= 0 else there.read())
        finally:
            back.transport.abort()


async def test_without_a_fault_every_byte_arrives() -> None:
    assert await received(Fault()) == RESPONSE


@pytest.mark.parametrize("count", [0, 1, 70_000, len(RESPONSE)])
async def test_a_response_is_cut_after_the_given_bytes(count: int) -> None:
    assert await received(Fault(after_bytes=count)) == RESPONSE[:count]


async def test_a_reset_is_an_error_for_the_client() -> None:
    assert await received(Fault(after_bytes=100, then="reset"), 100) == RESPONSE[:100]
    with pytest.raises(ConnectionResetError):
        await received(Fault(after_bytes=100, then="reset"))


async def test_a_half_open_connection_stays_silent() -> None:
    assert await received(Fault(after_bytes=100, then="hang"), 100) == RESPONSE[:100]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await received(Fault(after_bytes=100, then="hang"))


async def test_delay_and_rate_are_lower_bounds() -> None:
    began = time.monotonic()
    await received(Fault(delay_s=0.2), 1)
    await received(Fault(bytes_per_s=1000), 300)
    assert time.monotonic() - began >= 0.5
