"""Large requests, which are stored and read in pieces: Redis would serve no other client during one whole call.

A sealed request is cut after sealing. :meth:`StreamScripts.split_request` makes the calls that store the pieces.
"""

import asyncio
from collections.abc import Iterator
from typing import Final

from shared.broker.client import Client, run_commands
from shared.broker.keys import request_key
from shared.broker.sealing import Sealing

#: Largest request within the fields of a state, and size of a piece. bench/NOTES.md has the time that Redis takes.
PIECE_BYTES: Final = 256 * 1024


def pieces_of(request: bytes) -> Iterator[bytes]:
    for start in range(0, len(request), PIECE_BYTES):
        yield request[start : start + PIECE_BYTES]


async def read_request(client: Client, sealing: Sealing, stream_id: str, size: int) -> bytes | None:
    """Read a request of ``size`` bytes, the ``request_bytes`` of its state. None if the stream has ended meanwhile.
    Raises :class:`BrokerUnavailable` and :class:`ContentUnreadable`."""
    pieces: list[bytes] = []
    left = size
    while left > 0:
        (piece,) = await run_commands(client, [("HGET", request_key(stream_id), len(pieces))])
        if piece is None:
            return None
        pieces.append(piece)
        left -= len(piece)
    return await asyncio.to_thread(lambda: sealing.open(stream_id, b"".join(pieces)))
