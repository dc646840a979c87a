"""A server of OpenAI's Responses as the upstream of every dialect."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from shared.configuration.configuration import load_configuration
from shared.configuration.entries import ProviderEntry
from shared.model_patterns import matches_any
from shared.settings import Settings
from tests.fakes import Answer, FakeProvider
from tests.fakes.answer import Call, Counts, ToolCall
from tests.responses_frames import ended, event, frames, message, response
from tests.sse_client import open_sse
from tests.system import System
from tests.test_codex import PATCH, PIXEL, TOOLS, request
from tests.test_lost_processes import holder
from workers.providers.endpoint import Endpoint
from workers.providers.openai_apis import responses_models

CONFIGURATION: Final = """
[providers.up]
kind = "openai-responses"
base_url = "{fake.openai_base_url}"
api_keys = ["env:UP_KEY"]

[providers.both]
kind = "openai"
base_url = "{fake.openai_base_url}"
responses_models = ["*-codex", "o9-pro*"]
"""
FUNCTION: Final = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}
USER: Final = {"role": "user", "content": "hi"}
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Upstream:
    """A system with a Responses server as its only upstream."""

    system: System
    fake: FakeProvider

    async def post(self, path: str, body: Body, **headers: str) -> Any:
        """Return the JSON of an answer."""
        answer = await self.system.http.post(f"{self.system.url}{path}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def events(self, body: Body) -> list[Body]:
        """Return the events of a streamed response, which must be those of a replay too."""
        url = f"{self.system.url}/v1/responses"
        async with await open_sse("POST", url, json=body | {"stream": True}) as connection:
            assert connection.status == 200
            seen = [frame.data async for frame in connection.frames()]
        async with await open_sse("GET", f"{url}/{seen[0]['response']['id']}?stream=true") as connection:
            assert [frame.data async for frame in connection.frames()] == seen
        assert [each["sequence_number"] for each in seen] == list(range(len(seen)))
        return seen

    def calls(self, model: str) -> list[Call]:
        return [call for call in self.fake.calls if call.model == model]

    def sent(self, model: str) -> Body:
        """Return the latest request for a model."""
        return self.calls(model)[-1].request


@pytest.fixture(scope="module")
async def upstream(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Upstream]:
    system = System(
        tmp_path_factory.mktemp("responses-upstream"),
        gateways=1,
        workers=2,
        providers=("up", "both"),
        environment={"UP_KEY": "key-of-up"},
        configuration=CONFIGURATION,
        provider_retries=0,
        lease_s=5,
    )
    try:
        await system.start()
        yield Upstream(system, system.fake)
    finally:
        await system.stop()


# --- every dialect


async def test_a_native_client_gets_text_reasoning_calls_and_counts(upstream: Upstream) -> None:
    usage = Counts(30, 12, cached=20, reasoning=7)
    tools = (ToolCall("c1", "look", ('{"a"', ": 1}")), ToolCall("c2", "look"))
    upstream.fake.play("native", Answer(reasoning=("I ", "think"), deltas=("a", "b"), tools=tools, usage=usage))
    body = {
        "provider": "up",
        "model": "native",
        "messages": [{"role": "system", "content": "Be brief."}, USER],
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": "required",
        "parallel_tool_calls": True,
        "max_tokens": 99,
        "temperature": 0.5,
        "reasoning_effort": "low",
        "stop": ["x"],
        "user": "u1",
        "response_format": {"type": "json_object"},
    }
    async with await open_sse("POST", f"{upstream.system.url}/chat/stream", json=body) as connection:
        seen = [frame async for frame in connection.frames()]
    kinds = {kind: [frame.data for frame in seen if frame.event == kind] for kind in ("token", "reasoning", "done")}
    assert "".join(each["token"] for each in kinds["token"]) == "ab"
    assert "".join(each["text"] for each in kinds["reasoning"]) == "I think"
    calls = [frame.data for frame in seen if frame.event == "tool_call" and frame.data["complete"]]
    assert [(call["id"], call["arguments"]) for call in calls] == [("c1", '{"a": 1}'), ("c2", "{}")]
    (done,) = kinds["done"]
    assert done["finish_reason"] == "tool_calls"
    assert (done["usage"]["cached_tokens"], done["usage"]["reasoning_tokens"]) == (20, 7)
    (start,) = [frame.data for frame in seen if frame.event == "start"]
    assert start["ignored"] == ["stop"]
    assert upstream.sent("native") == {
        "model": "native",
        "instructions": "Be brief.",
        "input": [{"type": "message", "role": "user", "content": "hi"}],
        "temperature": 0.5,
        "user": "u1",
        "parallel_tool_calls": True,
        "max_output_tokens": 99,
        "tools": [{"type": "function", **FUNCTION, "strict": False}],
        "tool_choice": "required",
        "text": {"format": {"type": "json_object"}},
        "reasoning": {"effort": "low", "summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "stream": True,
    }
    assert upstream.calls("native")[-1].headers["authorization"] == "Bearer key-of-up"


async def test_a_chat_client_sends_encrypted_reasoning_back(upstream: Upstream) -> None:
    tools = (ToolCall("c1", "look"),)
    upstream.fake.play("chat", Answer(reasoning=("hm",), deltas=("I look.",), tools=tools), Answer())
    body: Body = {
        "model": "up/chat",
        "messages": [USER],
        "tools": [{"type": "function", "function": FUNCTION}],
    }
    first = (await upstream.post("/v1/chat/completions", body))["choices"][0]["message"]
    assert first["reasoning_content"] == "hm"
    result = {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "a cat"}
    await upstream.post("/v1/chat/completions", body | {"messages": [USER, first, result]})
    reasoning, text, call, output = upstream.sent("chat")["input"][1:]
    check_reasoning(reasoning, "hm")
    assert text == {"type": "message", "role": "assistant", "content": "I look."}
    assert call == {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    assert output == {"type": "function_call_output", "call_id": "c1", "output": "a cat"}


async def test_a_messages_client_sends_encrypted_reasoning_back(upstream: Upstream) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    upstream.fake.play("messages", Answer(reasoning=("hm",), deltas=(), tools=(ToolCall("c1", "look"),)), Answer())
    tool = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
    body: Body = {"model": "up/messages", "max_tokens": 50, "messages": [USER], "tools": [tool], "system": "S"}
    blocks = (await upstream.post("/v1/messages", body))["content"]
    assert [block["type"] for block in blocks] == ["thinking", "tool_use"]
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [image]}
    turns = [{"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]
    await upstream.post("/v1/messages", body | {"messages": [USER, *turns]})
    sent = upstream.sent("messages")
    reasoning, call, output = sent["input"][1:]
    check_reasoning(reasoning, "hm")
    assert call["call_id"] == "c1"
    url = f"data:image/png;base64,{PIXEL}"
    assert output["output"] == [{"type": "input_image", "image_url": url, "detail": "auto"}]
    assert (sent["instructions"], sent["max_output_tokens"]) == ("S", 50)


async def test_a_page_of_the_ai_sdk_sends_encrypted_reasoning_back(upstream: Upstream) -> None:
    upstream.fake.play("page", Answer(reasoning=("hm",), deltas=("done",)), Answer())
    question = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "look"}]}
    body: Body = {"id": "page", "model": "up/page", "messages": [question]}
    url = f"{upstream.system.url}/api/chat"
    lines = (await upstream.system.http.post(url, json=body)).text.splitlines()
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    (end,) = [chunk for chunk in chunks if chunk["type"] == "reasoning-end"]
    parts = [
        {"type": "reasoning", "text": "hm", "providerMetadata": end["providerMetadata"]},
        {"type": "text", "text": "done"},
    ]
    turn = {"id": "a1", "role": "assistant", "parts": parts}
    again = {**body, "messages": [question, turn, question | {"id": "u2"}]}
    assert (await upstream.system.http.post(url, json=again)).status_code == 200
    check_reasoning(upstream.sent("page")["input"][1], "hm")


def check_reasoning(item: Body, text: str) -> None:
    assert item["type"] == "reasoning"
    assert item["summary"] == [{"type": "summary_text", "text": text}]
    assert item["encrypted_content"] == f"encrypted {item['id']} {text}"


# --- clients of the same API


async def test_a_request_reaches_the_server_equal_and_in_its_order(upstream: Upstream) -> None:
    upstream.fake.play("equal", Answer())
    body: Body = {
        "instructions": None,
        "input": [
            {"role": "user", "content": [{"text": "x", "type": "input_text"}, {"type": "input_audio", "data": "AA"}]},
            {
                "type": "web_search_call",
                "id": "ws_1",
                "status": "completed",
                "action": {"query": "q", "type": "search"},
            },
            {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "ZW5j"},
            {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "p"},
            {"type": "custom_tool_call_output", "call_id": "c", "output": "ok"},
            {"type": "item_of_next_year", "future": {"b": 1, "a": 2}},
        ],
        "tools": [{"type": "web_search", "filters": {"b": 1, "a": 2}}, *TOOLS],
        "tool_choice": {"type": "web_search"},
        "include": ["web_search_call.action.sources", "message.output_text.logprobs"],
        "truncation": "auto",
        "service_tier": "flex",
        "top_logprobs": 3,
        "max_tool_calls": 4,
        "metadata": {"a": "b"},
        "text": {"verbosity": "low"},
        "stream_options": {"include_obfuscation": False},
        "prompt_cache_key": "k",
    }
    await upstream.post("/v1/responses", {"model": "up/equal", **body, "fallbacks": [], "grace_s": 5})
    sent = upstream.sent("equal")
    assert sent == body | {"model": "equal", "stream": True}
    for name in ("input", "tools"):
        assert json.dumps(sent[name]) == json.dumps(body[name])


@pytest.mark.parametrize("provider", ["up", "both"])
async def test_a_session_of_codex_is_lossless(upstream: Upstream, provider: str) -> None:
    """A call of a custom tool and an image in an output; the client returns each item as it got it."""
    model = f"{provider}-codex"
    custom = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c1", "name": "apply_patch", "input": PATCH}
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "ZW5j"}
    agent = {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "spawn_agent", "arguments": "{}"}
    agent["namespace"] = "multi_agent_v1"
    halves = (PATCH[:9], PATCH[9:])
    where: Body = {"output_index": 1, "item_id": "ctc_1"}
    raw = frames(
        event("output_item.added", output_index=0, item=reasoning | {"encrypted_content": "beg"}),
        event("output_item.done", output_index=0, item=reasoning),
        event("output_item.added", output_index=1, item=custom | {"input": "", "status": "in_progress"}),
        *(event("custom_tool_call_input.delta", **where, delta=half) for half in halves),
        event("custom_tool_call_input.done", **where, input=PATCH),
        event("output_item.done", output_index=1, item=custom),
        event("output_item.added", output_index=2, item=agent | {"arguments": ""}),
        event("function_call_arguments.delta", output_index=2, item_id="fc_2", delta="{}"),
        event("output_item.done", output_index=2, item=agent),
        ended(reasoning, custom, agent),
    )
    upstream.fake.play(model, Answer(raw=raw), Answer())
    body = request(f"{provider}/{model}")
    seen = await upstream.events(body)
    assert upstream.sent(model) == body | {"model": model, "stream": True}
    items = seen[-1]["response"]["output"]
    assert [item["type"] for item in items] == ["reasoning", "custom_tool_call", "function_call"]
    assert items[0]["encrypted_content"] == "ZW5j"
    assert (items[1]["input"], items[2]["namespace"], items[2]["name"]) == (PATCH, "multi_agent_v1", "spawn_agent")
    deltas = [each["delta"] for each in seen if each["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(deltas) == PATCH

    image = [{"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "high"}]
    outputs = [
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "Success."},
        {"type": "function_call_output", "call_id": "c2", "output": image},
    ]
    # Codex returns reasoning without its id.
    returned = [{name: value for name, value in items[0].items() if name != "id"}, *items[1:], *outputs]
    body["input"] += returned
    await upstream.events(body)
    sent = upstream.sent(model)
    ours = [returned[0], returned[1] | {"id": "ctc_1"}, returned[2] | {"id": "fc_2"}, *outputs]
    assert sent == body | {"model": model, "stream": True, "input": [*body["input"][: -len(returned)], *ours]}


async def test_ids_of_items_go_back_as_the_server_gave_them(upstream: Upstream) -> None:
    upstream.fake.play("ids", Answer(reasoning=("hm",), deltas=("a",), tools=(ToolCall("c1", "look"),)), Answer())
    tool = {"type": "function", **FUNCTION, "strict": True}
    body: Body = {"model": "up/ids", "input": "hi", "tools": [tool], "include": ["reasoning.encrypted_content"]}
    first = await upstream.post("/v1/responses", body)
    result = {"type": "function_call_output", "call_id": "c1", "output": "ok"}
    again = [{"role": "user", "content": "hi"}, *first["output"], result]
    await upstream.post("/v1/responses", body | {"input": again})
    number = upstream.calls("ids")[0].number
    reasoning, text, call, _ = upstream.sent("ids")["input"][1:]
    assert reasoning["id"] == f"rs_{number:x}_0"
    assert text["id"] == f"msg_{number:x}_1"
    assert call["id"] == "fc_c1"
    check_reasoning(reasoning, "hm")


@pytest.mark.parametrize("refers", ["previous_response_id", "item_reference"])
async def test_a_follow_up_sends_the_whole_conversation(upstream: Upstream, refers: str) -> None:
    model = f"follow-{refers}"
    upstream.fake.play(model, Answer(reasoning=("hm",), deltas=("a",)), Answer(deltas=("b",)), Answer())
    body: Body = {"model": f"up/{model}", "include": ["reasoning.encrypted_content"]}
    first = await upstream.post("/v1/responses", body | {"input": "one", "instructions": "only now"})
    if refers == "item_reference":
        known = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
        question = {"role": "user", "content": "two"}
        await upstream.post("/v1/responses", body | {"input": [*known, question]})
        reasoning, text, last = upstream.sent(model)["input"]
    else:
        second = await upstream.post("/v1/responses", body | {"input": "two", "previous_response_id": first["id"]})
        sent = upstream.sent(model)
        one, reasoning, text, last = sent["input"]
        assert one["content"] == "one"
        assert "instructions" not in sent
        third = {"input": [{"role": "user", "content": "three"}], "previous_response_id": second["id"]}
        await upstream.post("/v1/responses", body | third)
        assert [item.get("role") for item in upstream.sent(model)["input"]] == [
            *("user", None, "assistant", "user", "assistant", "user")
        ]
    check_reasoning(reasoning, "hm")
    assert text["content"][0]["text"] == "a"
    assert last["content"] == "two"
    assert "previous_response_id" not in upstream.sent(model)


async def test_items_of_the_providers_own_tools_reach_the_client(upstream: Upstream) -> None:
    search = {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "q"},
    }
    cited = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 2}
    token = {"token": "Hi", "logprob": -0.5, "bytes": [72], "top_logprobs": []}
    made = message("Hi", annotations=[cited], phase="final_answer")
    where: Body = {"output_index": 0, "item_id": "ws_1"}
    place: Body = {"output_index": 1, "item_id": made["id"], "content_index": 0}
    raw = frames(
        event("created", response=response()),
        event("output_item.added", output_index=0, item=search | {"status": "in_progress"}),
        event("web_search_call.in_progress", **where),
        event("web_search_call.searching", **where),
        event("web_search_call.completed", **where),
        event("output_item.done", output_index=0, item=search),
        event("output_item.added", output_index=1, item=made | {"content": []}),
        event("output_text.delta", **place, delta="Hi", logprobs=[token]),
        event("output_text.annotation.added", **place, annotation_index=0, annotation=cited),
        event("output_text.done", **place, text="Hi"),
        event("output_item.done", output_index=1, item=made),
        ended(search, made, service_tier="flex", usage={"input_tokens": 3, "output_tokens": 2, "num_searches": 1}),
    )
    upstream.fake.play("tools", Answer(raw=raw))
    body: Body = {"model": "up/tools", "input": "hi", "tools": [{"type": "web_search"}]}
    seen = await upstream.events(body)
    kinds = [each["type"] for each in seen]
    own = [f"response.web_search_call.{state}" for state in ("in_progress", "searching", "completed")]
    assert kinds[3:6] == own
    assert len({each["item_id"] for each in seen[3:6]}) == 1
    whole = seen[-1]["response"]
    call, text = whole["output"]
    assert call["action"] == search["action"]
    assert text["phase"] == "final_answer"
    (part,) = text["content"]
    assert part == {"type": "output_text", "text": "Hi", "annotations": [cited], "logprobs": [token]}
    assert whole["service_tier"] == "flex"
    assert whole["usage"]["num_searches"] == 1
    body["input"] = [{"role": "user", "content": "hi"}, *whole["output"]]
    await upstream.events(body)
    assert upstream.sent("tools")["input"][1] == search


async def test_parts_of_reasoning_stay_apart(upstream: Upstream) -> None:
    parts = [{"type": "summary_text", "text": text} for text in ("first", "second")]
    item = {"type": "reasoning", "id": "rs_1", "summary": parts, "encrypted_content": "ZW5j"}
    raw = frames(
        event("output_item.added", output_index=0, item=item | {"summary": []}),
        *(
            event(
                "reasoning_summary_text.delta", output_index=0, item_id="rs_1", summary_index=at, delta=part["text"]
            )
            for at, part in enumerate(parts)
        ),
        event("output_item.done", output_index=0, item=item),
        ended(item, message("x")),
    )
    upstream.fake.play("parts", Answer(raw=raw))
    whole = await upstream.post("/v1/responses", {"model": "up/parts", "input": "hi"})
    assert whole["output"][0]["summary"] == parts
    chat = {"model": "up/parts", "messages": [USER]}
    shown = (await upstream.post("/v1/chat/completions", chat))["choices"][0]["message"]
    assert shown["reasoning_content"] == "first\n\nsecond"
    assert shown["content"] == "x"
    await upstream.post("/v1/chat/completions", chat | {"messages": [USER, shown, USER]})
    assert upstream.sent("parts")["input"][1]["summary"] == parts


# --- conversations with faults


async def test_a_cut_conversation_stays_usable(upstream: Upstream) -> None:
    upstream.fake.play("cut", Answer())
    calls = [{"type": "function_call", "call_id": f"c{n}", "name": "a.b", "arguments": "{}"} for n in (1, 2)]
    calls[0] |= {"id": "call_of_another_server", "arguments": '{"x'}
    items = [
        {"type": "function_call_output", "call_id": "gone", "output": "old"},
        *calls,
        {"type": "function_call_output", "call_id": "c2", "output": "new"},
        {"type": "reasoning", "id": "rs_x", "summary": [], "encrypted_content": "headrace1.abc"},
        {"role": "user", "content": "go on"},
    ]
    await upstream.post("/v1/responses", {"model": "up/cut", "input": items})
    sent = upstream.sent("cut")["input"]
    kinds = [item.get("type") for item in sent]
    assert kinds == ["message", "function_call", "function_call", *["function_call_output"] * 2, None]
    assert "old" in json.dumps(sent[0])
    assert sent[0]["role"] == "user"
    assert "id" not in sent[1]
    assert json.loads(sent[1]["arguments"]) == {"arguments": '{"x'}
    assert sent[1]["name"] != "a.b"
    assert {item["call_id"] for item in sent[3:5]} == {"c1", "c2"}


async def test_a_tool_keeps_its_name_that_the_server_would_refuse(upstream: Upstream) -> None:
    tool = {"type": "function", "name": "functions.exec", "parameters": {"type": "object"}}
    upstream.fake.play("names", Answer())
    await upstream.post("/v1/responses", {"model": "up/names", "input": "hi", "tools": [tool]})
    name = upstream.sent("names")["tools"][0]["name"]
    assert name != "functions.exec"
    upstream.fake.play("names", Answer(deltas=(), tools=(ToolCall("c1", name),)))
    whole = await upstream.post("/v1/responses", {"model": "up/names", "input": "hi", "tools": [tool]})
    assert [item["name"] for item in whole["output"]] == ["functions.exec"]


async def test_reasoning_of_another_family_is_left_out_and_its_own_goes_back(upstream: Upstream) -> None:
    upstream.fake.play("o9-pro-x", Answer(reasoning=("hm",), deltas=("a",)), Answer())
    upstream.fake.play("plain", Answer(deltas=("b",)))
    body: Body = {"model": "both/o9-pro-x", "messages": [USER]}
    first = (await upstream.post("/v1/chat/completions", body))["choices"][0]["message"]
    await upstream.post("/v1/chat/completions", body | {"model": "both/plain", "messages": [USER, first, USER]})
    assert "encrypted" not in json.dumps(upstream.sent("plain"))
    assert upstream.calls("plain")[-1].provider == "openai"
    assert upstream.calls("o9-pro-x")[-1].provider == "responses"


async def test_a_field_that_the_server_refuses_is_left_out_alone(upstream: Upstream) -> None:
    text = "Encrypted content is not supported with this model."
    error = {"message": text, "param": "include", "type": "invalid_request_error", "code": None}
    upstream.fake.play("refuses", Answer(status=400, error_body={"error": error}), Answer())
    await upstream.post("/v1/chat/completions", {"model": "up/refuses", "messages": [USER], "temperature": 0.5})
    first, second = [call.request for call in upstream.calls("refuses")]
    assert first.pop("include")
    assert second == first
    # Another model: the worker that has learned of the refusal would not send the field again.
    upstream.fake.play("refuses-too", Answer(status=400, error_body={"error": error}), Answer())
    body: Body = {"model": "up/refuses-too", "input": "hi", "include": ["reasoning.encrypted_content"]}
    answer = await upstream.system.http.post(f"{upstream.system.url}/v1/responses", json=body)
    status = await upstream.system.status(answer.headers["x-stream-id"])
    assert status["ignored"] == ["include"]


async def test_the_header_names_what_the_api_of_the_model_lacks(upstream: Upstream) -> None:
    for model, ignored in (("o9-pro", "seed, stop"), ("other", None)):
        upstream.fake.play(model, Answer())
        body = {"model": f"both/{model}", "messages": [USER], "seed": 1, "stop": ["x"]}
        answer = await upstream.system.http.post(f"{upstream.system.url}/v1/chat/completions", json=body)
        assert answer.headers.get("x-headrace-ignored") == ignored


@pytest.mark.parametrize(
    ("fields", "model", "expected"),
    [
        ({}, "gpt-5-pro", True),
        ({}, "o3-pro-2025-06-10", True),
        ({}, "gpt-5.1-codex-max", True),
        ({}, "o4-mini-deep-research", True),
        ({}, "gpt-5-mini", False),
        ({"base_url": "http://127.0.0.1:1/v1"}, "gpt-5-pro", False),
        ({"responses_models": ()}, "gpt-5-pro", False),
        ({"responses_models": ("gpt-5-m*",)}, "gpt-5-mini", True),
    ],
)
def test_only_openais_own_models_have_a_default(fields: Body, model: str, expected: bool) -> None:
    configuration = load_configuration(Settings())
    endpoint = Endpoint("openai", ProviderEntry(kind="openai", **fields), (), configuration)
    assert matches_any(model, responses_models(endpoint)) is expected


# --- failures


async def test_an_answer_that_breaks_off_is_an_error_after_its_text(upstream: Upstream) -> None:
    for end in ("truncate", "reset"):
        upstream.fake.play(f"broken-{end}", Answer(deltas=("a", "b"), end=end))
        seen = await upstream.events({"model": f"up/broken-{end}", "input": "hi"})
        assert seen[-1]["type"] == "response.failed"
        assert seen[-1]["response"]["error"]["code"] == "upstream_truncated"
        deltas = [each["delta"] for each in seen if each["type"] == "response.output_text.delta"]
        assert "ab".startswith("".join(deltas))


ERRORS: Final = {
    "flat": (event("error", prefix="", code="rate_limit_exceeded", message="m", param=None), "rate_limit_exceeded"),
    "nested": (event("error", prefix="", error={"code": "server_error", "message": "m"}), "provider_unavailable"),
    "failed": (
        event("failed", response=response(status="failed", error={"code": "server_error", "message": "m"})),
        "provider_unavailable",
    ),
    "bare": (event("failed", response=response(status="failed")), "provider_unavailable"),
}


@pytest.mark.parametrize("form", ERRORS)
async def test_every_form_of_an_error_is_reported(upstream: Upstream, form: str) -> None:
    frame, code = ERRORS[form]
    upstream.fake.play(f"error-{form}", Answer(raw=frames(event("created", response=response()), frame)))
    seen = await upstream.events({"model": f"up/error-{form}", "input": "hi"})
    assert seen[-1]["type"] == "response.failed"
    assert seen[-1]["response"]["error"]["code"] == code


async def test_an_incomplete_answer_says_why(upstream: Upstream) -> None:
    for reason, given in (("length", "max_output_tokens"), ("content_filter", "content_filter")):
        upstream.fake.play(f"incomplete-{reason}", Answer(finish_reason=reason))
        seen = await upstream.events({"model": f"up/incomplete-{reason}", "input": "hi"})
        assert seen[-1]["type"] == "response.incomplete"
        assert seen[-1]["response"]["incomplete_details"] == {"reason": given}


async def test_a_refusal_is_a_refusal_in_every_dialect(upstream: Upstream) -> None:
    upstream.fake.play("refusal", Answer(deltas=(), refusal=("I ", "cannot.")))
    whole = await upstream.post("/v1/responses", {"model": "up/refusal", "input": "hi"})
    assert whole["output"][0]["content"] == [{"type": "refusal", "refusal": "I cannot."}]
    chat = await upstream.post("/v1/chat/completions", {"model": "up/refusal", "messages": [USER]})
    assert chat["choices"][0]["message"]["refusal"] == "I cannot."


async def test_text_without_deltas_is_not_lost(upstream: Upstream) -> None:
    only_end = frames(ended(message("all of it")))
    done = frames(event("output_item.done", output_index=0, item=message("all of it")), ended())
    whole = json.dumps(response(status="completed", output=[message("all of it")])).encode()
    for name, raw in (("end", only_end), ("done", done), ("json", whole)):
        upstream.fake.play(f"late-{name}", Answer(raw=raw))
        chat = await upstream.post("/v1/chat/completions", {"model": f"up/late-{name}", "messages": [USER]})
        assert chat["choices"][0]["message"]["content"] == "all of it"


async def test_a_takeover_keeps_the_items_of_the_answer(upstream: Upstream) -> None:
    gate = asyncio.Event()
    upstream.fake.play("taken", Answer(reasoning=("hm",), deltas=("a", "b"), gate=gate, gate_after=1))
    body: Body = {"model": "up/taken", "input": "hi", "include": ["reasoning.encrypted_content"]}
    body["on_worker_lost"] = "restart"
    asked = asyncio.create_task(upstream.post("/v1/responses", body, **{"Idempotency-Key": "taken"}))
    while not upstream.calls("taken"):
        await asyncio.sleep(0.05)
    stream_id = await running_stream(upstream.system)
    worker = await holder(upstream.system, stream_id)
    worker.signal(signal.SIGKILL)
    while len(upstream.calls("taken")) < 2:
        await asyncio.sleep(0.05)
    gate.set()
    worker.stop()
    worker.start()
    reasoning, text = (await asked)["output"]
    check_reasoning(reasoning | {"id": reasoning["id"].partition(".")[2]}, "hm")
    assert text["content"][0]["text"] == "ab"


async def running_stream(system: System) -> str:
    """Return the id of the only stream that runs."""
    async with system.broker.client() as client:
        keys = [key async for key in client.scan_iter(match="hr:*:state")]
    ids = [str(key.decode().split(":")[2]) for key in keys]
    (running,) = [id for id in ids if await system.field(id, "status") in {"queued", "running"}]
    return running
