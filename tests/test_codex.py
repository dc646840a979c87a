"""Codex works unmodified over Chat Completions and Messages upstreams. The requests have the forms that it sends."""

import base64
import json
from typing import Any

import pytest

from gateway.dialects.openai_responses.growing import CustomCall
from tests.fakes.answer import Answer, Call, Counts, ToolCall
from tests.sse_client import open_sse
from tests.system import System

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC"
PATCH = '*** Begin Patch\n*** Add File: a.txt\n+"hé\\llo" 🙂\n*** End Patch'
GRAMMAR = "start: begin_patch hunk+ end_patch"
OBJECT = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS: list[Any] = [
    {"type": "function", "name": "exec_command", "description": "Runs.", "strict": False, "parameters": OBJECT},
    {"type": "function", "name": "view_image", "description": "Shows.", "strict": False, "parameters": OBJECT},
    {
        "type": "custom",
        "name": "apply_patch",
        "description": "Edits files. This is a FREEFORM tool.",
        "format": {"type": "grammar", "syntax": "lark", "definition": GRAMMAR},
    },
    {
        "type": "namespace",
        "name": "multi_agent_v1",
        "description": "Sub-agents.",
        "tools": [{"type": "function", "name": "spawn_agent", "strict": False, "parameters": OBJECT}],
    },
    {"type": "tool_search", "execution": "client", "description": "Finds tools.", "parameters": OBJECT},
    {"type": "web_search", "external_web_access": True, "search_content_types": ["text", "image"]},
]
both = pytest.mark.parametrize("provider", ["openai", "anthropic"])


