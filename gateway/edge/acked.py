"""Checks whether the peer has ACKed everything we wrote.

A successful write proves nothing: the kernel accepts bytes for a peer that is long gone.
"""

import asyncio
import fcntl
import struct
import termios
from typing import Final

from starlette.types import Scope

#: Key of the transport in a request's scope.
TRANSPORT: Final = "headrace.transport"
_POLL_EVERY_S: Final = 0.02
_TIMEOUT_S: Final = 2.0


async def was_acked(scope: Scope) -> bool:
    """Wait up to two seconds until the peer has ACKed everything; return False if it has not. A proxy in between ACKs
    for itself."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _TIMEOUT_S
    while _unacked_bytes(scope[TRANSPORT]):
        if loop.time() > until:
            return False
        await asyncio.sleep(_POLL_EVERY_S)
    return True


def _unacked_bytes(transport: asyncio.Transport) -> int:
    """Return the number of bytes written and not yet ACKed, as far as the system reports it."""
    socket = transport.get_extra_info("socket")
    if transport.is_closing() or socket is None:
        return 1
    try:
        (in_kernel,) = struct.unpack("i", fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4)))
    except OSError:
        in_kernel = 0
    return transport.get_write_buffer_size() + int(in_kernel)
