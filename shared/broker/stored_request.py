"""Large requests, which are stored and read in pieces: Redis would serve no other client during one whole call.

A sealed request is cut after sealing. :meth:`StreamScripts.split_request` makes the calls that store the pieces.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from shared.broker.client import Client, run_commands
from shared.broker.keys import request_key, state_key
from shared.broker.pipeline_connection import Command
from shared.broker.sealing import Sealing

#: Largest request within the fields of a state, and size of a piece. bench/NOTES.md has the time that Redis takes.
PIECE_BYTES: Final = 256 * 1024


def pieces_of(request: bytes) -> Iterator[bytes]:
    for start in range(0, len(request), PIECE_BYTES):
        yield request[start : start + PIECE_BYTES]


async def request_sizes(client: Client, stream_ids: Sequence[str]) -> dict[str, int | None]:
    """Return the size of each stream's request, as it is stored; None without a state. Raises
    :class:`BrokerUnavailable`."""
    if not stream_ids:
        return {}
    commands: list[Command] = []
    for key in map(state_key, stream_ids):
        commands += [("HMGET", key, "status", "request_bytes"), ("HSTRLEN", key, "request")]
    replies = await run_commands(client, commands)
    return {
        stream_id: None if status is None else int(pieces or 0) + inline
        for stream_id, (status, pieces), inline in zip(stream_ids, replies[::2], replies[1::2], strict=True)
    }


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
