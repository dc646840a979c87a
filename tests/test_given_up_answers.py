"""Stored answers that a worker gives up: it stops them at their provider, unless another worker goes on with them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from shared.broker.client import Client, connect
from shared.broker.creation import NewStream, create
from shared.broker.keys import state_key, stream_keys
from shared.broker.log import read_log
from shared.broker.scripts import StreamScripts
from shared.cancellation import cancel_all
from shared.configuration.configuration import Configuration
from shared.configuration.document import Document
from shared.configuration.entries import ProviderEntry
from shared.errors import ProviderError
from shared.protocol import events
from shared.protocol.ids import new_stream_id
from shared.protocol.transcript import Transcript, fold
from shared.rate_limits import Demand, Limits
from shared.schemas import ChatRequest, StoredRequest
from shared.settings import Settings
from shared.tracing import Tracing
from tests.broker import Broker
from workers.jobs.attempts import ProviderAttempts
from workers.jobs.current_adapters import AdapterSet, CurrentAdapters
from workers.jobs.generate import Generation
from workers.jobs.provider_limits import ProviderLimits
from workers.providers.base import (
    AnswerPart,
    Finished,
    ModelList,
    ProviderCursor,
    Replayed,
    Sink,
    StoredDeltas,
    TextDelta,
)
from workers.providers.circuit_breakers import Breakers
from workers.providers.endpoint import ApiKey
from workers.providers.errors import provider_failure
from workers.providers.keys import Keys
from workers.writing.flusher import Flusher
from workers.writing.leases import Leases

SETTINGS = Settings(provider_retries=0, lease_s=1)
SCRIPTS = StreamScripts(SETTINGS)
WORDS = [f"w{number} " for number in range(6)]
TEXT = "".join(WORDS)
Hook = Callable[[], Awaitable[None]]


class Keeper:
    """A provider that stores its answers, without a network. ``pause``: awaited by a call after so many words;
    ``before_call`` and ``before_resume``: awaited by a call before it yields anything."""

    family = "responses"
    counts_tokens = False

    def __init__(self, name: str = "keeps") -> None:
        self.name = name
        self.calls = 0
        self.resumed: list[str] = []
        self.cancelled: list[str] = []
        self.pause_after = len(WORDS)
        self.pause: Hook | None = None
        self.before_call: Hook | None = None
        self.before_resume: Hook | None = None

    async def list_models(self) -> ModelList:
        return ModelList(("m",))

    async def probe(self, key: ApiKey | None = None) -> tuple[str, ...]:
        return ("m",)

    async def aclose(self) -> None:
        pass

    def stores(self, request: ChatRequest) -> bool:
        return True

    async def cancel(self, response_id: str, key: ApiKey | None) -> None:
        self.cancelled.append(response_id)

    async def stream(
        self, request: ChatRequest, key: ApiKey | None = None, sink: Sink | None = None
    ) -> AsyncGenerator[AnswerPart, None]:
        self.calls += 1
        response_id = f"resp_{self.calls}"
        if self.before_call is not None:
            await self.before_call()
        yield StoredDeltas((), ProviderCursor(response_id, None))
        async for part in self._from(response_id, 0):
            yield part

    async def resume(
        self, request: ChatRequest, key: ApiKey | None, cursor: ProviderCursor, sink: Sink | None = None
    ) -> AsyncGenerator[AnswerPart, None]:
        self.resumed.append(cursor.response_id)
        if self.before_resume is not None:
            await self.before_resume()
        if cursor.at is None:
            yield StoredDeltas((), cursor)
        else:
            yield Replayed([TextDelta(word) for word in WORDS[: cursor.at]])
        async for part in self._from(cursor.response_id, cursor.at or 0):
            yield part

    async def _from(self, response_id: str, at: int) -> AsyncIterator[AnswerPart]:
        for number in range(at, len(WORDS) + 1):
            if number == self.pause_after and self.pause is not None:
                await self.pause()
            if response_id in self.cancelled:
                raise failure("the response was cancelled")
            if number < len(WORDS):
                yield StoredDeltas([TextDelta(WORDS[number])], ProviderCursor(response_id, number + 1))
        yield Finished("stop", None)


class Continuer(Keeper):
    """A provider that goes on with the answer of another one, and stores nothing."""

    async def stream(
        self, request: ChatRequest, key: ApiKey | None = None, sink: Sink | None = None
    ) -> AsyncGenerator[AnswerPart, None]:
        yield [TextDelta("and on.")]
        yield Finished("stop", None)


def failure(detail: str) -> ProviderError:
    return provider_failure("upstream_truncated", "keeps", detail=detail)


async def for_ever() -> None:
    await asyncio.Event().wait()


class Adapters:
    """Adapters of a configuration that never changes."""

    def __init__(self, used: AdapterSet) -> None:
        self._used = used

    @contextmanager
    def in_use(self) -> Iterator[AdapterSet]:
        yield self._used


class Worker:
    """A worker's parts, in this process. ``run`` takes one stream."""

    def __init__(self, client: Client, redis_url: str, provider: Keeper, name: str) -> None:
        self.leases = Leases(client, SCRIPTS, SETTINGS, name)
        flusher = Flusher(client.servers, lambda: 0)
        other = ProviderEntry.model_validate({"kind": "openai", "continues": "assistant_prefill"})
        entries = {"keeps": ProviderEntry(kind="openai-responses"), "other": other}
        configuration = Configuration(SETTINGS, Document(), entries)
        keys = Keys(client, {})
        providers = {"keeps": provider, "other": Continuer("other")}
        attempts = ProviderAttempts(providers, Breakers(client, SETTINGS), keys, client, SCRIPTS, configuration)
        generation = Generation(
            worker_id=name,
            settings=SETTINGS,
            client=client,
            scripts=SCRIPTS,
            adapters=cast(CurrentAdapters, Adapters(AdapterSet(configuration, {}, [], providers, keys, attempts))),
            flusher=flusher,
            leases=self.leases,
            provider_limits=ProviderLimits(client, SCRIPTS),
            tracing=Tracing(),
        )
        self._generation = generation
        self._tasks = [asyncio.create_task(flusher.run())]

    def take(self, stream_id: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._generation.run(stream_id))
        self._tasks.append(task)
        return task

    def renew(self) -> None:
        """Renew leases from now on."""
        self._tasks.append(asyncio.create_task(self.leases.renew()))

    async def aclose(self) -> None:
        await cancel_all(self._tasks)


