"""The routes ``/ag-ui`` beyond the cells of the compatibility matrix. The models of `ag-ui-protocol` check every
event, and the client in Node is AG-UI's own."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest
from ag_ui.core import AgentCapabilities, Event
from pydantic import TypeAdapter

from gateway.dialects.ag_ui.request import parse
from shared.errors import InvalidRequest
from tests.conformance.bench import a_bad_network
from tests.conformance.node import NODE, Node
from tests.conformance.outcome import Ask, Outcome
from tests.conftest import StartSystem
from tests.fakes.answer import Answer, Counts, ToolCall, Turnstile
from tests.responses import code_of
from tests.system import REPOSITORY, System

WORDS = ("Hello", ", ", "wor", "ld", ".")
TEXT = "".join(WORDS)
USER = {"id": "u1", "role": "user", "content": "hi"}
TOOL = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
PNG = "iVBORw0KGgo="
EVENT: TypeAdapter[Event] = TypeAdapter(Event)


@pytest.fixture(scope="session")
async def node() -> AsyncIterator[Node]:
    async with Node() as node:
        yield node


@dataclass(frozen=True, slots=True)
class Frame:
    id: str | None
    data: dict[str, Any]


def run_input(run: str, model: str, *messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return what `HttpAgent` sends. ``more``: further ``forwardedProps``."""
    props = {"model": f"openai/{model}" if "/" not in model else model, **more}
    return {
        **{"threadId": "t", "runId": run, "state": {}, "messages": list(messages) or [USER]},
        **{"tools": [], "context": [], "forwardedProps": props},
    }


def frames_of(answer: httpx2.Response, *, with_all: bool = False) -> list[Frame]:
    """Return the frames; each is an event of AG-UI. Those that no log has are left out unless ``with_all``."""
    assert answer.status_code == 200, answer.text
    found = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith((":", "retry")))
        if fields:
            data = json.loads(fields["data"])
            EVENT.validate_python(data)
            found.append(Frame(fields.get("id"), data))
    return [frame for frame in found if with_all or frame.id is not None]


def message_of(refused: httpx2.Response) -> str:
    return str(refused.json()["error"]["message"])


def types(frames: list[Frame]) -> list[str]:
    return [frame.data["type"] for frame in frames]


def text_of(frames: list[Frame]) -> str:
    return "".join(frame.data["delta"] for frame in frames if frame.data["type"] == "TEXT_MESSAGE_CONTENT")


async def run(system: System, body: dict[str, Any]) -> list[Frame]:
    return frames_of(await system.http.post(f"{system.url}/ag-ui", json=body))


async def read(system: System, run_id: str, cursor: str | None = None, **query: str) -> httpx2.Response:
    headers = {} if cursor is None else {"Last-Event-ID": cursor}
    parameters = {"threadId": "t", **query}
    return await system.http.get(f"{system.url}/ag-ui/runs/{run_id}", headers=headers, params=parameters)


