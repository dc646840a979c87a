"""Hooks of an operator: requests are checked and changed before they are queued, and answers as they are written."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from shared.broker.keys import state_key
from tests.cli import finish, headrace
from tests.fakes.answer import Answer, ToolCall
from tests.openai_client import openai_client
from tests.ports import free_port
from tests.responses import code_of
from tests.sse_client import error_of, text_of
from tests.system import System, ask

MAIL, CARD = "ann.example+x@mail.example.org", "4111 1111 1111 1111"
PROMPT = f"Write to {MAIL}, she paid with {CARD}."
REDACTED = "Write to [removed], she paid with [removed]."
#: Cut so that no piece has the whole of something private.
WORDS = ("Dear ", "ann.exa", "mple+x@mail", ".example.org, ", "card 4111 1", "111 1111 ", "1111", " is ", "fine.")
TEXT = "Dear [removed], card [removed] is fine."
#: As whole words: ids and times have any letters and digits.
PRIVATE = re.compile(r"\b(ann|mail|4111)\b")
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "send", "parameters": {"type": "object", "properties": {"to": {"type": "string"}}}},
}


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    system = System(
        tmp_path_factory.mktemp("system"),
        providers=("openai", "anthropic", "ollama"),
        workers=2,
        hooks="tests.fakes.hooks:TestHooks",
        hook_timeout_s=1,
        lease_s=4,
        retention_min_s=0,
    )
    try:
        await system.start()
        system.fake.play("private", Answer(deltas=WORDS, reasoning=["think of ann@", "x.org now"]))
        yield system
    finally:
        await system.stop()


def sent_for(system: System, model: str) -> str:
    """Everything that the provider was sent for a model."""
    return json.dumps([call.request for call in system.fake.calls if call.model == model])


async def stored(system: System, stream_id: str) -> str:
    client = system.broker.client()
    fields = await client.hgetall(state_key(stream_id))  # type: ignore[misc]
    await client.aclose()
    return b"\n".join(fields.values()).decode(errors="replace")


async def test_a_request_and_its_answer_are_changed(system: System) -> None:
    """Neither the provider, Redis, a reader nor the status has what the hooks removed."""
    system.fake.play("native", Answer(deltas=WORDS, reasoning=["think of ann@", "x.org now"]))
    async with await system.stream("native", PROMPT, metadata={"a": "b"}) as connection:
        frames = await connection.rest()
    assert text_of(frames) == TEXT
    reasoning = "".join(f.data["text"] for f in frames if f.event == "reasoning")
    assert reasoning == "think of [removed] now"
    assert REDACTED in sent_for(system, "native")
    status = await system.status(connection.stream_id)
    assert PRIVATE.search(json.dumps(status)) is None
    assert PRIVATE.search(await stored(system, connection.stream_id)) is None


@pytest.mark.parametrize("provider", ["openai", "anthropic", "ollama"])
async def test_the_other_apis_have_the_same(system: System, provider: str) -> None:
    """The client's original is not sent, also to a provider of its own family."""
    model = f"apis-{provider}"
    system.fake.play(model, Answer(deltas=WORDS))
    name = f"{provider}/{model}"
    async with openai_client(system) as client:
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": PROMPT}], stream=True
            )
        ]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
        response = await client.responses.create(model=name, instructions=PROMPT, input=PROMPT)
        assert response.output_text == TEXT
        follow_up = await client.responses.create(model=name, input="and now?", previous_response_id=response.id)
        assert follow_up.output_text == TEXT
    body = {"model": name, "max_tokens": 99, "messages": [{"role": "user", "content": PROMPT}]}
    answer = await system.http.post(f"{system.url}/v1/messages", json=body)
    assert "".join(block["text"] for block in answer.json()["content"]) == TEXT
    sent = sent_for(system, model)
    assert PRIVATE.search(sent) is None
    assert sent.count(REDACTED) == 5  # instructions and input, and the input again
    assert TEXT in sent, "the follow-up request has the whole conversation"
    assert PRIVATE.search(await stored(system, response.id.removeprefix("resp_"))) is None


async def test_an_unchanged_request_keeps_its_original(system: System) -> None:
    system.fake.play("kept", Answer())
    async with openai_client(system) as client:
        await client.chat.completions.create(
            model="openai/kept", messages=[{"role": "user", "content": "hi"}], extra_body={"only_theirs": 7}
        )
    assert '"only_theirs": 7' in sent_for(system, "kept")


