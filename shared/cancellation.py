"""Cancellation of a process's tasks."""

import asyncio
from collections.abc import Collection
from typing import Any, Final

_RETRY_S: Final = 0.2


async def cancel_all(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and wait until all have ended. Their exceptions are ignored.

    A task is cancelled repeatedly: ``asyncio.wait_for`` of Python 3.11, which redis-py uses to send, swallows a
    cancellation that arrives just as its awaitable ends, and the task continues.
    """
    pending: Collection[asyncio.Task[Any]] = [task for task in tasks if not task.done()]
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_RETRY_S)
