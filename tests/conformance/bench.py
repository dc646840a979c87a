"""The bench of a row: a system, the clients' processes, and a way to send a request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.chaos.proxy import Proxy
from tests.conformance.node import Node
from tests.conformance.outcome import Ask, Client, Outcome
from tests.fakes.answer import Answer, Call
from tests.system import System

WORDS = ("Hello", ", ", "wor", "ld", ".")
TEXT = "".join(WORDS)

#: A tail that is soon trimmed, heartbeats that are soon missed, and failures without retries.
SETTINGS: dict[str, Any] = {
    "cap": 64,
    "window": 16,
    "heartbeat_s": 0.2,
    "retry_ms": 50,
    "provider_retries": 0,
    "concurrency": 200,
}


@dataclass(slots=True, eq=False)
class Cell:
    """One client against one provider, for one row. ``has_output`` is set once the client has received output."""

    system: System
    node: Node
    client: Client
    provider: str
    name: str
    has_output: asyncio.Event = field(default_factory=asyncio.Event)

    def play(self, *answers: Answer) -> None:
        self.system.fake.play(self.name, *answers)

    @property
    def calls(self) -> list[Call]:
        return [call for call in self.system.fake.calls if call.model == self.name]

    async def call(self) -> Call:
        """Return the provider's first call."""

        async def look() -> Call | None:
            return self.calls[0] if self.calls else None

        return await self.system.eventually(look)

    def ask(self, **wanted: Any) -> Ask:
        return Ask(**{"base": self.system.url, "model": f"{self.provider}/{self.name}", **self._key(), **wanted})

    async def run(self, ask: Ask) -> Outcome:
        """Run the client to its end. A failure is part of the outcome."""
        outcome = Outcome()
        try:
            if isinstance(self.client.run, str):
                await self.node.run(self.client.run, ask, outcome, self.has_output.set)
            else:
                await self.client.run(ask, outcome, self.has_output.set)
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001  every exception of an SDK reaches its user
            outcome.error = {
                "name": type(error).__name__,
                "status": getattr(error, "status_code", None),
                "code": vars(error).get("code"),  # a deprecated property of others
                "message": str(error),
            }
        return outcome

    def _key(self) -> dict[str, str]:
        return {"key": self.name} if self.client.needs_key else {}


@asynccontextmanager
async def a_bad_network(system: System) -> AsyncIterator[tuple[Proxy, str]]:
    """Put a bad network in front of the gateway, and yield the address to use."""
    proxy = Proxy()
    proxy.target_port = urlsplit(system.url).port or 0
    await proxy.start()
    try:
        yield proxy, f"http://127.0.0.1:{proxy.port}"
    finally:
        await proxy.stop()
