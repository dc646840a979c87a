"""The system under test, with a proxy on every connection, and a provider that recognises each worker."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

from shared.settings import Settings
from tests.archive_databases import PostgresServer, SqliteFile
from tests.chaos.history import History, ProviderCall, Span
from tests.chaos.plans import STORING, StreamPlan
from tests.chaos.proxy import Proxy
from tests.fakes.answer import Answer, Call
from tests.fakes.provider_server import FakeProvider
from tests.fakes.stored_answers import Get, StoredAnswer
from tests.ports import free_port
from tests.system import PROVIDERS, REPOSITORY, Process, System
from tests.webhook_receiver import SECRET, WebhookReceiver

GATEWAYS = WORKERS = 2
LEASE_S = 2.0
#: More than the system may take with everything that can happen to one stream.
BOUND_S = 120.0
DRAIN_S = 3
SETTINGS: dict[str, Any] = {
    "lease_s": LEASE_S,
    "reader_lease_s": 2,
    "cap": 64,
    "window": 32,
    "max_event_bytes": 256,  # small events, so that trims and full windows occur
    "heartbeat_s": 2,
    "retry_ms": 100,
    "write_deadline_s": 5,
    "first_token_timeout_s": 4,
    "provider_retries": 0,  # so that a second call means that a worker was lost
    "breaker_failures": 1000,
    "provider_streams": '{"openai": 1000}',  # out of the way, so that every stream holds a slot
    "between_tokens_timeout_s": 4,
    "drain_s": DRAIN_S,
    "webhook_secret": SECRET,
    "webhook_payload": "full",
    "webhook_timeout_s": 2,
}
_KEY = "chaos-worker-"
_CONFIGURATION = """
[providers.{name}]
kind = "openai-responses"
base_url = "http://127.0.0.1:{port}/v1"
api_keys = ["env:STORING_KEY"]
background = true
concurrent_streams = 1000
headers = {{ "x-worker" = "{worker}" }}
"""
_BEAT_S = 0.05
_LAG_S = LEASE_S / 4


class ChaosProvider(FakeProvider):
    """A provider that notes its calls in the history."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self.models = ()
        self._history = history
        self._plans: dict[str, StreamPlan] = {}
        self._watching: set[asyncio.Task[None]] = set()
        self._stored.on_read = self._answer_is_read

    def expect(self, plan: StreamPlan) -> None:
        self._plans[plan.model] = plan
        self.play(plan.model, plan.answer())

    def _answer_for(self, call: Call) -> Answer:
        answer, plan = super()._answer_for(call), self._plans.get(call.model)
        if plan is None:
            return answer
        self._note(call, plan, self._history.calls)
        if answer.gate is not None:
            until_gate_s = answer.gate_after * answer.delay_s
            asyncio.get_running_loop().call_later(until_gate_s + plan.stall_s, answer.gate.set)
        return answer

    def _answer_is_read(self, get: Get, stored: StoredAnswer) -> None:
        self._note(get.call, self._plans[stored.call.model], self._history.reads)

    def _note(self, call: Call, plan: StreamPlan, noted_in: dict[int, list[ProviderCall]]) -> None:
        worker = int(call.headers.get("x-worker") or call.headers["authorization"].rpartition(_KEY)[2])
        noted = ProviderCall(call.number, plan.number, worker, time.monotonic())
        noted_in.setdefault(plan.number, []).append(noted)
        task = asyncio.create_task(self._note_end(call, noted))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _note_end(self, call: Call, noted: ProviderCall) -> None:
        await call.closed.wait()
        noted.end = time.monotonic()


