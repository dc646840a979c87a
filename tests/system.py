"""A whole Headrace of real processes: a broker, gateways, workers, and a fake provider."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Final, TypeVar

import httpx2

from shared.broker.keys import DATA_VERSION_KEY, state_key
from tests.broker import Broker
from tests.fakes.provider_server import FakeProvider
from tests.forked import Forked, can_fork
from tests.ports import free_port
from tests.previous_release import SOURCE_TREE, path_of, python_of
from tests.sse_client import SseConnection, open_sse

REPOSITORY = SOURCE_TREE
PROVIDERS = ("openai", "anthropic", "ollama")
SECRET = "a-secret-for-tests-only-0123456789abcdef"
_BOOT_S = 100  # many systems may start at once on a small machine
#: Longest wait for what takes milliseconds on a machine that is not busy.
PATIENCE_S: Final = 60
T = TypeVar("T")


class Process:
    """One `headrace …` with its log in a file, forked from a server if that makes no difference. It can be killed and
    started again with the same arguments. ``trees``: the source tree of each start; by default always this one."""

    def __init__(self, name: str, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.trees: Iterator[Path] = repeat(REPOSITORY)
        self._arguments = arguments
        self.environment = dict(environment)
        self._process: subprocess.Popen[bytes] | Forked | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def start(self) -> None:
        tree = next(self.trees)
        if tree == REPOSITORY and can_fork(self._arguments, self.environment):
            self._process = Forked(self._arguments, self.environment, tree, self.log)
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [python_of(tree), "-m", "headrace", *self._arguments],
                env=self.environment | path_of(tree),
                cwd=tree,
                stdout=log,
                stderr=log,
            )

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    async def wait(self, timeout_s: float = PATIENCE_S) -> int:
        assert self._process is not None
        return await asyncio.wait_for(asyncio.to_thread(self._process.wait), timeout_s)

    def stop(self) -> None:
        """Kill the process: a stopped one cannot handle SIGTERM."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Gateway(Process):
    def __init__(self, name: str, environment: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(name, ["gateway", "--port", str(self.port)], environment, log)


class System:
    """Running system. ``settings`` are environment variables without their prefix; ``environment`` has further ones,
    unchanged. ``configuration`` is the text of headrace.toml; ``{fake}`` is the fake provider. ``credentials`` are
    headers of every call of :attr:`http`. ``providers`` and demo are on offer: loading an SDK takes a worker a second
    each."""

    def __init__(
        self,
        folder: Path,
        *,
        gateways: int = 2,
        workers: int = 2,
        environment: Mapping[str, str] | None = None,
        credentials: Mapping[str, str] | None = None,
        configuration: str | None = None,
        providers: Collection[str] = PROVIDERS,
        **settings: object,
    ) -> None:
        self.folder = folder
        self.fake = FakeProvider()
        self.fake.models = ()  # no list: any model is accepted
        self.broker = Broker(folder / "broker")
        #: The address of Redis for gateways and workers: the broker's own, unless a test changes it.
        self.redis_url = self.broker.url
        self._settings = {f"HEADRACE_{name.upper()}": str(value) for name, value in settings.items()}
        self._settings |= environment or {}
        self._configuration = configuration
        self._counts = gateways, workers
        self._providers = frozenset(providers)
        self.gateways: list[Gateway] = []
        self.workers: list[Process] = []
        # A gateway closes an idle connection after 5 s. A request must not meet that.
        limits = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=2)
        self.http = httpx2.AsyncClient(timeout=60, trust_env=False, headers=dict(credentials or {}), limits=limits)

    @property
    def url(self) -> str:
        return self.gateways[0].url

    async def start(self) -> None:
        await self.start_broker()
        await self.start_processes()

    async def start_broker(self) -> None:
        await self.broker.start()

    async def stop_broker(self) -> None:
        self.broker.kill()

    async def start_processes(self) -> None:
        """Start everything except the broker."""
        await self.fake.start()
        if self._configuration is not None:
            file = self.folder / "headrace.toml"
            file.write_text(self._configuration.format(fake=self.fake))
            self._settings["HEADRACE_CONFIG"] = str(file)
        gateways, workers = self._counts
        for i in range(gateways):
            name = f"gateway.{i + 1}"
            self.gateways.append(Gateway(name, self._environment(name), self.folder / f"{name}.log"))
        for i in range(workers):
            name = f"worker.{i + 1}"
            self.workers.append(Process(name, ["worker"], self._environment(name), self.folder / f"{name}.log"))
        for process in (*self.gateways, *self.workers):
            process.trees = self._trees(process.name)
            process.start()
        await self.ready()

    async def stop(self) -> None:
        for process in (*self.gateways, *self.workers):
            process.stop()
        await self.http.aclose()
        await self.stop_broker()
        await self.fake.stop()

    async def ready(self) -> None:
        """Wait until every gateway answers and all providers are on offer."""
        for gateway in self.gateways:
            await self.eventually(partial(self._offers_all, gateway.url), timeout_s=_BOOT_S)

    async def eventually(self, condition: Callable[[], Awaitable[T | None]], *, timeout_s: float = PATIENCE_S) -> T:
        """Call ``condition``, an async function, until it returns something true, and return that."""
        deadline = time.monotonic() + timeout_s
        while True:
            if answer := await condition():
                return answer
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s} s; logs are in {self.folder}")
            await asyncio.sleep(0.02)

    async def post(self, model: str, prompt: str = "hi", *, gateway: int = 0, **body: object) -> str:
        """Call `POST /chat` and return the stream's id."""
        answer = await self.http.post(f"{self.gateways[gateway].url}/chat", json=ask(model, prompt, **body))
        assert answer.status_code == 202, answer.text
        stream_id: str = answer.json()["stream_id"]
        return stream_id

    async def stream(
        self,
        model: str,
        prompt: str = "hi",
        *,
        gateway: int = 0,
        headers: Mapping[str, str] | None = None,
        **body: object,
    ) -> SseConnection:
        """Call `POST /chat/stream`."""
        url = f"{self.gateways[gateway].url}/chat/stream"
        return await open_sse("POST", url, headers=headers, json=ask(model, prompt, **body))

    async def read(
        self, stream_id: str, cursor: str | None = None, *, gateway: int = 0, receive_buffer: int | None = None
    ) -> SseConnection:
        """Call `GET /chat/stream/{id}`."""
        url = f"{self.gateways[gateway].url}/chat/stream/{stream_id}"
        headers = {} if cursor is None else {"Last-Event-ID": cursor}
        return await open_sse("GET", url, headers=headers, receive_buffer=receive_buffer)

    async def status(self, stream_id: str, *, gateway: int = 0) -> dict[str, object]:
        answer = await self.http.get(f"{self.gateways[gateway].url}/chat/{stream_id}")
        assert answer.status_code == 200, answer.text
        body: dict[str, object] = answer.json()
        return body

    async def ended(self, stream_id: str, *, timeout_s: float = PATIENCE_S) -> dict[str, object]:
        """Wait until the stream has ended, and return its status."""

        async def look() -> dict[str, object] | None:
            status = await self.status(stream_id)
            return status if status["ended_at"] else None

        return await self.eventually(look, timeout_s=timeout_s)

    async def ended_unwatched(self, stream_id: str, *, timeout_s: float = PATIENCE_S) -> None:
        """Wait until the stream has ended, without watching it."""
        await self.eventually(lambda: self.field(stream_id, "ended"), timeout_s=timeout_s)

    async def keys_without_expiry(self) -> list[str]:
        """Return the keys without expiry, except API keys and the version of the data."""
        async with self.broker.client() as client:
            keys = [key async for key in client.scan_iter(count=1000)]
            ttls = client.pipeline(transaction=False)
            for key in keys:
                ttls.ttl(key)
            found = [key.decode() for key, ttl in zip(keys, await ttls.execute(), strict=True) if ttl == -1]
        return [key for key in found if not key.startswith("hr:apikey:") and key != DATA_VERSION_KEY]

    async def field(self, stream_id: str, name: str) -> str | None:
        """Return a field of the stream's state from Redis: a request to a gateway would count as watching."""
        async with self.broker.client() as client:
            value: bytes | None = await client.hget(state_key(stream_id), name)  # type: ignore[misc]
        return value.decode() if value is not None else None

    async def _offers_all(self, url: str) -> bool:
        try:
            answer = await self.http.get(f"{url}/v1/models")
        except httpx2.HTTPError:
            return False
        offered = {model["owned_by"] for model in answer.json()["data"]} if answer.status_code == 200 else set()
        return offered - {"headrace"} == self._providers | {"demo"}  # aliases belong to headrace

    def _trees(self, name: str) -> Iterator[Path]:
        """Return the source trees of the starts of the process ``name``: always this one here."""
        return repeat(REPOSITORY)

    def _environment(self, name: str) -> dict[str, str]:
        """Return the environment of the process ``name``; it is the same for all here."""
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("HEADRACE_", "OPENAI_", "ANTHROPIC_", "OLLAMA_"))
        }
        return inherited | {
            "HEADRACE_REDIS_URL": self.redis_url,
            "HEADRACE_SECRET": SECRET,
            "HEADRACE_DEMO_TOKENS_PER_S": "200",
            "HEADRACE_BREAKER_FAILURES": "1000",  # one test's provider that fails is no other test's concern
            **{name: value for each in self._providers for name, value in self._provider(each).items()},
            **self._settings,
        }

    def _provider(self, name: str) -> dict[str, str]:
        return {
            "openai": {"OPENAI_API_KEY": "test-key-123", "OPENAI_BASE_URL": self.fake.openai_base_url},
            "anthropic": {"ANTHROPIC_API_KEY": "test-key-456", "ANTHROPIC_BASE_URL": self.fake.anthropic_base_url},
            "ollama": {"OLLAMA_HOST": self.fake.ollama_host},
        }.get(name, {})


def ask(model: str, prompt: str = "hi", **body: object) -> dict[str, object]:
    """Return a request body. The provider is openai by default."""
    return {"provider": "openai", "model": model, "messages": [{"role": "user", "content": prompt}], **body}