async def test_a_tool_call_is_written_when_the_hooks_have_seen_all_of_it(system: System) -> None:
    call = ToolCall("call_1", "send", ('{"to": "ann', '@mail.org"}'))
    system.fake.play("tools", Answer(deltas=["ok "], tools=[call]))
    async with await system.stream("tools", tools=[TOOL]) as connection:
        frames = await connection.rest()
    calls = [f.data for f in frames if f.event == "tool_call"]
    assert [c["arguments"] for c in calls] == ['{"to": "[removed]"}'] * 2
    assert calls[0]["id"] == calls[1]["id"]
    assert calls[-1]["complete"]
    assert frames[-1].data["finish_reason"] == "tool_calls"


async def test_a_redacted_json_answer_follows_its_schema(system: System) -> None:
    system.fake.play("json", Answer(deltas=['{"to": "an', "n@mail.o", 'rg", "n": 1}']))
    schema = {"type": "object", "properties": {"to": {"type": "string"}, "n": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    async with await system.stream("json", response_format=form) as connection:
        frames = await connection.rest()
    assert text_of(frames) == '{"to": "[removed]", "n": 1}'
    assert [f.data["value"] for f in frames if f.event == "json"][-1] == {"to": "[removed]", "n": 1}


async def test_a_check_refuses_with_its_message_in_every_api(system: System) -> None:
    refused = await system.http.post(f"{system.url}/chat", json=ask("unasked", "this is forbidden"))
    assert refused.status_code == 422
    assert refused.json()["error"] == {
        "code": "request_refused",
        "message": "forbidden for anonymous",
        "retryable": False,
    }
    hidden = ask("unasked", "hi", provider_options={"anthropic": {"system": "this is forbidden"}})
    refused = await system.http.post(f"{system.url}/chat", json=hidden)
    assert code_of(refused) == (422, "request_refused")
    message = [{"role": "user", "content": "forbidden"}]
    for path, body in (
        ("/v1/chat/completions", {"messages": message}),
        ("/v1/messages", {"messages": message, "max_tokens": 9}),
        ("/v1/responses", {"input": "forbidden"}),
    ):
        answer = await system.http.post(f"{system.url}{path}", json={"model": "openai/unasked", **body})
        assert answer.status_code in {400, 422}, path
        assert "forbidden for anonymous" in answer.text, path
    assert sent_for(system, "unasked") == "[]"


@pytest.mark.parametrize("word", ["explode", "sleep", "mistake"])
async def test_a_check_that_fails_refuses(system: System, word: str) -> None:
    answer = await system.http.post(f"{system.url}/chat", json=ask(f"unasked-{word}", f"{word} of-the-prompt"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "hook_failed")
    assert int(answer.headers["Retry-After"]) > 0
    assert sent_for(system, f"unasked-{word}") == "[]"
    log = system.gateways[0].log.read_text()
    assert "hook failed" in log
    assert "of-the-prompt" not in log


@pytest.mark.parametrize(
    ("word", "code"), [("REFUSE", "answer_refused"), ("EXPLODE", "hook_failed"), ("SLEEP", "hook_failed")]
)
async def test_an_answer_is_stopped(system: System, word: str, code: str) -> None:
    """The text before stays; nothing of what the hook refused, or could not check, is written."""
    model = f"stopped-{word}"
    system.fake.play(model, Answer(deltas=["good text. ", word, " and more"]))
    async with await system.stream(model) as connection:
        frames = await connection.rest()
    assert text_of(frames) == "good text. "
    assert error_of(frames)[0] == code
    assert frames[-1].data["finish_reason"] == "error"
    body = {"model": f"openai/{model}", "messages": [{"role": "user", "content": "hi"}]}
    answer = await system.http.post(f"{system.url}/v1/chat/completions", json=body)
    assert code in answer.text


async def test_a_whole_answer_is_refused_at_its_end(system: System) -> None:
    system.fake.play("whole", Answer(deltas=["AT THE END ", "of it"]))
    async with await system.stream("whole") as connection:
        frames = await connection.rest()
    assert text_of(frames) == "AT THE END of it"
    assert error_of(frames)[0] == "answer_refused"
    assert "16 characters, stop" in next(f.data["message"] for f in frames if f.event == "error")


async def test_another_worker_begins_with_a_watch_of_its_own(system: System) -> None:
    """Text that the hook kept in a worker that died is neither lost nor doubled."""
    gate = asyncio.Event()
    system.fake.play("moved", Answer(deltas=WORDS, gate=gate, gate_after=3))
    stream_id = await system.post("moved")

    async def holder() -> str | None:
        return await system.field(stream_id, "holder") if system.fake.calls[-1].model == "moved" else None

    async with await system.read(stream_id) as reader:
        await reader.next("token")
        name = (await system.eventually(holder)).partition(".")[0]
        worker = next(
            each for each in system.workers if f'"worker":"{name}"' in each.log.read_text().replace(" ", "")
        )
        worker.stop()
        gate.set()
        frames = await reader.rest()
    last = max(n for n, frame in enumerate(frames) if frame.event == "start")
    assert text_of(frames[last:]) == TEXT
    worker.start()
    await system.ready()


async def test_a_key_belongs_to_what_the_client_sent(system: System) -> None:
    headers = {"Idempotency-Key": "one-of-hooks"}
    one, two = [
        (await system.http.post(f"{system.url}/chat", json=ask("private", PROMPT), headers=headers)).json()[
            "stream_id"
        ]
        for _ in range(2)
    ]
    assert one == two
    other = await system.http.post(f"{system.url}/chat", json=ask("private", REDACTED), headers=headers)
    assert other.json()["error"]["code"] == "idempotency_conflict"


async def test_a_chat_goes_on_with_the_changed_turns(system: System) -> None:
    system.fake.play("chat", Answer(deltas=WORDS))
    for prompt in (PROMPT, "and now?"):
        async with await system.stream("chat", prompt, chat_id="hooks-1") as connection:
            assert text_of(await connection.rest()) == TEXT
    listed = (await system.http.get(f"{system.url}/chats")).text
    assert PRIVATE.search(listed + sent_for(system, "chat")) is None
    assert TEXT in sent_for(system, "chat")


async def test_check_imports_the_hooks() -> None:
    async def checked(hooks: str) -> tuple[int | None, str]:
        ended = await finish(await headrace("check", HEADRACE_HOOKS=hooks))
        return ended.code, ended.out + ended.err

    assert "tests.fakes.hooks:TestHooks" in (await checked("tests.fakes.hooks:TestHooks"))[1]
    for hooks, problem in (
        ("tests.fakes.hooks:Nothing", "has no Nothing"),
        ("no_such_module:Hooks", "no module no_such_module"),
        ("tests.fakes.hooks:asyncio", "cannot be made"),
        ("examples.python.hooks_moderation:Moderation", "KeyError in"),
    ):
        code, output = await checked(hooks)
        assert (code, problem in " ".join(output.split())) == (1, True), output


async def test_the_moderation_example_asks_an_endpoint(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An endpoint that does not answer any more lets nothing pass."""

    async def moderate(request: web.Request) -> web.Response:
        text = (await request.json())["input"]
        return web.json_response({"id": "m", "model": "m", "results": [{"flagged": "evil" in text}]})

    app = web.Application()
    app.router.add_post("/v1/moderations", moderate)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    system = System(
        tmp_path_factory.mktemp("moderated"),
        providers=("openai",),
        hooks="examples.python.hooks_moderation:Moderation",
        hook_timeout_s=60,
        environment={"MODERATION_BASE_URL": f"http://127.0.0.1:{port}/v1", "MODERATION_API_KEY": "key"},
    )
    try:
        await system.start()
        system.fake.play("good", Answer(deltas=["all is well"]))
        system.fake.play("bad", Answer(deltas=["all is well. ", *["and so on, "] * 40, "evil ", "x" * 400, "never"]))
        assert text_of(await (await system.stream("good")).rest()) == "all is well"
        refused = await system.http.post(f"{system.url}/chat", json=ask("good", "an evil plan"))
        assert refused.json()["error"]["code"] == "request_refused"
        frames = await (await system.stream("bad")).rest()
        assert error_of(frames)[0] == "answer_refused"
        assert "never" not in text_of(frames)
        await runner.cleanup()
        failed = await system.http.post(f"{system.url}/chat", json=ask("good"))
        assert failed.json()["error"]["code"] == "hook_failed"
    finally:
        await runner.cleanup()
        await system.stop()
