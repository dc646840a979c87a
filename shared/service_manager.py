"""Notifications to the service manager that started this process: systemd with ``Type=notify``, or one like it.

``NOTIFY_SOCKET`` names a datagram socket and ``WATCHDOG_USEC`` the longest time between two signs of life
(sd_notify(3)). Without the first, nothing is sent.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Final

from shared.polling import next_poll

#: Of the service manager. Children must not get them: they would speak for the process that it watches.
VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
_ALIVE: Final = "WATCHDOG=1"


def notify(*states: str) -> None:
    """Send states, such as ``READY=1`` or ``STATUS=…``. A socket that nobody reads is ignored: a service manager that
    is gone must not stop the service."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
        sender.setblocking(False)  # a full socket must not stop the event loop
        sender.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
        sender.send("\n".join(states).encode())


@contextlib.asynccontextmanager
async def signs_of_life() -> AsyncIterator[None]:
    """Send signs of life from the event loop, if the service manager wants them: a process whose loop hangs is then
    restarted."""
    interval_s = _watchdog_s() / 3
    sending = asyncio.create_task(_send_each(interval_s)) if interval_s else None
    try:
        yield
    finally:
        if sending is not None:
            sending.cancel()


async def _send_each(interval_s: float) -> None:
    while True:
        notify(_ALIVE)
        await next_poll(interval_s)


def _watchdog_s() -> float:
    """Return the longest time between two signs of life; 0 if this process owes none."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    return int(microseconds) / 1e6
