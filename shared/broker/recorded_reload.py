"""Reloads of one process, each with an entry in the audit log."""

import asyncio
import os
import socket
from typing import Literal

from shared.broker.audit_log import Act, record
from shared.broker.client import Client
from shared.configuration.current import CurrentConfiguration


class RecordedReload:
    """Reads the file again on request or on SIGHUP, and records which configuration is in force since.

    The record follows the reload: a process must take a corrected file also while Redis is unavailable.
    """

    def __init__(
        self, client: Client, current: CurrentConfiguration, kind: Literal["gateway", "worker"], process_id: str
    ) -> None:
        self._client = client
        self._current = current
        self._origin = f"{kind} {process_id} on {socket.gethostname()}, pid {os.getpid()}"
        self._running = set[asyncio.Task[str]]()

    async def on_request(self) -> str:
        """Reload for ``headrace reload``. Return the problem, or an empty text."""
        return await self._reload("headrace reload")

    def on_hangup(self) -> None:
        """Reload for SIGHUP, in the background."""
        task = asyncio.create_task(self._reload("SIGHUP"))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _reload(self, who: str) -> str:
        before = self._current.value.hash
        problem = await self._current.reload()
        after = self._current.value.hash
        # The problem itself may quote the file: the log of the process has it.
        reason = "the file was refused; the log of the process says why" if problem else ""
        act = Act("configuration.load", who, self._origin, after, {"before": before})
        await record(self._client, act, reason)
        return problem
