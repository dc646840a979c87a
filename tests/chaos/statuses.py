"""Samples of every stream's status, each change of which must be in the table of transitions."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

from shared.broker.client import connect, run_commands
from shared.broker.keys import state_key
from shared.broker.pipeline_connection import Command
from shared.errors import BrokerUnavailable
from shared.protocol.lifecycle import Status, is_reachable
from tests.chaos.rig import Rig

_SAMPLE_EVERY_S = 0.1
_SLACK_S = 1.0


class Statuses:
    """Statuses of all streams. ``changes``: status before → after, counted. ``complaints``: changes that no steps
    explain."""

    def __init__(self, rig: Rig) -> None:
        self._client = connect(rig.redis_url, timeout_s=1)
        self._history = rig.history
        self._latest: dict[str, tuple[Status | None, float]] = {}
        self.changes: Counter[str] = Counter()
        self.complaints: list[str] = []

    async def sample(self, stream_ids: Iterable[str]) -> None:
        """Compare the status of each stream with the sample before. A Redis that does not answer is no sample."""
        commands: dict[str, Command] = {each: ("HGET", state_key(each), "status") for each in stream_ids}
        with suppress(BrokerUnavailable):
            for stream_id, raw in zip(commands, await run_commands(self._client, [*commands.values()]), strict=True):
                self._compare(stream_id, None if raw is None else Status(raw.decode()), time.monotonic())
        await asyncio.sleep(_SAMPLE_EVERY_S)

    async def aclose(self) -> None:
        await self._client.aclose()

    def _compare(self, stream_id: str, status: Status | None, now: float) -> None:
        before, since = self._latest.get(stream_id, (status, now))
        self._latest[stream_id] = status, now
        if status == before:
            return
        self.changes[f"{before or 'none'} → {status or 'none'}"] += 1
        lost = self._history.losses_between(since - _SLACK_S, now + _SLACK_S)
        if not lost and not is_reachable(before, status):
            self.complaints.append(f"{stream_id} went from {before or 'none'} to {status or 'none'}")
