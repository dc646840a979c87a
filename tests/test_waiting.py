"""Readers of a silent stream learn why nothing comes, and held responses begin after a while."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import anthropic
import httpx2
import openai
import pytest
import pytest_asyncio

from shared.broker.keys import QUEUE
from tests.conformance.node import Node
from tests.conformance.outcome import Ask, Outcome
from tests.fakes import Answer
from tests.sse_client import Frame, SseConnection
from tests.system import System

HEARTBEAT_S = 0.5
#: Of reports about silent streams, at most; ``gateway/live/reader_leases.py``.
COMPARE_S = 2.0
EARLY_S = 0.5
MESSAGES: Any = [{"role": "user", "content": "hi"}]
#: Reasons for a silence in all dialects: a member of JSON or a comment.
REASONS: Final = {state: re.compile(rf'"state":"{state}"|^: waiting {state}') for state in ("model", "worker_lost")}
#: Requests of every dialect with frames or comments for a silence, by their routes.
DIALECTS: Final[dict[str, dict[str, Any]]] = {
    "/chat/stream": {"provider": "openai", "model": "back", "messages": MESSAGES},
    "/api/chat": {"id": "back", "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]},
    "/ag-ui": {
        **{"threadId": "t", "runId": "back", "messages": [{"id": "u", **MESSAGES[0]}]},
        **{"state": {}, "tools": [], "context": [], "forwardedProps": {"model": "openai/back"}},
    },
    "/v1/responses": {"input": "hi", "stream": True},
    "/v1/chat/completions": {"messages": MESSAGES, "stream": True},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 99, "stream": True},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def slow_system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One gateway and one worker; held responses begin after half a second."""
    folder = tmp_path_factory.mktemp("waiting")
    system = System(
        folder,
        gateways=1,
        workers=1,
        providers=("openai", "anthropic"),
        heartbeat_s=HEARTBEAT_S,
        early_headers_s=EARLY_S,
        provider_retries=0,
        lease_s=6,  # a worker that is merely slow must not count as lost
        drain_s=1,
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def until(frames: AsyncIterator[Frame], state: str, **members: object) -> list[Frame]:
    """Read up to the frame ``waiting`` with a state. Return all frames that were read."""
    seen: list[Frame] = []
    async with asyncio.timeout(60):
        async for frame in frames:
            seen.append(frame)
            if frame.event == "waiting" and frame.data["state"] == state and members.items() <= frame.data.items():
                return seen
    raise AssertionError(f"no frame {state}; there were {seen}")


async def rest_of(frames: AsyncIterator[Frame]) -> list[Frame]:
    async with asyncio.timeout(60):
        return [frame async for frame in frames]


async def test_a_reader_learns_what_a_silent_stream_waits_for(slow_system: System) -> None:
    system, (worker,) = slow_system, slow_system.workers
    gate = asyncio.Event()
    system.fake.play("silent", Answer(gate=gate))
    worker.signal(signal.SIGTERM)
    await worker.wait()
    async with await system.stream("silent", on_disconnect="continue") as connection:
        frames = connection.frames()
        seen = await until(frames, "queued", position=1, workers=0)
        seen += await until(frames, "queued", position=1, workers=0)  # with each heartbeat
        worker.start()
        seen += await until(frames, "model")
        async with await system.read(connection.stream_id) as late:
            late_frames = late.frames()
            assert [frame.data["state"] for frame in await until(late_frames, "model")] == ["model"]
            worker.signal(signal.SIGKILL)
            await worker.wait()
            seen += await until(frames, "worker_lost")
            await until(late_frames, "worker_lost")
            worker.start()
            seen += await until(frames, "model")
            gate.set()
            seen += await rest_of(frames)
            await rest_of(late_frames)
    assert seen[0].event == "queued"
    assert {frame.id for frame in seen if frame.event == "waiting"} == {None}
    whole = [frame for frame in seen if frame.id is not None]
    assert (whole[0].event, whole[-1].event) == ("start", "done")
    assert "".join(frame.data["token"] for frame in whole if frame.event == "token") == "Hello, world."
    for at, frame in enumerate(whole[:-1], 1):
        async with await system.read(connection.stream_id, frame.at) as again:
            assert [(each.id, each.data) for each in await again.rest()] == [(w.id, w.data) for w in whole[at:]]
    history = await system.field(connection.stream_id, "history") or ""
    assert history.count(":called:openai") == 2


async def until_line(lines: AsyncIterator[str], pattern: re.Pattern[str]) -> None:
    async with asyncio.timeout(60):
        async for line in lines:
            if pattern.search(line):
                return
    raise AssertionError(f"the stream has ended without {pattern.pattern}")


@pytest.mark.parametrize("words", [0, 1], ids=["before_the_first_word", "amid_the_answer"])
async def test_readers_learn_that_a_lost_worker_is_back(slow_system: System, words: int) -> None:
    """The worker is frozen for longer than its lease, and nobody else takes its streams. In every dialect the loss is
    told, and taken back once the worker has renewed its leases. Each answer is whole."""
    system, (worker,) = slow_system, slow_system.workers
    gate, before = asyncio.Event(), len([call for call in system.fake.calls if call.model == "back"])
    system.fake.play("back", Answer(gate=gate, gate_after=words))
    async with AsyncExitStack() as stack:
        readers: list[AsyncIterator[str]] = []
        for route, members in DIALECTS.items():
            body = {"model": "openai/back", **members} | ({"runId": f"back-{words}"} if route == "/ag-ui" else {})
            response = await stack.enter_async_context(system.http.stream("POST", f"{system.url}{route}", json=body))
            assert response.status_code == 200, await response.aread()
            readers.append(response.aiter_lines())

        async def all_until(pattern: re.Pattern[str]) -> None:
            await asyncio.gather(*(until_line(lines, pattern) for lines in readers))

        await all_until(re.compile("Hello") if words else REASONS["model"])
        worker.signal(signal.SIGSTOP)
        try:
            await all_until(REASONS["worker_lost"])
        finally:
            worker.signal(signal.SIGCONT)
        await all_until(REASONS["model"])
        gate.set()
        for lines in readers:
            assert "world" in "".join([line async for line in lines])
    assert len([call for call in system.fake.calls if call.model == "back"]) - before == len(DIALECTS)


async def test_readers_learn_that_a_stream_was_handed_over(slow_system: System) -> None:
    """A worker drains while the model thinks. Its stream waits for another one, and readers are told so with each
    heartbeat, as before the first worker. The next worker's call is told too, though it is the same reason again."""
    system, (worker,) = slow_system, slow_system.workers
    gate = asyncio.Event()
    system.fake.play("handed", Answer(gate=gate))
    worker.signal(signal.SIGSTOP)
    async with await system.stream("handed", on_disconnect="continue") as connection:
        frames = connection.frames()
        await until(frames, "queued")
        worker.signal(signal.SIGCONT)
        await until(frames, "model")
        async with await system.read(connection.stream_id) as late:
            late_frames = late.frames()
            await until(late_frames, "model")
            worker.signal(signal.SIGTERM)
            await worker.wait()
            for told in (frames, late_frames):
                for _ in range(2):
                    await until(told, "queued", workers=0)
            worker.start()
            for told in (frames, late_frames):
                await until(told, "model")
            gate.set()
            for told in (frames, late_frames):
                assert (await rest_of(told))[-1].event == "done"


async def taken_by_frozen_worker(system: System) -> SseConnection:
    """Return a new stream that Redis has given to the worker, which is frozen. A worker asks Redis for jobs again and
    again; one that is frozen between two such calls gets none: then try again."""
    (worker,) = system.workers
    while True:
        worker.signal(signal.SIGSTOP)
        connection = await system.stream("thawed", on_disconnect="continue")
        async with system.broker.client() as client:
            if not await client.zcard(QUEUE):
                return connection
        worker.signal(signal.SIGCONT)
        await connection.rest()


async def test_a_stream_that_a_frozen_worker_took_is_still_queued(slow_system: System) -> None:
    """Redis has given the job to a process that cannot claim it. Readers are told so, with each heartbeat."""
    (worker,) = slow_system.workers
    try:
        async with await taken_by_frozen_worker(slow_system) as connection:
            frames = connection.frames()
            await until(frames, "queued", position=None)
            await until(frames, "queued", position=None)
            worker.signal(signal.SIGCONT)
            assert (await rest_of(frames))[-1].event == "done"
    finally:
        worker.signal(signal.SIGCONT)


async def test_no_reason_follows_output(slow_system: System) -> None:
    """The answer stops in its middle, for longer than Redis takes to report a state twice."""
    gate = asyncio.Event()
    slow_system.fake.play("stops", Answer(gate=gate, gate_after=1))
    async with await slow_system.stream("stops") as connection:
        async for frame in connection.frames():
            if frame.event == "token" and not gate.is_set():
                at = len(connection.raw)
                while connection.raw[at:].count(b": ping\n") * HEARTBEAT_S < 2 * COMPARE_S + 1:
                    await connection.read_some()
                silence = bytes(connection.raw[at:])
                gate.set()
    assert b"waiting" not in silence
    assert b"event: done" in connection.raw


async def test_the_ai_sdk_gets_transient_parts(slow_system: System) -> None:
    gate = asyncio.Event()
    slow_system.fake.play("parts", Answer(gate=gate))
    message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    body = {"id": "silent-chat", "messages": [message], "model": "openai/parts"}
    parts: list[Any] = []
    async with slow_system.http.stream("POST", f"{slow_system.url}/api/chat", json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                parts.append(json.loads(line.removeprefix("data: ")))
                if parts[-1]["type"] == "data-waiting" and parts[-1]["data"]["state"] == "model":
                    gate.set()
    waiting = [part for part in parts if part["type"] == "data-waiting"]
    assert parts[0]["type"] == "start"
    assert all(part["transient"] for part in waiting)
    assert waiting[-1]["data"] == {"state": "model", "position": None, "workers": waiting[-1]["data"]["workers"]}
    assert parts[-1]["type"] == "finish"


@asynccontextmanager
async def early_response(system: System, route: str, model: str) -> AsyncIterator[httpx2.Response]:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 99, "stream": True}
    async with system.http.stream("POST", f"{system.url}{route}", json=body) as response:
        yield response


@pytest.mark.parametrize(("route", "provider"), [("/v1/chat/completions", "openai"), ("/v1/messages", "anthropic")])
async def test_a_held_response_begins_before_the_first_word(slow_system: System, route: str, provider: str) -> None:
    gate = asyncio.Event()
    slow_system.fake.play("held", Answer(gate=gate))
    received = b""
    async with asyncio.timeout(60), early_response(slow_system, route, f"{provider}/held") as response:
        assert response.status_code == 200
        async for piece in response.aiter_raw():
            received += piece
            if b": waiting model\n" in received:
                gate.set()
    silence, _, answer = received.partition(b"data: ")
    assert set(silence.splitlines()) >= {b": ping", b": waiting model"}
    assert b"world" in answer


async def test_both_sdks_raise_an_error_after_an_early_status(slow_system: System) -> None:
    gate = asyncio.Event()
    slow_system.fake.play("broken", Answer(gate=gate, deltas=(), end="error_in_band"))
    url = slow_system.url
    async with (
        asyncio.timeout(60),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as of_openai,
        anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0) as of_anthropic,
    ):
        chunks = await of_openai.chat.completions.create(model="openai/broken", messages=MESSAGES, stream=True)
        events = await of_anthropic.messages.create(
            model="anthropic/broken", max_tokens=99, messages=MESSAGES, stream=True
        )
        gate.set()
        with pytest.raises(openai.APIError):
            async for _ in chunks:
                pass
        with pytest.raises(anthropic.APIError):
            async for _ in events:
                pass