def message(role: str, *texts: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    parts = [{"type": kind, "text": text} for text in texts]
    return {"type": "message", "id": f"msg_{len(texts[0])}", "role": role, "content": parts}


def request(model: str, *items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "model": model,
        "stream": True,
        "input": [
            message("developer", "You are a coding agent."),
            message("developer", "<skills>", "<permissions>"),
            message("user", "<environment_context>"),
            message("user", "Look at p.png and count"),
            *items,
        ],
        "tools": TOOLS,
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a225e5",
        "text": {"verbosity": "low"},
        "client_metadata": {"session_id": "01a225e5", "x-codex-turn-metadata": "{}"},
        **fields,
    }


async def turn(system: System, body: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Send a request; return its events and headers. A replay must have the same events."""
    url = f"{system.url}/v1/responses"
    async with await open_sse("POST", url, json=body) as connection:
        assert connection.status == 200
        seen = [frame.data async for frame in connection.frames()]
        headers = connection.headers
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    async with await open_sse("GET", f"{url}/{seen[0]['response']['id']}?stream=true") as connection:
        assert [frame.data async for frame in connection.frames()] == seen
    assert seen[-1]["type"] == "response.completed", seen[-1]
    done = [event["item"] for event in seen if event["type"] == "response.output_item.done"]
    assert seen[-1]["response"]["output"] == done
    return seen, headers


def items_of(seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = seen[-1]["response"]["output"]
    return items


def last_call(system: System, model: str) -> Call:
    return [call for call in system.fake.calls if call.model == model][-1]


def offered(call: Call) -> dict[str, Any]:
    """Return the tools of an upstream's request, by name."""
    functions = [tool.get("function", tool) for tool in call.request["tools"]]
    return {function["name"]: function for function in functions}


def upstream_calls(call: Call) -> list[tuple[str, Any]]:
    """Return name and arguments of the calls in an upstream's request."""
    found: list[tuple[str, Any]] = []
    for sent in call.request["messages"]:
        for made in sent.get("tool_calls") or ():
            found.append((made["function"]["name"], json.loads(made["function"]["arguments"])))
        content = sent.get("content")
        for block in content if isinstance(content, list) else ():
            if block["type"] == "tool_use":
                found.append((block["name"], block["input"]))
    return found


def output(call: dict[str, Any], value: Any) -> dict[str, Any]:
    return {"type": f"{call['type']}_output", "id": "out_1", "call_id": call["call_id"], "output": value}


@both
async def test_a_first_turn_streams_text_and_parallel_calls(system: System, provider: str) -> None:
    made = [ToolCall("c1", "exec_command", ('{"cmd"', ': "ls"}')), ToolCall("c2", "exec_command", ('{"cmd": "id"}',))]
    system.fake.play("codex", Answer(deltas=("I ", "look."), tools=made, usage=Counts(30, 9, cached=20, reasoning=5)))
    seen, headers = await turn(system, request(f"{provider}/codex"))
    text, first, second = items_of(seen)
    assert text["content"][0]["text"] == "I look."
    assert [(c["type"], c["name"], json.loads(c["arguments"])["cmd"]) for c in (first, second)] == [
        ("function_call", "exec_command", "ls"),
        ("function_call", "exec_command", "id"),
    ]
    response = seen[-1]["response"]
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 20
    assert (response["store"], response["reasoning"]["effort"]) == (False, "medium")
    call = last_call(system, "codex")
    assert list(offered(call)) == [
        *("exec_command", "view_image", "apply_patch", "multi_agent_v1__spawn_agent", "tool_search")
    ]
    assert GRAMMAR in offered(call)["apply_patch"]["description"]
    ignored = headers["x-headrace-ignored"].split(", ")
    lost = ["prompt_cache_key", "client_metadata", "tools.5", "text.verbosity"]
    assert ignored == (lost[1:3] if provider == "openai" else lost)


@both
async def test_an_image_in_an_output_reaches_the_upstream(system: System, provider: str) -> None:
    system.fake.play("codex-image", Answer())
    members = {"type": "function_call", "id": "fc_1", "status": "completed", "arguments": "{}"}
    calls = [{**members, "call_id": f"c_{name}", "name": name} for name in ("exec_command", "view_image")]
    image = [{"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "high"}]
    body = request(f"{provider}/codex-image", *calls, output(calls[0], "Exit code 0"), output(calls[1], image))
    await turn(system, body)
    sent = json.dumps(last_call(system, "codex-image").request["messages"])
    assert PIXEL in sent
    assert "Exit code 0" in sent


@both
async def test_a_patch_goes_round_as_plain_text(system: System, provider: str) -> None:
    arguments = json.dumps({"input": PATCH})
    pieces = tuple(arguments[at : at + 3] for at in range(0, len(arguments), 3))
    system.fake.play("codex-patch", Answer(deltas=(), tools=[ToolCall("c1", "apply_patch", pieces)]), Answer())
    body = request(f"{provider}/codex-patch")
    seen, _ = await turn(system, body)
    (item,) = items_of(seen)
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "apply_patch", PATCH)
    deltas = [event["delta"] for event in seen if event["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(deltas) == PATCH
    (done,) = [event for event in seen if event["type"] == "response.custom_tool_call_input.done"]
    assert (done["input"], done["item_id"]) == (PATCH, item["id"])
    body["input"] += [item, output(item, "Success.")]
    await turn(system, body)
    call = last_call(system, "codex-patch")
    assert upstream_calls(call) == [("apply_patch", {"input": PATCH})]
    assert "Success." in json.dumps(call.request["messages"])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_the_input_of_a_custom_tool_streams_while_its_arguments_arrive(size: int) -> None:
    arguments = json.dumps({"input": PATCH})
    call = CustomCall({"type": "custom_tool_call"})
    deltas = [call.grow(arguments[at : at + size]) for at in range(0, len(arguments), size)]
    assert "".join(deltas) == PATCH
    assert call.finish(arguments) == ""
    assert call.item["input"] == PATCH


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [('{"patch": "a"}', "a"), ('{"x": 1}', '{"x": 1}'), (' {"input" : "a\\ud83d\\ude42b"}', "a🙂b"), ("{}", "{}")],
)
async def test_a_custom_tool_gets_its_input_however_the_model_wrote_it(
    system: System, arguments: str, expected: str
) -> None:
    answer = Answer(deltas=(), tools=[ToolCall("c1", "apply_patch", tuple(arguments))])
    system.fake.play("codex-odd", answer)
    (item,) = items_of((await turn(system, request("openai/codex-odd")))[0])
    assert item["input"] == expected


@both
async def test_a_call_in_a_namespace_goes_round(system: System, provider: str) -> None:
    made = ToolCall("c1", "multi_agent_v1__spawn_agent", ('{"task": ', '"x"}'))
    system.fake.play("codex-agent", Answer(deltas=(), tools=[made]), Answer())
    body = request(f"{provider}/codex-agent")
    seen, _ = await turn(system, body)
    (item,) = items_of(seen)
    assert (item["type"], item["namespace"], item["name"]) == ("function_call", "multi_agent_v1", "spawn_agent")
    body["input"] += [item, output(item, "agent 1")]
    await turn(system, body)
    assert upstream_calls(last_call(system, "codex-agent")) == [("multi_agent_v1__spawn_agent", {"task": "x"})]


@both
async def test_tools_that_codex_found_itself_are_offered_next(system: System, provider: str) -> None:
    made = [ToolCall("c1", "tool_search", ('{"query": "mail"}',))]
    found = [ToolCall("c2", "mcp__mail__send", ("{}",))]
    system.fake.play("codex-search", Answer(deltas=(), tools=made), Answer(deltas=(), tools=found))
    body = request(f"{provider}/codex-search")
    (item,) = items_of((await turn(system, body))[0])
    assert (item["type"], item["execution"], item["arguments"]) == ("tool_search_call", "client", {"query": "mail"})
    function = {"type": "function", "name": "send", "defer_loading": True, "parameters": OBJECT}
    tools = [{"type": "namespace", "name": "mcp__mail", "description": "Mail.", "tools": [function]}]
    result = {"type": "tool_search_output", "call_id": item["call_id"], "status": "completed", "execution": "client"}
    body["input"] += [item, {**result, "tools": tools}]
    (item,) = items_of((await turn(system, body))[0])
    assert (item["namespace"], item["name"]) == ("mcp__mail", "send")
    call = last_call(system, "codex-search")
    assert "mcp__mail__send" in offered(call)
    assert upstream_calls(call) == [("tool_search", {"query": "mail"})]


async def test_signed_thinking_returns_to_anthropic_with_the_next_turn(system: System) -> None:
    made = [ToolCall("c1", "exec_command", ('{"cmd": "ls"}',))]
    system.fake.play("codex-think", Answer(reasoning=("I ", "think"), deltas=("Now.",), tools=made), Answer())
    body = request("anthropic/codex-think")
    reasoning, text, call = items_of((await turn(system, body))[0])
    assert reasoning["summary"] == [{"type": "summary_text", "text": "I think"}]
    body["input"] += [{**reasoning, "content": None}, text, call, output(call, "a b")]
    await turn(system, body)
    answer = last_call(system, "codex-think").request["messages"][-2]
    assert [block["type"] for block in answer["content"]] == ["thinking", "text", "tool_use"]
    assert answer["content"][0] == {"type": "thinking", "thinking": "I think", "signature": "c2lnbmVk"}


async def test_reasoning_has_encrypted_content_only_if_the_client_includes_it(system: System) -> None:
    system.fake.play("codex-plain", Answer(reasoning=("hm",)))
    reasoning, _ = items_of((await turn(system, request("anthropic/codex-plain", include=[])))[0])
    assert "encrypted_content" not in reasoning


async def test_a_follow_up_has_the_signed_thinking_of_the_stored_response(system: System) -> None:
    made = [ToolCall("c1", "exec_command", ("{}",))]
    system.fake.play("codex-stored", Answer(reasoning=("hm",), deltas=(), tools=made), Answer())
    seen, _ = await turn(system, request("anthropic/codex-stored", store=True))
    result = {"type": "function_call_output", "call_id": "c1", "output": "ok"}
    fields = {"model": "anthropic/codex-stored", "tools": TOOLS, "stream": True, "reasoning": {"effort": "medium"}}
    await turn(system, {**fields, "input": [result], "previous_response_id": seen[0]["response"]["id"]})
    answer = last_call(system, "codex-stored").request["messages"][-2]
    assert [block["type"] for block in answer["content"]] == ["thinking", "tool_use"]


@both
async def test_items_that_only_openai_can_read_are_left_out_and_named(system: System, provider: str) -> None:
    system.fake.play("codex-items", Answer())
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": "ZW5j"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "compaction", "encrypted_content": "ZW5j"},
        {"type": "local_shell_call", "call_id": "l", "action": {"type": "exec", "command": ["ls"]}},
        {"type": "local_shell_call_output", "call_id": "l", "output": "x"},
        {"type": "item_of_next_year"},
        {"type": "function_call", "call_id": "c", "name": "functions.exec", "arguments": '{"broken'},
        {"type": "function_call_output", "call_id": "gone", "output": "orphan"},
        message("user", "go on"),
    ]
    _, headers = await turn(system, request(f"{provider}/codex-items", *items))
    named = headers["x-headrace-ignored"].split(", ")
    assert [path for path in named if path.startswith("input.")] == [f"input.{at}" for at in range(4, 10)]


async def test_allowed_tools_restrict_the_offered_ones(system: System) -> None:
    system.fake.play("codex-allowed", Answer())
    allowed = [{"type": "function", "name": "view_image"}, {"type": "custom", "name": "apply_patch"}]
    choice = {"type": "allowed_tools", "mode": "required", "tools": allowed}
    seen, _ = await turn(system, request("openai/codex-allowed", tool_choice=choice))
    call = last_call(system, "codex-allowed")
    assert list(offered(call)) == ["view_image", "apply_patch"]
    assert call.request["tool_choice"] == "required"
    assert seen[-1]["response"]["tool_choice"] == choice


async def test_files_reach_the_upstream_as_documents(system: System) -> None:
    system.fake.play("codex-file", Answer())
    data = base64.b64encode(b"%PDF-1.4").decode()
    parts = [
        {"type": "input_file", "filename": "d.pdf", "file_data": f"data:application/pdf;base64,{data}"},
        {"type": "input_file", "file_id": "file-1"},
    ]
    item = {"type": "message", "role": "user", "content": parts}
    _, headers = await turn(system, request("anthropic/codex-file", item))
    assert data in json.dumps(last_call(system, "codex-file").request["messages"])
    assert "input.4.content.1" in headers["x-headrace-ignored"].split(", ")
