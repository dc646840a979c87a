"""An answer that its provider stores survives its worker: every word once, without a reset, and paid once."""

import json
import signal
from collections.abc import AsyncIterator
from functools import partial

import pytest

from tests.cli import until
from tests.fakes.answer import Answer, Call, Storage, ToolCall, Turnstile
from tests.fakes.provider_server import FakeProvider
from tests.sse_client import Frame, SseConnection, text_of
from tests.system import Process, System
from tests.test_lost_processes import holder

CONFIGURATION = """
[providers.keeps]
kind = "openai-responses"
base_url = "{fake.openai_base_url}"
api_keys = ["env:UP_KEY"]
background = true
"""
WORDS = [f"w{i} " for i in range(40)]
TEXT = "".join(WORDS)


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    system = System(
        tmp_path_factory.mktemp("resumed"),
        gateways=2,
        workers=2,
        providers=("keeps",),
        environment={"UP_KEY": "key-of-up"},
        configuration=CONFIGURATION,
        provider_retries=0,
        lease_s=3,
        window=16,
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.fixture(autouse=True)
async def both_workers_live(system: System) -> AsyncIterator[None]:
    yield
    for worker in system.workers:
        if not worker.alive:
            worker.stop()
            worker.start()
    await system.ready()


def calls(fake: FakeProvider, model: str) -> list[Call]:
    return [call for call in fake.calls if call.model == model]


def check_whole(frames: list[Frame], text: str = TEXT) -> None:
    """Check that a reader got every word once, under ids whose seqs have no hole, and was not reset."""
    with_id = [frame for frame in frames if frame.id is not None]
    assert text_of(frames) == text
    assert [frame.data["reset"] for frame in with_id if frame.event == "start"] == [False]
    assert [int(frame.at.partition("-")[2]) for frame in with_id] == list(range(1, len(with_id) + 1))
    assert [frame.event for frame in frames].count("done") == 1


async def up_to(connection: SseConnection, word: str) -> list[Frame]:
    frames: list[Frame] = []
    async for frame in connection.frames():
        frames.append(frame)
        if frame.event == "token" and word in text_of(frames):
            break
    return frames


async def kill_holder(system: System, stream_id: str) -> Process:
    worker = await holder(system, stream_id)
    worker.signal(signal.SIGKILL)
    return worker


async def played(system: System, model: str, **more: object) -> Turnstile:
    turnstile = Turnstile()
    system.fake.play(model, Answer(deltas=WORDS, turnstile=turnstile, **more))  # type: ignore[arg-type]
    return turnstile


async def test_a_reader_gets_every_word_once_when_the_worker_is_killed(system: System) -> None:
    turnstile = await played(system, "killed")
    await turnstile.allow(6)
    async with await system.stream("killed", provider="keeps") as connection:
        frames = await up_to(connection, "w5 ")
        await kill_holder(system, connection.stream_id)
        await turnstile.allow(len(WORDS))
        frames += await connection.rest()
    check_whole(frames)
    (call,) = calls(system.fake, "killed")  # paid once
    assert frames[-1].data["usage"]["output_tokens"] == len(WORDS)
    response_id = system.fake.stored(call).response["id"]
    gets = [get for get in system.fake.gets if get.response_id == response_id]
    assert any(get.starting_after for get in gets)
    status = await system.status(connection.stream_id)
    assert (status["text"], status["last_event_id"]) == (TEXT, frames[-1].id)
    assert len({frame.at.partition("-")[0] for frame in frames if frame.id}) == 2
    assert response_id not in system.fake.cancels
    await check_every_cursor(system, connection.stream_id, [frame for frame in frames if frame.id is not None])


async def check_every_cursor(system: System, stream_id: str, frames: list[Frame]) -> None:
    """Check that each id that a client may have leads to what follows it, and that others reset."""
    for at in sorted({0, 1, 2, len(frames) - 2, *range(3, len(frames), 3)} - {len(frames) - 1}):
        async with await system.read(stream_id, frames[at].id, gateway=at % 2) as connection:
            assert plain(await connection.rest()) == plain(frames[at + 1 :])
    first, last = (int(frame.at.partition("-")[0]) for frame in (frames[0], frames[-1]))
    takeover = sum(frame.at.startswith(f"{first}-") for frame in frames)
    for cursor in (f"{first}-{takeover + 1}", f"{last}-{len(frames) + 1}", f"{first + 1}-1"):
        async with await system.read(stream_id, cursor) as connection:
            begin, *others = await connection.rest()
            assert begin.data["reset"]
            assert plain(others) == plain(frames[1:])


def plain(frames: list[Frame]) -> list[tuple[str | None, str, object]]:
    return [(frame.id, frame.event, frame.data) for frame in frames]


async def test_two_lost_workers_make_a_third_epoch(system: System) -> None:
    turnstile = await played(system, "twice")
    await turnstile.allow(5)
    async with await system.stream("twice", provider="keeps", gateway=1) as connection:
        frames = await up_to(connection, "w4 ")
        await kill_holder(system, connection.stream_id)
        await turnstile.allow(12)
        frames += await up_to(connection, "w11 ")
        first = await kill_holder(system, connection.stream_id)
        await turnstile.allow(len(WORDS))
        first.stop()
        next(worker for worker in system.workers if not worker.alive).stop()
        for worker in system.workers:
            if not worker.alive:
                worker.start()
        frames += await connection.rest()
    check_whole(frames)
    assert len(calls(system.fake, "twice")) == 1
    await check_every_cursor(system, connection.stream_id, [frame for frame in frames if frame.id is not None])


async def test_a_worker_killed_before_the_first_word_is_paid_once(system: System) -> None:
    turnstile = await played(system, "early")
    async with await system.stream("early", provider="keeps") as connection:

        async def is_noted() -> bool:
            return "resp_" in (await system.field(connection.stream_id, "provider_cursor") or "")

        await system.eventually(is_noted)
        await kill_holder(system, connection.stream_id)
        await turnstile.allow(len(WORDS))
        frames = await connection.rest()
    check_whole(frames)
    assert len(calls(system.fake, "early")) == 1


async def test_a_deploy_resets_no_reader(system: System) -> None:
    turnstile = await played(system, "deploy")
    await turnstile.allow(5)
    async with await system.stream("deploy", provider="keeps") as connection:
        frames = await up_to(connection, "w4 ")
        worker = await holder(system, connection.stream_id)
        worker.signal(signal.SIGTERM)
        await until(lambda: '"event":"draining"' in worker.log.read_text(), "the worker drains")
        worker.signal(signal.SIGTERM)  # at once
        await worker.wait()
        await turnstile.allow(len(WORDS))
        frames += await connection.rest()
    check_whole(frames)
    assert len(calls(system.fake, "deploy")) == 1
    assert system.fake.stored(calls(system.fake, "deploy")[0]).response["id"] not in system.fake.cancels


async def test_reasoning_calls_and_json_survive_too(system: System) -> None:
    turnstile = Turnstile()
    tool = ToolCall("c1", "look", tuple('{"at": "home", "deep": true}'))
    answer = Answer(reasoning=("I ", "think"), deltas=WORDS, tools=(tool,), turnstile=turnstile)
    system.fake.play("calls", answer)
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    await turnstile.allow(7)
    async with await system.stream("calls", provider="keeps", tools=tools) as connection:
        frames = await up_to(connection, "w6 ")
        await kill_holder(system, connection.stream_id)
        await turnstile.allow(len(WORDS))
        frames += await connection.rest()
    check_whole(frames)
    assert "".join(frame.data["text"] for frame in frames if frame.event == "reasoning") == "I think"
    (whole,) = [f.data for f in frames if f.event == "tool_call" and f.data["complete"]]
    assert json.loads(whole["arguments"]) == {"at": "home", "deep": True}
    assert len(calls(system.fake, "calls")) == 1


async def test_values_of_a_json_answer_come_once(system: System) -> None:
    turnstile = Turnstile()
    text = json.dumps({f"k{i}": i for i in range(20)})
    pieces = [text[at : at + 5] for at in range(0, len(text), 5)]
    system.fake.play("json", Answer(deltas=pieces, turnstile=turnstile))
    response_format = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    await turnstile.allow(12)
    async with await system.stream("json", provider="keeps", response_format=response_format) as connection:
        frames = await up_to(connection, '"k5"')
        await kill_holder(system, connection.stream_id)
        await turnstile.allow(len(pieces))
        frames += await connection.rest()
    check_whole(frames, text)
    values = [frame.data for frame in frames if frame.event == "json"]
    assert [value["path"] for value in values] == [*([f"k{i}"] for i in range(20)), []]


async def test_a_client_that_cannot_take_back_gets_the_whole_answer(system: System) -> None:
    turnstile = await played(system, "chat")
    await turnstile.allow(6)
    body = {"model": "keeps/chat", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    text, killed = "", False
    async with system.http.stream("POST", f"{system.url}/v1/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                assert "error" not in chunk, chunk
                text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
            if "w5 " in text and not killed:
                killed = True
                await kill_holder(system, response.headers["x-stream-id"])
                await turnstile.allow(len(WORDS))
    assert text == TEXT
    assert len(calls(system.fake, "chat")) == 1


async def is_full_or_beyond(system: System, stream_id: str, place: str | None) -> str | None:
    """Return "full" if the stream's window is, "beyond" if an append has moved the place, else None."""
    if await system.field(stream_id, "full"):
        return "full"
    return "beyond" if await system.field(stream_id, "provider_cursor") != place else None


async def test_a_full_window_keeps_the_place(system: System) -> None:
    """Nothing is read while the gateway is stopped, so that the worker waits with an append when it dies. The words
    come in a read each: a read of more words than the window has room for has no place between them."""
    turnstile = await played(system, "slow")
    stream_id = await system.post("slow", provider="keeps", on_disconnect="cancel", grace_s=600)
    async with await system.read(stream_id) as connection:
        await turnstile.allow(1)
        frames = await up_to(connection, "w0 ")
        system.gateways[0].signal(signal.SIGSTOP)
        try:
            for count in range(2, len(WORDS)):
                place = await system.field(stream_id, "provider_cursor")
                await turnstile.allow(count)
                if await system.eventually(partial(is_full_or_beyond, system, stream_id, place)) == "full":
                    break
            else:
                pytest.fail("the window is never full")
            await kill_holder(system, stream_id)
        finally:
            system.gateways[0].signal(signal.SIGCONT)
        await turnstile.allow(len(WORDS))
        frames += await connection.rest()
    assert text_of(frames) == TEXT
    assert len(calls(system.fake, "slow")) == 1
    assert [frame.data["reset"] for frame in frames if frame.event == "start"] == [False]


@pytest.mark.parametrize(
    "storage",
    [Storage(status=404), Storage(lost=(12,)), Storage(other_id="resp_other")],
    ids=["gone", "with a hole", "another answer"],
)
async def test_what_the_provider_cannot_reproduce_begins_anew(system: System, storage: Storage) -> None:
    model = f"anew-{abs(hash(storage)) % 10**9}"
    turnstile = await played(system, model, storage=storage)
    await turnstile.allow(12)
    async with await system.stream(model, provider="keeps") as connection:
        frames = await up_to(connection, "w11 ")
        await kill_holder(system, connection.stream_id)
        await turnstile.allow(len(WORDS))
        frames += await connection.rest()
    starts = [at for at, frame in enumerate(frames) if frame.event == "start"]
    assert frames[starts[-1]].data["reset"]
    assert len(calls(system.fake, model)) == 2
    assert text_of(frames[starts[-1] :]) == TEXT
    assert len([frame for frame in frames if frame.event == "done"]) == 1
    assert frames[-1].data["finish_reason"] == "stop"


async def test_a_server_that_ignores_the_place_repeats_no_word(system: System) -> None:
    turnstile = await played(system, "ignores", storage=Storage(ignores_cursor=True))
    await turnstile.allow(12)
    async with await system.stream("ignores", provider="keeps") as connection:
        frames = await up_to(connection, "w11 ")
        await kill_holder(system, connection.stream_id)
        await turnstile.allow(len(WORDS))
        frames += await connection.rest()
    check_whole(frames)
    assert len(calls(system.fake, "ignores")) == 1


async def cancelled_at_provider(system: System, model: str, count: int = 1) -> None:
    async def is_cancelled() -> bool:
        stored = [system.fake.stored(call) for call in calls(system.fake, model)]
        return len([one for one in stored if one.response["id"] in system.fake.cancels]) >= count

    await system.eventually(is_cancelled)


async def test_cancel_reaches_the_provider(system: System) -> None:
    turnstile = await played(system, "cancel")
    await turnstile.allow(5)
    async with await system.stream("cancel", provider="keeps") as connection:
        await up_to(connection, "w4 ")
        await system.http.post(f"{system.url}/chat/{connection.stream_id}/cancel")
        assert (await connection.rest())[-1].data["finish_reason"] == "cancelled"
    await cancelled_at_provider(system, "cancel")


async def test_delete_reaches_the_provider(system: System) -> None:
    turnstile = await played(system, "delete")
    await turnstile.allow(5)
    async with await system.stream("delete", provider="keeps") as connection:
        await up_to(connection, "w4 ")
        await system.http.delete(f"{system.url}/chat/{connection.stream_id}")
    await cancelled_at_provider(system, "delete")


async def test_a_cancel_without_a_worker_reaches_the_provider_all_the_same(system: System) -> None:
    turnstile = await played(system, "orphan")
    await turnstile.allow(5)
    async with await system.stream("orphan", provider="keeps") as connection:
        await up_to(connection, "w4 ")
        for worker in system.workers:
            worker.signal(signal.SIGKILL)
            worker.stop()

        async def lease_is_over() -> bool:
            answer = await system.http.post(f"{system.url}/chat/{connection.stream_id}/cancel")
            return bool(answer.status_code == 202)

        await system.eventually(lease_is_over)
        for worker in system.workers:
            worker.start()
        assert (await connection.rest())[-1].data["finish_reason"] == "cancelled"
    await cancelled_at_provider(system, "orphan")


@pytest.mark.parametrize(("on_worker_lost", "ending"), [("restart", "stop"), ("fail", "error"), ("resume", "stop")])
async def test_the_request_decides(system: System, on_worker_lost: str, ending: str) -> None:
    model = f"decides-{on_worker_lost}"
    turnstile = await played(system, model)
    await turnstile.allow(5)
    async with await system.stream(model, provider="keeps", on_worker_lost=on_worker_lost) as connection:
        frames = await up_to(connection, "w4 ")
        await kill_holder(system, connection.stream_id)
        await turnstile.allow(len(WORDS))
        frames += await connection.rest()
    assert frames[-1].data["finish_reason"] == ending
    assert len(calls(system.fake, model)) == (2 if on_worker_lost == "restart" else 1)
    if on_worker_lost == "resume":
        check_whole(frames)
    else:
        first = system.fake.stored(calls(system.fake, model)[0])
        await until(lambda: first.response["id"] in system.fake.cancels, "the provider's answer is cancelled")


async def test_redis_that_goes_back_in_time_keeps_the_lineage(system: System) -> None:
    """Redis is emptied after a takeover: the second worker writes the first one's events too."""
    turnstile = await played(system, "emptied")
    await turnstile.allow(5)
    async with await system.stream("emptied", provider="keeps") as connection:
        frames = await up_to(connection, "w4 ")
        await kill_holder(system, connection.stream_id)
        await turnstile.allow(10)
        frames += await up_to(connection, "w9 ")
        async with system.broker.client() as client:
            await client.delete(*[key async for key in client.scan_iter(match=f"*{connection.stream_id}*")])
        await turnstile.allow(len(WORDS))
        frames += await connection.rest()
    check_whole(frames)
    assert len(calls(system.fake, "emptied")) == 1
    await check_every_cursor(system, connection.stream_id, [frame for frame in frames if frame.id is not None])