@dataclass
class Crew:
    """Workers that share Redis and a provider."""

    client: Client
    redis_url: str
    provider: Keeper
    workers: list[Worker]

    async def create(self, *, on_disconnect: str = "continue", **fields: Any) -> str:
        stream_id = new_stream_id()
        body = {"provider": "keeps", "model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
        request = StoredRequest.model_validate(body)
        state: dict[str, str | bytes | int] = {
            **{"principal": "p", "on_disconnect": on_disconnect, "grace_ms": 0, "body_hash": "00"},
            **{"request": request.model_dump_json(exclude_none=True), "provider": "keeps", "model": "m"},
            **request.loss_fields,
        }
        await create(self.client, SCRIPTS, NewStream(stream_id, state, "00", None, Demand("a", Limits(), 0)))
        return stream_id

    async def begun(self, **fields: Any) -> str:
        """Return a stream whose worker was lost after three words."""
        stream_id = await self.create(**fields)
        self.provider.pause_after, self.provider.pause = 3, for_ever
        first = self.workers[0].take(stream_id)
        await self.has_text(stream_id, "w2 ")
        await cancel_all([first])
        await self.lose_holder(stream_id)
        self.provider.pause = None
        return stream_id

    async def lose_holder(self, stream_id: str) -> None:
        """Let the lease end, without the time that this takes."""
        await self.client.hset(state_key(stream_id), mapping={"lease_until": 0, "handed_over": 1})  # type: ignore[misc]

    async def is_held(self, stream_id: str) -> bool:
        return int(await self.client.hget(state_key(stream_id), "lease_until") or 0) > 0  # type: ignore[misc]

    async def abandon(self, stream_id: str) -> None:
        """Let the grace of a stream without readers end, without the time that this takes."""
        keys = stream_keys(stream_id)
        await self.client.hset(keys[0], mapping={"live_until": 0, "polled_until": 0, "created": 0})  # type: ignore[misc]
        await self.client.hset(keys[6], mapping={"at": 10**15})  # type: ignore[misc]

    async def transcript(self, stream_id: str) -> Transcript:
        return fold(map(events.decode, await read_log(self.client, SCRIPTS, stream_id)))

    async def has_text(self, stream_id: str, text: str) -> None:
        await until(self._has_text, stream_id, text)

    async def _has_text(self, stream_id: str, text: str) -> bool:
        return text in (await self.transcript(stream_id)).text


async def until(holds: Callable[..., Awaitable[bool]], *arguments: Any) -> None:
    async with asyncio.timeout(30):
        while not await holds(*arguments):
            await asyncio.sleep(0.01)


@pytest.fixture
async def crew(tmp_path: Path) -> AsyncIterator[Crew]:
    broker = Broker(tmp_path)
    await broker.start()
    client, provider = connect(broker.url), Keeper()
    workers = [Worker(client, broker.url, provider, f"w{number}") for number in range(3)]
    yield Crew(client, broker.url, provider, workers)
    for worker in workers:
        await worker.aclose()
    await client.aclose()
    broker.kill()


async def test_a_worker_that_lost_a_stream_while_it_resumed_does_not_stop_the_answer(crew: Crew) -> None:
    stream_id, provider = await crew.begun(), crew.provider
    provider.before_resume = for_ever
    second = crew.workers[1].take(stream_id)
    await until(resumed, provider, 1)
    await crew.lose_holder(stream_id)
    goes_on = asyncio.Event()
    provider.before_resume, provider.pause_after, provider.pause = None, 5, waiting(goes_on)
    third = crew.workers[2].take(stream_id)
    await crew.has_text(stream_id, "w4 ")
    crew.workers[1].renew()  # the second worker learns of its loss
    await second
    goes_on.set()
    await third
    assert provider.cancelled == []
    transcript = await crew.transcript(stream_id)
    assert (transcript.text, provider.calls) == (TEXT, 1)
    assert transcript.done is not None
    assert transcript.done.finish_reason == "stop"


async def test_a_worker_that_fails_to_resume_a_stream_that_it_lost_does_not_stop_the_answer(crew: Crew) -> None:
    stream_id, provider = await crew.begun(), crew.provider
    fails, goes_on = asyncio.Event(), asyncio.Event()

    async def fail() -> None:
        await fails.wait()
        raise failure("the connection is broken")

    provider.before_resume = fail
    second = crew.workers[1].take(stream_id)
    await until(resumed, provider, 1)
    await crew.lose_holder(stream_id)
    provider.before_resume, provider.pause_after, provider.pause = None, 5, waiting(goes_on)
    third = crew.workers[2].take(stream_id)
    await crew.has_text(stream_id, "w4 ")
    fails.set()
    await second
    goes_on.set()
    await third
    assert provider.cancelled == []
    assert provider.calls == 1
    assert (await crew.transcript(stream_id)).text == TEXT


async def test_an_answer_that_was_given_up_is_not_resumed_later(crew: Crew) -> None:
    stream_id, provider = await crew.begun(), crew.provider

    async def fail() -> None:
        raise failure("the connection is broken")

    provider.before_resume, provider.before_call = fail, for_ever
    second = crew.workers[1].take(stream_id)
    await until(called, provider, 2)
    assert provider.cancelled == ["resp_1"]
    await cancel_all([second])
    await crew.lose_holder(stream_id)
    provider.before_resume = provider.before_call = None
    await crew.workers[2].take(stream_id)
    transcript = await crew.transcript(stream_id)
    assert transcript.done is not None
    assert transcript.done.finish_reason == "stop"
    assert transcript.text == TEXT
    assert provider.resumed == ["resp_1"]


async def test_an_answer_resumed_from_its_beginning_names_the_fields_without_effect(crew: Crew) -> None:
    stream_id, provider = await crew.create(on_provider_lost="continue"), crew.provider
    provider.pause_after, provider.pause = 0, for_ever
    first = crew.workers[0].take(stream_id)

    async def is_noted() -> bool:
        return b"resp_1" in (await crew.client.hget(state_key(stream_id), "provider_cursor") or b"")  # type: ignore[misc]

    await until(is_noted)
    await cancel_all([first])
    await crew.lose_holder(stream_id)
    provider.pause = None
    await crew.workers[1].take(stream_id)
    transcript = await crew.transcript(stream_id)
    assert (transcript.text, provider.calls) == (TEXT, 1)
    assert transcript.start is not None
    assert transcript.start.ignored == ["on_provider_lost"]


async def test_a_stream_abandoned_while_it_is_resumed_keeps_its_partial_answer(crew: Crew) -> None:
    stream_id, provider = await crew.begun(on_disconnect="cancel"), crew.provider
    provider.before_resume = for_ever
    second = crew.workers[1].take(stream_id)
    await until(resumed, provider, 1)
    await crew.abandon(stream_id)
    crew.workers[1].renew()
    await second
    transcript = await crew.transcript(stream_id)
    assert transcript.done is not None
    assert (transcript.text, transcript.done.reason) == ("w0 w1 w2 ", "abandoned")
    assert provider.cancelled == ["resp_1"]


async def test_a_stream_that_has_a_reader_again_before_it_is_resumed_goes_on(crew: Crew) -> None:
    stream_id, provider = await crew.begun(on_disconnect="cancel"), crew.provider

    async def be_interrupted() -> None:
        try:
            await for_ever()
        finally:
            await crew.client.hset(state_key(stream_id), "live_until", str(10**15))  # type: ignore[misc]

    provider.before_resume = be_interrupted
    second = crew.workers[1].take(stream_id)
    await until(resumed, provider, 1)
    await crew.abandon(stream_id)
    crew.workers[1].renew()
    await second
    provider.before_resume = None
    await crew.workers[2].take(stream_id)
    transcript = await crew.transcript(stream_id)
    assert (transcript.text, provider.calls, provider.cancelled) == (TEXT, 1, [])
    assert transcript.done is not None
    assert transcript.done.finish_reason == "stop"


async def test_a_worker_that_ends_an_abandoned_stream_too_late_does_not_stop_the_answer(crew: Crew) -> None:
    stream_id, provider = await crew.begun(on_disconnect="cancel"), crew.provider
    await crew.abandon(stream_id)
    slow_client = connect(crew.redis_url)
    slow_client.whole_reads = asyncio.Semaphore(1)
    slow = Worker(slow_client, crew.redis_url, provider, "slow")
    goes_on = asyncio.Event()
    async with slow_client.whole_reads:  # the worker waits before it reads the partial answer
        second = slow.take(stream_id)
        await until(crew.is_held, stream_id)
        await crew.client.hset(state_key(stream_id), "live_until", str(10**15))  # type: ignore[misc]
        await crew.lose_holder(stream_id)
        provider.pause_after, provider.pause = 5, waiting(goes_on)
        third = crew.workers[2].take(stream_id)
        await crew.has_text(stream_id, "w4 ")
    await second
    goes_on.set()
    await third
    assert provider.cancelled == []
    assert (await crew.transcript(stream_id)).text == TEXT
    await slow.aclose()
    await slow_client.aclose()


async def test_an_answer_that_another_target_continues_is_stopped_after_a_resume_too(crew: Crew) -> None:
    stream_id, provider = await crew.begun(on_provider_lost="continue", fallbacks=["other/m"]), crew.provider

    async def break_off() -> None:
        raise failure("the connection is broken")

    provider.pause_after, provider.pause = 5, break_off
    await crew.workers[1].take(stream_id)
    transcript = await crew.transcript(stream_id)
    assert transcript.text == "w0 w1 w2 w3 w4 and on."
    assert provider.cancelled == ["resp_1"]


async def resumed(provider: Keeper, count: int) -> bool:
    return len(provider.resumed) >= count


async def called(provider: Keeper, count: int) -> bool:
    return provider.calls >= count


def waiting(event: asyncio.Event) -> Hook:
    async def wait() -> None:
        await event.wait()

    return wait