async def test_a_run_that_is_cut_after_any_event_is_resumed_by_get_and_by_post(system: System) -> None:
    calls = [ToolCall("a", "look", ('{"x"', ": 1}")), ToolCall("b", "look", ('{"y": "', 'é"}'))]
    answer = Answer(deltas=WORDS, reasoning=("Let me ", "think"), tools=calls, usage=Counts(5, 9, cached=2))
    system.fake.play("ag-cut", answer)
    body = {**run_input("ag-cut", "anthropic/ag-cut"), "tools": [TOOL]}
    whole = await run(system, body)
    assert types(whole)[0] == "RUN_STARTED"
    assert [kind for kind in types(whole) if kind in ("RUN_FINISHED", "RUN_ERROR")] == ["RUN_FINISHED"]
    assert whole[-1].data["result"] == {"finishReason": "tool_calls"}
    assert whole[-1].data["usage"][0]["cachedInputTokens"] == 2
    assert text_of(whole) == TEXT
    for cut in range(1, len(whole)):
        cursor = whole[cut - 1].id
        assert frames_of(await read(system, "ag-cut", cursor)) == whole[cut:], whole[cut - 1]
        answer_to_post = await system.http.post(
            f"{system.url}/ag-ui", json=body, headers={"Last-Event-ID": str(cursor)}
        )
        assert frames_of(answer_to_post) == whole[cut:]
    assert (await read(system, "ag-cut", whole[-1].id)).status_code == 204
    again = await system.http.post(f"{system.url}/ag-ui", json=body, headers={"Last-Event-ID": str(whole[-1].id)})
    assert frames_of(again) == whole[-1:]
    assert len([call for call in system.fake.calls if call.model == "ag-cut"]) == 1
    for frame in (whole[-3], whole[-1]):  # cursors beyond the end, of no run
        place, _, tail = str(frame.id).partition(".")
        epoch, _, seq = place.partition("-")
        reset = frames_of(await read(system, "ag-cut", f"{epoch}-{int(seq) + 1000}.{tail}"))
        assert types(reset)[0] == "MESSAGES_SNAPSHOT"
        assert reset[1:] == whole[1:]


