"""Whether a client's machine has what was written to it: a socket takes words for one that is long gone."""

import asyncio
import fcntl
import struct
import termios
from typing import Final

from starlette.types import Scope

#: How a request's scope names the transport beneath it.
TRANSPORT: Final = "headrace.transport"
_LOOK_EVERY_S: Final = 0.02
_PATIENCE_S: Final = 2.0


async def was_taken(scope: Scope) -> bool:
    """All of it, within two seconds. A proxy in between answers for itself."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _PATIENCE_S
    while _untaken_bytes(scope[TRANSPORT]):
        if loop.time() > until:
            return False
        await asyncio.sleep(_LOOK_EVERY_S)
    return True


def _untaken_bytes(transport: asyncio.Transport) -> int:
    """Written and not acknowledged; as far as a system can tell that."""
    socket = transport.get_extra_info("socket")
    if transport.is_closing() or socket is None:
        return 1
    try:
        (in_kernel,) = struct.unpack("i", fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4)))
    except OSError:
        in_kernel = 0
    return transport.get_write_buffer_size() + int(in_kernel)
