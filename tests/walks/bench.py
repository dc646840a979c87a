"""Parts that all walks share: a broker, a loop with a movable clock, and connections that check transitions."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final, TypeVar

from shared.broker import declarations
from shared.broker.client import Client
from shared.broker.declarations import Script
from shared.broker.keys import gateway_channel
from shared.broker.pipeline_connection import Command, PipelineConnection
from shared.budgets import SERVER, Budget, Budgets, Reservation
from shared.configuration.entries import PriceEntry
from shared.protocol.lifecycle import Status, is_allowed
from shared.rate_limits import Demand, Limits, account_of
from shared.settings import Settings
from tests.broker import Broker
from tests.broker_cluster import Cluster
from tests.scripts.stream import ON_CLUSTER, ROUTE

T = TypeVar("T")
#: What the stream of a walk reserves in the budgets of its key and of the server.
RESERVED_NANOS: Final = 900
_WHOLE: Final = Budget(RESERVED_NANOS, 7, "USD")
RESERVATIONS: Final = tuple(
    Reservation(account, 7, RESERVED_NANOS, Budgets(_WHOLE, _WHOLE)) for account in ("a" * 12, SERVER)
)
DEMAND: Final = Demand(account_of("p"), Limits(concurrent_streams=5), 7, RESERVATIONS)
#: The price of each attempt's target.
PRICE: Final = PriceEntry(currency="USD", as_of=date(2026, 11, 1), input=1, output=2)

SOAK: Final = int(os.environ.get("HEADRACE_MODEL_EXAMPLES", "0"))
MUTATIONS: Final = bool(os.environ.get("HEADRACE_MODEL_MUTATIONS"))
EXAMPLES: Final = SOAK or (100 if ON_CLUSTER else 400)  # the rules are the same on a cluster of one node
#: Tests that share the walks: each meets every transition.
PARTS: Final = 1 if ON_CLUSTER else 4
STEPS: Final = 40

#: Smaller than the settings allow, so that short walks meet trims, full windows and page ends.
CAP: Final = 4
TIGHT: Final = Settings.model_construct(
    cap=CAP,
    window=3,
    lease_s=600.0,
    reader_lease_s=600.0,
    max_attempts=3,
    max_event_bytes=4096,
    max_tick_s=0.0,
    retention_min_s=0.0,
)
#: Virtual seconds after which a reader's stream counts as lost: more than a machine stands still, because the clock
#: goes on meanwhile.
LOST_AFTER_S: Final = 20.0
LONGEST_ANSWER: Final = 8
#: Of calls to Redis: a machine that stands still for some seconds ends no walk.
_TIMEOUT_S: Final = 60
STATE, LOG, TAIL, READERS, INDEX, TOMBSTONE, PULSE, REQUEST, ANSWERS, IDEMPOTENCY = range(10)
DIGEST: Final = "ab" * 32
#: Time by which Redis' clock advances whenever Redis loses something, in ms since the stream's creation.
AGE_MS: Final = 1_000_000

GATEWAYS: Final = ("g0", "g1")
_CHANNELS: Final = [gateway_channel(name, ROUTE).encode() for name in GATEWAYS]
#: Two providers with a limit, and a target whose streams are only counted.
LANES: Final = ("one", "two", "two/m")
FATE: Final = ("answered", "answered", "answered", "reply lost", "request lost", "delayed", "doubled")
PICK: Final = (0, 1)
MOSTLY: Final = (True, True, True, False)


class MovableClock(asyncio.SelectorEventLoop):
    """A loop with a clock that the test advances."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


Transition = tuple[str, Status | None, Status | None]


class Observer:
    """Compares each run of a script of one stream with the table of transitions."""

    def __init__(self) -> None:
        self.seen: set[Transition] = set()

    async def exchange(
        self, exchange: Callable[[Sequence[Command]], Awaitable[list[Any]]], commands: Sequence[Command]
    ) -> list[Any]:
        """Send the commands, each script between two looks at the status."""
        names = {script.sha: script.name for script in vars(declarations).values() if isinstance(script, Script)}
        wrapped: list[Command] = []
        for command in commands:
            looks: list[Command] = [("HGET", state, "status") for state in _states_of(command)]
            wrapped += [*looks, command, *looks]
        replies, kept = iter(await exchange(wrapped)), []
        for command in commands:
            states = _states_of(command)
            before = [next(replies) for _ in states]
            kept.append(next(replies))
            after = [next(replies) for _ in states]
            for statuses in zip(before, after, strict=True):
                if not any(isinstance(status, Exception) for status in statuses):  # the key of a broken neighbour
                    self._check(names[str(command[1])], *statuses)
        return kept

    def _check(self, script: str, *raw: bytes | None) -> None:
        before, after = (None if status is None else Status(status.decode()) for status in raw)
        assert is_allowed(script, before, after), f"{script} took a stream from {before} to {after}"
        self.seen.add((script, before, after))


def _states_of(command: Command) -> list[str]:
    """Return the keys of the states of the streams that a script is about."""
    if command[0] != "EVALSHA":
        return []
    return [key for key in map(str, command[3 : 3 + int(command[2])]) if key.endswith(":state")]


class ObservedClient(Client):
    def __init__(self, url: str, observer: Observer) -> None:
        super().__init__(url, timeout_s=_TIMEOUT_S, connections=32, serves=False)
        self._observer = observer

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        return await self._observer.exchange(super().exchange, commands)


class ObservedConnection(PipelineConnection):
    def __init__(self, url: str, observer: Observer) -> None:
        super().__init__(url, timeout_s=_TIMEOUT_S)
        self._observer = observer

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        return await self._observer.exchange(super().exchange, commands)


class Bench:
    """Shared parts of all walks: a broker of their own, a loop, connections."""

    def __init__(self, folder: Path) -> None:
        self.loop = MovableClock()
        self.cluster = Cluster(folder, masters=1) if ON_CLUSTER else None
        if self.cluster is None:
            self.broker = Broker(folder)
            self.run(self.broker.start())
        else:
            self.run(self.cluster.start())
            self.broker = self.cluster.nodes[0]
        self.observer = Observer()
        self.client = ObservedClient(self.broker.url, self.observer)
        self.line = ObservedConnection(self.broker.url, self.observer)
        self.run_id: str = self.run(self.client.info("server"))["run_id"]
        self.mail = self.client.pubsub()
        for gateway in GATEWAYS:
            self.run(self.mail.execute_command("SSUBSCRIBE", gateway_channel(gateway, ROUTE)))
        self.numbers = itertools.count(1)

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(work)

    async def delivered(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield all messages to gateways so far, each with the gateway's number."""
        await self.client.execute_command("SPUBLISH", gateway_channel(GATEWAYS[0], ROUTE), "")  # type: ignore[no-untyped-call]
        while True:
            message = await self.mail.get_message(timeout=5)
            is_mail = message is not None and message["type"] == "smessage"
            if is_mail and not message["data"]:
                return
            if is_mail:
                yield _CHANNELS.index(message["channel"]), message["data"]

    def close(self) -> None:
        self.run(self.mail.aclose())  # type: ignore[no-untyped-call]
        self.run(self.client.aclose())
        self.run(self.line.aclose())
        if self.cluster is None:
            self.broker.kill()
        else:
            self.run(self.cluster.stop())
        self.loop.close()