async def test_a_run_that_goes_on_is_resumed_at_another_gateway(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("ag-on", Answer(deltas=WORDS, gate=gate, gate_after=3))
    received: list[str] = []
    async with system.http.stream("POST", f"{system.url}/ag-ui", json=run_input("ag-on", "ag-on")) as answer:
        async for line in answer.aiter_lines():
            received.append(line)
            if "TEXT_MESSAGE_CONTENT" in line and "wor" in line:
                break
    cursor = next(line for line in reversed(received) if line.startswith("id: ")).removeprefix("id: ")
    url = f"{system.gateways[1].url}/ag-ui/runs/ag-on?threadId=t"
    headers = {"Last-Event-ID": cursor}
    reading = asyncio.create_task(system.http.get(url, headers=headers))
    late = asyncio.create_task(read(system, "ag-on"))
    joined = asyncio.create_task(read(system, answer.headers["x-stream-id"]))
    gate.set()
    assert text_of(frames_of(await reading)) == "ld."
    everything = frames_of(await late)
    assert frames_of(await joined) == everything
    assert types(everything)[:2] == ["RUN_STARTED", "MESSAGES_SNAPSHOT"]
    assert everything[1].data["messages"] == [USER]
    assert text_of(everything) == TEXT


async def test_a_repeated_run_attaches_and_another_request_under_its_id_is_refused(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("ag-again", Answer(deltas=WORDS, gate=gate))
    body = run_input("ag-again", "ag-again")
    both = [asyncio.create_task(run(system, body)) for _ in range(2)]
    await system.eventually(lambda: has_calls(system, "ag-again"))
    gate.set()
    assert [text_of(await each) for each in both] == [TEXT, TEXT]
    # The client's own part of the answer is no part of the request.
    partial = {"id": next(f.data["messageId"] for f in await both[0] if "messageId" in f.data), "role": "assistant"}
    assert text_of(await run(system, run_input("ag-again", "ag-again", USER, {**partial, "content": "Hel"}))) == TEXT
    assert len([call for call in system.fake.calls if call.model == "ag-again"]) == 1
    other = run_input("ag-again", "ag-again", {**USER, "content": "something else"})
    refused = await system.http.post(f"{system.url}/ag-ui", json=other)
    assert code_of(refused) == (409, "idempotency_conflict")
    assert message_of(refused) == "runId: already used with another request; send a new runId"
    system.fake.play("ag-again", Answer(deltas=("other",)))
    assert text_of(await run(system, {**body, "threadId": "t2"})) == "other"


async def has_calls(system: System, model: str) -> bool:
    return any(call.model == model for call in system.fake.calls)


async def test_a_cursor_starts_no_run(system: System) -> None:
    body = run_input("ag-none", "ag-none")

    async def refusal() -> httpx2.Response | None:
        answer = await system.http.post(f"{system.url}/ag-ui", json=body, headers={"Last-Event-ID": "0-0.2"})
        return None if code_of(answer) == (503, "stream_recovering") else answer  # Redis has just started

    assert code_of(await system.eventually(refusal)) == (404, "stream_not_found")
    assert (await read(system, "ag-none")).status_code == 404
    malformed = await system.http.post(f"{system.url}/ag-ui", json=body, headers={"Last-Event-ID": "5-3"})
    assert code_of(malformed) == (400, "invalid_last_event_id")
    without_thread = await system.http.get(f"{system.url}/ag-ui/runs/ag-none")
    assert code_of(without_thread) == (422, "invalid_request")


async def test_a_cancelled_run_keeps_its_text_and_a_deleted_one_is_gone(system: System) -> None:
    system.fake.play("ag-stop", Answer(deltas=WORDS, gate=asyncio.Event(), gate_after=3))
    running = asyncio.create_task(run(system, run_input("ag-stop", "ag-stop")))
    await system.eventually(lambda: has_calls(system, "ag-stop"))
    (call,) = [call for call in system.fake.calls if call.model == "ag-stop"]
    await call.wait_deltas(3)
    cancelled = await system.http.post(f"{system.url}/ag-ui/runs/ag-stop/cancel?threadId=t")
    assert cancelled.status_code == 202, cancelled.text
    frames = await running
    assert (frames[-1].data["type"], frames[-1].data["code"]) == ("RUN_ERROR", "cancelled")
    assert TEXT.startswith(text_of(frames))
    assert text_of(frames_of(await read(system, "ag-stop"))) == text_of(frames)
    assert (await system.http.delete(f"{system.url}/ag-ui/runs/ag-stop?threadId=t")).status_code == 204
    assert (await read(system, cancelled.json()["stream_id"])).status_code == 410


async def test_tools_and_reasoning_go_back_to_the_provider(system: System, node: Node) -> None:
    calls = [ToolCall("a", "look", ('{"x"', ": 1}")), ToolCall("b", "look", ("{}",))]
    first = Answer(deltas=("I look",), reasoning=("Let me ", "think"), tools=calls)
    system.fake.play("ag-tools", first, Answer(deltas=("done",)))
    outcome = Outcome()
    ask = Ask(base=system.url, model="anthropic/ag-tools", tools=("look",))
    await node.run("ag-ui-turns", ask, outcome, lambda: None)
    assert (outcome.error, outcome.text) == (None, "done")
    assert [message["role"] for message in outcome.messages] == [
        *("user", "reasoning", "assistant", "tool", "tool", "assistant")
    ]
    call = [call for call in system.fake.calls if call.model == "ag-tools"][-1]
    thinking, text, *uses = call.messages[1]["content"]
    assert (thinking["type"], thinking["thinking"]) == ("thinking", "Let me think")
    assert thinking["signature"]
    assert text["text"] == "I look"
    assert [(use["name"], use["input"]) for use in uses] == [("look", {"x": 1}), ("look", {})]
    assert [result["content"] for result in call.messages[2]["content"]] == ["did a", "did b"]


async def test_the_request_reaches_the_provider_as_a_chat(system: System) -> None:
    system.fake.play("ag-all", Answer(deltas=WORDS))
    image = {"type": "image", "source": {"type": "data", "value": PNG, "mimeType": "image/png"}}
    old_image = {"type": "binary", "mimeType": "image/png", "data": PNG}
    messages: list[dict[str, Any]] = [
        {"id": "s", "role": "developer", "content": "Be brief."},
        {"id": "u", "role": "user", "content": [{"type": "text", "text": "What is it?"}, image, old_image]},
        {"id": "x", "role": "activity", "activityType": "plan", "content": {}},
        {"id": "r", "role": "reasoning", "content": "only shown"},
        {"id": "e", "role": "assistant", "content": ""},
    ]
    body = run_input("ag-all", "ag-all", *messages, temperature=0.5, ours="x") | {
        "tools": [TOOL],
        "context": [{"description": "The page", "value": "/cart"}],
        "state": {"count": 1},
        "parentRunId": "before",
    }
    answer = await system.http.post(f"{system.url}/ag-ui", json=body)
    assert text_of(frames_of(answer)) == TEXT
    assert answer.headers["x-headrace-ignored"] == "state, parentRunId, forwardedProps.ours"
    (call,) = [call for call in system.fake.calls if call.model == "ag-all"]
    assert call.request["temperature"] == 0.5
    assert call.request["tools"][0]["function"] == TOOL
    texts = [message["content"] for message in call.messages if message["role"] in ("system", "developer")]
    assert texts == ["Be brief.", "Context from the application:\n\nThe page:\n/cart"]
    parts = next(message["content"] for message in call.messages if message["role"] == "user")
    assert [part["type"] for part in parts] == ["text", "image_url", "image_url"]
    assert {part["image_url"]["url"] for part in parts[1:]} == {f"data:image/png;base64,{PNG}"}
    refused = await system.http.post(
        f"{system.url}/ag-ui", json=run_input("ag-strict", "ag-all", ours="x", unsupported_fields="refuse")
    )
    assert message_of(refused) == "forwardedProps.ours: not supported; remove the field"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "thread": ({"threadId": ""}, "threadId: must be a string of 1 to 256 characters"),
    "run": ({"runId": None}, "runId: must be a string of 1 to 256 characters"),
    "stream": ({"runId": "00" * 17}, "runId: has the form of a stream id; send another id, such as a UUID"),
    "messages": ({"messages": {}}, "messages: must be a list of AG-UI messages"),
    "role": ({"messages": [{"role": "bot"}]}, "messages.0.role: must be one of developer, system, "),
    "content": ({"messages": [{**USER, "content": 1}]}, "messages.0.content: must be a string or a list of parts"),
    "part": ({"messages": [{**USER, "content": [{"type": "x"}]}]}, "messages.0.content.0.type: not supported; "),
    "file": (
        {"messages": [{**USER, "content": [{"type": "image", "source": {"type": "file", "value": "f1"}}]}]},
        "messages.0.content.0.source: not supported; send an http or https address, or data in base64",
    ),
    "system": ({"messages": [{"id": "s", "role": "system", "content": []}]}, "messages.0.content: must be a string"),
    "calls": (
        {"messages": [{"id": "a", "role": "assistant", "toolCalls": [{"id": "c"}]}]},
        "messages.0.toolCalls.0.function: must be an object",
    ),
    "tools": ({"tools": ["look"]}, "tools.0: must be an object"),
    "tool name": ({"tools": [{"description": "", "parameters": {}}]}, "tools.0.name: "),
    "result": (
        {"messages": [{"id": "x", "role": "reasoning", "content": ""}, {"id": "t", "role": "tool", "content": "4"}]},
        "messages.1: ",
    ),
    "model": ({"forwardedProps": {}}, "forwardedProps.model: "),
    "property": ({"forwardedProps": {"model": "m", "temperature": "hot"}}, "forwardedProps.temperature: "),
    "context": ({"context": [{"value": 1}]}, "context.0: must have a description and a value, both strings"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_an_error_that_names_the_field(name: str) -> None:
    members, message = BAD[name]
    with pytest.raises(InvalidRequest) as refused:
        parse(json.dumps(run_input("r", "m") | members).encode(), None)
    assert refused.value.message.startswith(message)


async def test_a_failed_run_has_one_ending(system: System) -> None:
    system.fake.play("ag-fail", Answer(deltas=WORDS, end="error_in_band"))
    frames = await run(system, run_input("ag-fail", "ag-fail"))
    assert text_of(frames) == TEXT
    assert types(frames)[-1] == "RUN_ERROR"
    assert frames[-1].data["code"]
    assert frames[-1].data["metadata"]["retryable"] in (True, False)
    for cut in range(1, len(frames)):
        assert frames_of(await read(system, "ag-fail", frames[cut - 1].id)) == frames[cut:]


async def test_the_capabilities_are_those_of_the_protocol(system: System) -> None:
    answer = await system.http.get(f"{system.url}/ag-ui/capabilities")
    declared = AgentCapabilities.model_validate(answer.json())
    assert declared.transport is not None
    assert (declared.transport.streaming, declared.transport.resumable) == (True, True)
    assert not declared.model_extra


async def test_a_stream_of_another_api_is_read_as_a_run(system: System) -> None:
    system.fake.play("ag-other", Answer(deltas=WORDS))
    stream_id = await system.post("ag-other")
    await system.ended(stream_id)
    frames = frames_of(await read(system, stream_id))
    assert frames[0].data | {"protocolVersion": ""} == {
        **{"type": "RUN_STARTED", "threadId": stream_id, "runId": stream_id, "protocolVersion": ""}
    }
    assert (types(frames)[1], text_of(frames)) == ("TEXT_MESSAGE_START", TEXT)


def calls_in(text: str) -> set[int]:
    """Return the numbers of the provider's calls whose words are in a text."""
    return {int(number) for number in re.findall(r"\[(\d+)\]", text)}


async def cursor_in_text(system: System, run_id: str, thread_id: str | None = None) -> str:
    """Return a cursor in the text of the answer that is under way."""
    url = f"{system.url}/ag-ui/runs/{run_id}?threadId={thread_id or run_id}"
    async with system.http.stream("GET", url) as answer:
        last = ""
        async for line in answer.aiter_lines():
            last = line.removeprefix("id: ") if line.startswith("id: ") else last
            if "TEXT_MESSAGE_CONTENT" in line:
                return last
    raise AssertionError("the run has no text")


async def check_reset_beyond_the_end(system: System, run_id: str) -> None:
    """A reader whose cursor is beyond the end of a run is not left without the answer that is under way."""
    place, _, tail = (await cursor_in_text(system, run_id)).partition(".")
    epoch, _, seq = place.partition("-")
    url = f"{system.url}/ag-ui/runs/{run_id}?threadId={run_id}"
    headers = {"Last-Event-ID": f"{epoch}-{int(seq) + 1000}.{tail}"}
    seen = list[str]()
    async with system.http.stream("GET", url, headers=headers) as answer:
        async for line in answer.aiter_lines():
            seen += [line] if line.startswith("data: ") and "CUSTOM" not in line else []
            if "TEXT_MESSAGE_CONTENT" in line:
                break
    kinds = [json.loads(line.removeprefix("data: "))["type"] for line in seen]
    assert kinds == ["TEXT_MESSAGE_END", "MESSAGES_SNAPSHOT", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"]


async def test_a_worker_that_is_killed_in_mid_answer_leaves_no_text(start_system: StartSystem, node: Node) -> None:
    """Four readers: AG-UI's client that stays, the same with the documented fetch over a network that breaks, one
    that resumes after the restart, and one of a run whose messages are too large to be stored again."""
    system = await start_system(gateways=1, workers=2, lease_s=3, retry_ms=50)
    system.workers[1].signal(signal.SIGSTOP)  # the first one takes both runs
    turnstile = Turnstile()
    answer = Answer(deltas=lambda n: [f"[{n}]{word}" for word in WORDS], turnstile=turnstile)
    system.fake.play("ag-killed", answer)
    system.fake.play("ag-large", answer)
    body = run_input("ag-large", "ag-large", {**USER, "content": "x" * 70_000})
    async with a_bad_network(system) as (proxy, base):
        stays, breaks, grown = Outcome(), Outcome(), asyncio.Event()
        ask = Ask(base=system.url, model="openai/ag-killed", key="ag-killed")
        running = [
            asyncio.create_task(node.run("ag-ui", ask, stays, lambda: None)),
            asyncio.create_task(node.run("ag-ui", replace(ask, base=base, resume=True), breaks, grown.set)),
        ]
        large = asyncio.create_task(system.http.post(f"{system.url}/ag-ui", json=body))
        await turnstile.allow(3)
        await grown.wait()
        cursor = await cursor_in_text(system, "ag-killed")
        await cursor_in_text(system, "ag-large", "t")
        proxy.reset()
        made = len(system.fake.calls)
        system.workers[1].signal(signal.SIGCONT)
        system.workers[0].stop()
        await system.fake.wait_calls(made + 2)
        await check_reset_beyond_the_end(system, "ag-killed")
        await turnstile.allow(len(WORDS))
        await asyncio.gather(*running)
    assert (stays.error, breaks.error) == (None, None)
    again = max(calls_in(stays.text))
    assert again >= 3  # of the second worker
    assert stays.text == breaks.text == "".join(f"[{again}]{word}" for word in WORDS)

    rest = frames_of(await read(system, "ag-killed", cursor, threadId="ag-killed"))
    assert types(rest)[:3] == ["TEXT_MESSAGE_END", "MESSAGES_SNAPSHOT", "TEXT_MESSAGE_START"]
    assert (text_of(rest), types(rest)[-1]) == (stays.text, "RUN_FINISHED")
    for cut in range(1, len(rest)):  # also while the first answer is taken back
        rest_of_it = frames_of(await read(system, "ag-killed", rest[cut - 1].id, threadId="ag-killed"))
        assert rest_of_it == rest[cut:]

    frames = frames_of(await large, with_all=True)
    assert (frames[-1].data["type"], frames[-1].data["code"]) == ("RUN_ERROR", "stream_reset")
    assert len(calls_in(text_of(frames))) == 1  # the text of two answers is never mixed


def test_answers_of_other_runs_stay_in_the_request() -> None:
    """A run's id may begin with that of another run."""
    answers = [{"id": id, "role": "assistant", "content": id} for id in ("run/2/5", "run/5", "run/5/r1")]
    kept, _ = parse(json.dumps(run_input("run", "m", USER, *answers)).encode(), None)
    assert [message.text for message in kept.messages] == ["hi", "run/2/5"]


#: Plays responses to the documented fetch, and prints the cursors that it sent and how its run ended.
PLAYED = """
import { resumingFetch } from './resume.js';
globalThis.setTimeout = (work) => setImmediate(work);
const responses = JSON.parse(process.argv[1]);
const cursors = [];
const play = async (_, { headers }) => {
  cursors.push(headers.get('Last-Event-ID'));
  return new Response(responses.shift() ?? '');
};
const response = await resumingFetch(play)('http://x/', {});
const ended = await response.text().then(() => 'ended', () => 'failed');
console.log(JSON.stringify([cursors, ended]));
"""


@pytest.mark.parametrize(
    ("responses", "cursors", "ended"),
    [
        (
            ['id: 5-1.1\ndata: {"delta":"\u2028id: no"}\n\n', 'data: {"type":"RUN_FINISHED"}\n\n'],
            ["0", "5-1.1"],
            "ended",
        ),
        ([], ["0"] * 11, "failed"),
    ],
    ids=["a text with a line separator", "a proxy that answers with nothing"],
)
async def test_the_documented_fetch_resumes_at_the_last_id_and_gives_up(
    responses: list[str], cursors: list[str], ended: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(str(NODE), "--input-type=module", "--eval", PLAYED, json.dumps(responses)),
        cwd=REPOSITORY / "examples" / "ag-ui",
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    assert json.loads(printed) == [cursors, ended]


def test_the_docs_show_the_fetch_of_the_examples() -> None:
    document = (REPOSITORY / "docs" / "compatibility.md").read_text()
    assert f"```js\n{(REPOSITORY / 'examples' / 'ag-ui' / 'resume.js').read_text()}```" in document
