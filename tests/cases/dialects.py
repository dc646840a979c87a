"""Puts the request of a case in each dialect, and reads the answer back into the native words.

The tables are those of ``docs/compatibility.md``, the other way round. A dialect that has no code for an error has a
type or a status instead; an error is then translated into the set of codes that it may stand for.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anthropic
import openai

from tests.cases.outcomes import Outcome
from tests.openai_client import openai_client
from tests.system import System
from workers.providers.error_codes import PUBLIC_CODES

Body = dict[str, Any]


@dataclass(frozen=True)
class Clients:
    """The SDKs' clients of one system; to make one takes long."""

    system: System
    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic

    @staticmethod
    @asynccontextmanager
    async def of(system: System) -> AsyncIterator["Clients"]:
        async with (
            openai_client(system) as of_openai,
            anthropic.AsyncAnthropic(base_url=system.url, api_key="none", max_retries=0) as of_anthropic,
        ):
            yield Clients(system, of_openai, of_anthropic)


#: Sends the request of a case to a model. ``request``: members of a native request.
Dialect = Callable[[Clients, str, Body], Awaitable[Outcome]]

PROMPT: Final = "hi"
#: Statuses of errors before the first output; all other codes have 502.
_STATUSES: Final = {
    "provider_rate_limited": 429,
    "provider_model_not_found": 404,
    "provider_rejected": 400,
    "provider_unavailable": 503,
}
_OTHER_STATUS: Final = 502
#: Errors of these codes have the provider's own code instead, if it has a known one.
_ABOUT_REQUEST: Final = frozenset({"provider_rejected", "provider_model_not_found", "provider_rate_limited"})
_MESSAGES_TYPES: Final = {
    "provider_rate_limited": "rate_limit_error",
    "provider_rejected": "invalid_request_error",
    "provider_unavailable": "overloaded_error",
}
_FINISH_BY_STOP_REASON: Final = {
    "end_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "model_context_window_exceeded": "length",
}
_FINISH_BY_INCOMPLETE: Final = {"max_output_tokens": "length", "content_filter": "content_filter"}
_FINISH_OF_AI_SDK: Final = {
    "stop": "stop",
    "length": "length",
    "tool-calls": "tool_calls",
    "content-filter": "content_filter",
}


def error_words(code: str) -> set[str]:
    """Return all forms in which a dialect may report an error of this native code."""
    words = {code, f"HTTP {_STATUSES.get(code, _OTHER_STATUS)}", _MESSAGES_TYPES.get(code, "api_error"), "an error"}
    return words | (PUBLIC_CODES if code in _ABOUT_REQUEST else set())


async def chat_completions(clients: Clients, model: str, request: Body) -> Outcome:
    seen = Outcome()
    options: Body = {"stream": True, "stream_options": {"include_usage": True}, **request}
    create: Any = clients.openai.chat.completions.create
    said = [{"role": "user", "content": PROMPT}]
    try:
        async with await create(model=model, messages=said, **options) as stream:
            async for chunk in stream:
                if chunk.usage is not None:
                    seen.usage = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens]
                for choice in chunk.choices:
                    _take_chunk(seen, choice)
    except openai.APIStatusError as error:
        _take_status(seen, error.status_code, error.response.headers)
    except openai.APIError as error:
        seen.error = error.code
    return _with_whole_calls(seen)


def _take_chunk(seen: Outcome, choice: Any) -> None:
    seen.text += choice.delta.content or ""
    seen.reasoning += getattr(choice.delta, "reasoning_content", None) or ""
    for part in choice.delta.tool_calls or ():
        call = seen.call(part.index)
        call.id = call.id or part.id
        call.name = call.name or part.function.name
        call.fragments.append(part.function.arguments)
    seen.finish = choice.finish_reason or seen.finish


async def messages(clients: Clients, model: str, request: Body) -> Outcome:
    seen, blocks = Outcome(), dict[int, int]()
    tools = [
        {"name": tool["function"]["name"], "input_schema": tool["function"]["parameters"]}
        for tool in request.get("tools", ())
    ]
    options: Body = {**request, "stream": True} | ({"tools": tools} if tools else {})
    create: Any = clients.anthropic.messages.create
    said = [{"role": "user", "content": PROMPT}]
    try:
        async with await create(model=model, messages=said, max_tokens=1000, **options) as stream:
            async for event in stream:
                _take_message_event(seen, blocks, event)
    except anthropic.APIStatusError as error:
        if error.status_code != 200:
            _take_status(seen, error.status_code, error.response.headers)
        else:
            body: Any = error.body
            seen.error = body["error"]["type"]
    return _with_whole_calls(seen)


def _take_message_event(seen: Outcome, blocks: dict[int, int], event: Any) -> None:
    match event.type:
        case "content_block_start" if event.content_block.type == "tool_use":
            blocks[event.index] = len(blocks)
            call = seen.call(blocks[event.index])
            call.id, call.name = event.content_block.id, event.content_block.name
        case "content_block_delta":
            seen.text += getattr(event.delta, "text", "") or ""
            seen.reasoning += getattr(event.delta, "thinking", "") or ""
            if event.delta.type == "input_json_delta" and event.index in blocks:  # or a server's tool
                seen.call(blocks[event.index]).fragments.append(event.delta.partial_json)
        case "message_delta":
            seen.finish = _FINISH_BY_STOP_REASON.get(event.delta.stop_reason, "stop")
            usage = event.usage
            cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
            seen.usage = [(usage.input_tokens or 0) + cached, usage.output_tokens]


