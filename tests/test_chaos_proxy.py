"""The network of the chaos suite: what it breaks off ends at both ends once the fault is over."""

import asyncio
from contextlib import suppress

import pytest

from tests.chaos.proxy import Proxy


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Read to the end, which may be a reset."""
    with suppress(ConnectionResetError):
        return await reader.read()
    return b""


@pytest.mark.parametrize("piece", [b"even", b"odd"])
async def test_a_server_whose_piece_was_cut_learns_that_the_client_is_gone(piece: bytes) -> None:
    served: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Future()
    server = await asyncio.start_server(lambda *ends: served.set_result(ends), "127.0.0.1", 0)
    proxy = Proxy()
    proxy.target_port = server.sockets[0].getsockname()[1]
    await proxy.start()
    client, sender = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        async with asyncio.timeout(60):
            reader, writer = await served
            proxy.truncate()
            writer.write(piece)
            assert await rest_of(client) in {piece[: len(piece) // 2], b""}
            proxy.end_truncation()
            assert await rest_of(reader) == b""
        writer.close()
    finally:
        sender.close()
        await proxy.stop()
        server.close()
