"""The end of a process's tasks."""

import asyncio
from collections.abc import Collection
from typing import Any, Final

_PATIENCE_S: Final = 0.2


async def cancel_all(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Returns when all have ended; what they raised is theirs.

    Again and again: ``asyncio.wait_for`` of Python 3.11, through which redis-py sends, swallows a cancellation that
    comes in the moment in which what it waits for ends. The task then goes on.
    """
    pending: Collection[asyncio.Task[Any]] = [task for task in tasks if not task.done()]
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_PATIENCE_S)