class Rig(System):
    """Clients reach gateway i by ``clients[i]``, gateways the broker by ``gateway_links[i]``, and so on.
    ``previous``: source tree of the previous release; each start of a process then takes the other of both trees."""

    def __init__(
        self, folder: Path, *, on_postgres: bool = False, previous: Path | None = None, **settings: object
    ) -> None:
        self._previous = previous
        providers = (*PROVIDERS, STORING)
        self.database = PostgresServer(folder) if on_postgres else SqliteFile(folder)
        merged = {**SETTINGS, "archive_url": self.database.url, **settings}
        super().__init__(folder, gateways=GATEWAYS, workers=WORKERS, providers=providers, **merged)
        self.history = History()
        self.fake: ChaosProvider = ChaosProvider(self.history)
        self.clients = [Proxy() for _ in range(GATEWAYS)]
        self.gateway_links = [Proxy() for _ in range(GATEWAYS)]
        self.worker_links = [Proxy() for _ in range(WORKERS)]
        self.provider_links = [Proxy() for _ in range(WORKERS)]
        #: Number of connections that read a stream, by gateway.
        self.reading: Counter[int] = Counter()
        #: Processes that a fault has stopped.
        self.struck: Counter[str] = Counter()
        #: Complaints that do not come from readers.
        self.complaints: list[str] = []
        self.metrics_ports = [free_port() for _ in range(WORKERS)] if "metrics_port" in Settings.model_fields else []
        self.receiver = WebhookReceiver()
        self._beat = asyncio.create_task(self._measure_own_lag())

    def broker_ports(self, gateway: int) -> Collection[int]:
        """Return the ports at which a gateway reaches the broker and the archive."""
        return {self.gateway_links[gateway].port, self.database.port}

    async def count(self, key: str, least: int) -> int:
        """Return the number of members of a sorted set with at least this score."""
        async with self.broker.client() as client:
            return int(await client.zcount(key, least, "+inf"))

    @property
    def processes(self) -> list[Process]:
        return [*self.gateways, *self.workers]

    @property
    def proxies(self) -> list[Proxy]:
        return [*self.clients, *self.gateway_links, *self.worker_links, *self.provider_links]

    async def start(self) -> None:
        for proxy in self.proxies:
            await proxy.start()
        for proxy in (*self.gateway_links, *self.worker_links):
            proxy.target_port = self.broker.port
        await self.receiver.start()
        await self.database.start()
        await self.fake.start()  # `System.start` starts it again, on the port it has by then
        for proxy in self.provider_links:
            proxy.target_port = int(self.fake.ollama_host.rpartition(":")[2])
        await self.fake.stop()
        await super().start()
        for proxy, gateway in zip(self.clients, self.gateways, strict=True):
            proxy.target_port = gateway.port

    async def stop(self) -> None:
        self._beat.cancel()
        await super().stop()
        await self.receiver.stop()
        await self.database.stop()
        for proxy in self.proxies:
            await proxy.stop()

    def address(self, gateway: int) -> str:
        """Return the address at which clients reach a gateway."""
        return f"http://127.0.0.1:{self.clients[gateway].port}"

    @contextmanager
    def a_reader_on(self, gateway: int) -> Iterator[None]:
        self.reading[gateway] += 1
        try:
            yield
        finally:
            self.reading[gateway] -= 1

    def _trees(self, name: str) -> Iterator[Path]:
        if self._previous is None:
            return super()._trees(name)
        trees = (REPOSITORY, self._previous)
        return cycle(trees if name in ("gateway.1", "worker.2") else reversed(trees))

    def _environment(self, name: str) -> dict[str, str]:
        environment = super()._environment(name)
        kind, _, number = name.partition(".")
        i = int(number) - 1
        link = (self.gateway_links if kind == "gateway" else self.worker_links)[i]
        environment["HEADRACE_WEBHOOK_URL"] = self.receiver.url
        environment["HEADRACE_REDIS_URL"] = f"redis://127.0.0.1:{link.port}/0"
        if kind == "worker":
            environment["OPENAI_API_KEY"] = f"{_KEY}{i}"
            environment["OPENAI_BASE_URL"] = f"http://127.0.0.1:{self.provider_links[i].port}/v1"
            environment["STORING_KEY"] = "chaos-storing"
            if self.metrics_ports:
                environment["HEADRACE_METRICS_PORT"] = str(self.metrics_ports[i])
        # Each process has a file of its own, since each worker has a proxy of its own.
        file = self.folder / f"headrace-{name}.toml"
        port = self.provider_links[min(i, WORKERS - 1)].port
        file.write_text(_CONFIGURATION.format(name=STORING, port=port, worker=i))
        return environment | {"HEADRACE_CONFIG": str(file)}

    async def _measure_own_lag(self) -> None:
        """Run until cancelled: note the times in which this process stood still, or got less than half of its time
        within a lease. A machine that is so busy keeps the workers from renewing theirs."""
        late: deque[tuple[float, float]] = deque()
        while True:
            before = time.monotonic()
            await asyncio.sleep(_BEAT_S)
            now = time.monotonic()
            late.append((now, now - before - _BEAT_S))
            while late[0][0] < now - LEASE_S:
                late.popleft()
            if now - before > _LAG_S:
                self.history.lags.append(Span(before, now))
            elif sum(late_s for _, late_s in late) > LEASE_S / 2:
                self.history.lags.append(Span(now - LEASE_S, now))