async def test_the_clients_of_node_take_an_early_status(slow_system: System) -> None:
    """An answer is whole, and a failure is an error, for the packages of OpenAI, Anthropic and Vercel."""
    clients = {
        "openai-chat": "openai",
        "openai-responses": "openai",
        "anthropic": "anthropic",
        "ai-chat": "openai",
        "ai-openai-chat": "openai",
        "ai-openai-responses": "openai",
    }
    slow_system.fake.play("late", Answer(first_delay_s=3 * EARLY_S))
    slow_system.fake.play("broken-late", Answer(first_delay_s=3 * EARLY_S, deltas=(), end="error_in_band"))
    async with asyncio.timeout(60), Node() as node:

        async def outcome_of(client: str, provider: str, model: str) -> Outcome:
            outcome = Outcome()
            ask = Ask(base=slow_system.url, model=f"{provider}/{model}", key=f"{client} {model}")
            await node.run(client, ask, outcome, lambda: None)
            return outcome

        for model in ("late", "broken-late"):
            outcomes = await asyncio.gather(*(outcome_of(*client, model) for client in clients.items()))
            for client, outcome in zip(clients, outcomes, strict=True):
                expected = ("Hello, world.", False) if model == "late" else ("", True)
                assert (outcome.text, outcome.error is not None) == expected, client


async def test_an_answer_as_json_keeps_its_status(slow_system: System) -> None:
    slow_system.fake.play("whole", Answer(first_delay_s=3 * EARLY_S, status=400))
    body = {"model": "openai/whole", "messages": MESSAGES}
    response = await slow_system.http.post(f"{slow_system.url}/v1/chat/completions", json=body)
    assert response.status_code == 400


async def test_an_error_before_the_limit_keeps_its_status(system: System) -> None:
    """The limit here is the default, half a minute: any error before it will do."""
    system.fake.play("refused-soon", Answer(status=400))
    async with early_response(system, "/v1/chat/completions", "openai/refused-soon") as response:
        assert response.status_code == 400