async def responses(clients: Clients, model: str, request: Body) -> Outcome:
    seen, items = Outcome(), dict[str, int]()
    options: Body = {**request, "stream": True}
    if "tools" in options:
        options["tools"] = [{"type": "function", **tool["function"]} for tool in options["tools"]]
    create: Any = clients.openai.responses.create
    try:
        async with await create(model=model, input=PROMPT, **options) as stream:
            async for event in stream:
                _take_response_event(seen, items, event)
    except openai.APIError as error:
        if type(error) is not openai.APIError:  # a status or a connection
            raise
        seen.error = error.code
    return seen


def _take_response_event(seen: Outcome, items: dict[str, int], event: Any) -> None:
    match event.type:
        case "response.output_text.delta":
            seen.text += event.delta
        case "response.reasoning_summary_text.delta":
            seen.reasoning += event.delta
        case "response.output_item.added" if event.item.type == "function_call":
            items[event.item.id] = len(items)
            call = seen.call(items[event.item.id])
            call.id, call.name = event.item.call_id, event.item.name
        case "response.function_call_arguments.delta":
            seen.call(items[event.item_id]).fragments.append(event.delta)
        case "response.function_call_arguments.done":
            seen.call(items[event.item_id]).arguments = event.arguments
        case "response.completed" | "response.incomplete":
            _take_response(seen, event.response)


def _take_response(seen: Outcome, response: Any) -> None:
    if response.usage is not None:
        seen.usage = [response.usage.input_tokens, response.usage.output_tokens]
    if response.status == "incomplete":
        seen.finish = _FINISH_BY_INCOMPLETE[response.incomplete_details.reason]
    else:
        seen.finish = "tool_calls" if any(item.type == "function_call" for item in response.output) else "stop"


async def ui_messages(clients: Clients, model: str, request: Body) -> Outcome:
    said = [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": PROMPT}]}]
    body = {"id": f"chat-{model}", "model": model, "messages": said, "trigger": "submit-message", **request}
    answer = await clients.system.http.post(f"{clients.system.url}/api/chat", json=body)
    assert answer.status_code == 200, answer.text
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    seen, calls = Outcome(), dict[str, int]()
    for text in data:
        _take_ui_chunk(seen, calls, json.loads(text))
    return seen


def _take_ui_chunk(seen: Outcome, calls: dict[str, int], chunk: Body) -> None:
    match chunk["type"]:
        case "text-delta":
            seen.text += chunk["delta"]
        case "reasoning-delta":
            seen.reasoning += chunk["delta"]
        case "tool-input-start":
            calls[chunk["toolCallId"]] = len(calls)
            call = seen.call(calls[chunk["toolCallId"]])
            call.id, call.name = chunk["toolCallId"], chunk["toolName"]
        case "tool-input-delta":
            seen.call(calls[chunk["toolCallId"]]).fragments.append(chunk["inputTextDelta"])
        case "tool-input-available":
            seen.call(calls[chunk["toolCallId"]]).arguments = json.dumps(chunk["input"])
        case "data-usage":
            seen.usage = [chunk["data"]["inputTokens"], chunk["data"]["outputTokens"]]
        case "error":
            seen.error = "an error"
        case "finish":
            seen.finish = _FINISH_OF_AI_SDK[chunk["finishReason"]]


async def ag_ui(clients: Clients, model: str, request: Body) -> Outcome:
    props = {name: value for name, value in request.items() if name != "tools"}
    body = {
        "threadId": "cases",
        "runId": f"run {model}",
        "messages": [{"id": "u1", "role": "user", "content": PROMPT}],
        "tools": [tool["function"] for tool in request.get("tools", ())],
        "forwardedProps": {"model": model, **props},
    }
    answer = await clients.system.http.post(f"{clients.system.url}/ag-ui", json=body)
    assert answer.status_code == 200, answer.text
    seen, calls = Outcome(), dict[str, int]()
    for line in answer.text.splitlines():
        if line.startswith("data: "):
            _take_ag_ui_event(seen, calls, json.loads(line.removeprefix("data: ")))
    return _with_whole_calls(seen)


def _take_ag_ui_event(seen: Outcome, calls: dict[str, int], event: Body) -> None:
    match event["type"]:
        case "TEXT_MESSAGE_CONTENT":
            seen.text += event["delta"]
        case "REASONING_MESSAGE_CONTENT":
            seen.reasoning += event["delta"]
        case "TOOL_CALL_START":
            calls[event["toolCallId"]] = len(calls)
            call = seen.call(calls[event["toolCallId"]])
            call.id, call.name = event["toolCallId"], event["toolCallName"]
        case "TOOL_CALL_ARGS":
            seen.call(calls[event["toolCallId"]]).fragments.append(event["delta"])
        case "CUSTOM" if event["name"] == "usage":
            usage = event["value"]["usage"]
            seen.usage = [usage["input_tokens"], usage["output_tokens"]]
        case "RUN_ERROR":
            seen.error = event["code"]
        case "RUN_FINISHED":
            seen.finish = event["result"]["finishReason"]


def _take_status(seen: Outcome, status: int, headers: Mapping[str, str]) -> None:
    seen.error = f"HTTP {status}"
    seen.retryable = headers["x-should-retry"] == "true"


def _with_whole_calls(seen: Outcome) -> Outcome:
    """These dialects have no event of a complete call: after a good end, all calls are complete."""
    if seen.error is None:
        for call in seen.calls:
            call.arguments = "".join(call.fragments)
    return seen


DIALECTS: Final[Mapping[str, Dialect]] = {
    "chat/completions": chat_completions,
    "messages": messages,
    "responses": responses,
    "api/chat": ui_messages,
    "ag-ui": ag_ui,
}
