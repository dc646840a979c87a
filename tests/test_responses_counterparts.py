"""Fields that both of OpenAI's APIs have reach a server of the other one, and its further data comes back."""

import json
from typing import Any, Final

import pytest

from tests.fakes import Answer
from tests.responses_frames import ended, event, frames, message, response
from tests.system import System

USER: Final[list[Any]] = [{"role": "user", "content": "hi"}]
SAME: Final[dict[str, Any]] = {
    "prompt_cache_key": "key",
    "prompt_cache_retention": "24h",
    "service_tier": "flex",
    "safety_identifier": "person",
    "user": "u",
    "metadata": {"team": "a"},
    "store": True,
    "top_logprobs": 2,
}
PLACE: Final = {"city": "Bern", "country": "CH"}
TOKEN: Final = {"token": "Hi", "logprob": -0.5, "bytes": [72], "top_logprobs": []}
LOGPROBS: Final = "message.output_text.logprobs"
Body = dict[str, Any]


async def post(system: System, route: str, body: Body) -> Any:
    return await system.http.post(f"{system.url}/v1/{route}", json=body)


def sent(system: System, model: str) -> Body:
    """Return the latest request for a model."""
    return [call.request for call in system.fake.calls if call.model == model][-1]


async def test_chat_fields_reach_a_responses_server(wire_system: System) -> None:
    wire_system.fake.play("to-responses", Answer(deltas=("{}",)))
    options = {"search_context_size": "low", "user_location": {"type": "approximate", "approximate": PLACE}}
    further = {"verbosity": "low", "logprobs": True, "web_search_options": options, "seed": 3}
    body: Body = {"model": "responses/to-responses", "messages": USER, **SAME, **further}
    body["response_format"] = {"type": "json_object"}
    body["tools"] = [{"type": "function", "function": {"name": "look"}}]
    answer = await post(wire_system, "chat/completions", body)
    assert answer.status_code == 200, answer.text
    made = sent(wire_system, "to-responses")
    assert {name: made[name] for name in SAME} == SAME
    assert made["text"] == {"format": {"type": "json_object"}, "verbosity": "low"}
    assert made["include"] == ["reasoning.encrypted_content", LOGPROBS]
    search = {"type": "web_search", "search_context_size": "low"}
    assert made["tools"][1:] == [{**search, "user_location": {"type": "approximate", **PLACE}}]
    assert not {"verbosity", "logprobs", "web_search_options"} & made.keys()
    assert answer.headers["X-Headrace-Ignored"] == "seed"


async def test_nothing_is_stored_that_the_client_did_not_ask_for(wire_system: System) -> None:
    wire_system.fake.play("unasked", Answer())
    for route in ("chat/completions", "messages"):
        body = {"model": "responses/unasked", "messages": USER, "max_tokens": 9}
        answer = await post(wire_system, route, body)
        assert answer.status_code == 200, answer.text
        made = sent(wire_system, "unasked")
        assert made["store"] is False
        assert made["include"] == ["reasoning.encrypted_content"]
        assert not {"background", "metadata", "text", "tools", "top_logprobs", "user"} & made.keys()


async def test_options_of_a_search_make_no_other_tool(wire_system: System) -> None:
    tried: tuple[Any, ...] = ({"type": "mcp", "server_url": "https://a.example"}, {"model": "another"}, [])
    for options in tried:
        wire_system.fake.play("searching", Answer())
        body = {"model": "responses/searching", "messages": USER, "web_search_options": options}
        answer = await post(wire_system, "chat/completions", body)
        assert answer.headers["X-Headrace-Ignored"] == "web_search_options"
        assert "tools" not in sent(wire_system, "searching")


@pytest.mark.parametrize(("tier", "expected"), [("auto", "auto"), ("standard_only", "default")])
async def test_the_tier_of_a_messages_client_reaches_a_responses_server(
    wire_system: System, tier: str, expected: str
) -> None:
    wire_system.fake.play("tiers", Answer())
    body = {"model": "responses/tiers", "messages": USER, "max_tokens": 9, "service_tier": tier}
    answer = await post(wire_system, "messages", body)
    assert sent(wire_system, "tiers")["service_tier"] == expected
    assert "X-Headrace-Ignored" not in answer.headers


async def test_a_counterpart_that_the_server_refuses_is_named(wire_system: System) -> None:
    asked = {"verbosity": "low", "logprobs": True, "store": True}
    for refused, name in (("text.verbosity", "verbosity"), ("include", "logprobs"), ("store", "store")):
        model = f"refuses-{name}"
        error = {"message": f"Unknown parameter: '{refused}'.", "param": refused, "code": "unknown_parameter"}
        wire_system.fake.play(model, Answer(status=400, error_body={"error": error}), Answer())
        body = {"model": f"responses/{model}", "messages": USER, **asked}
        answer = await post(wire_system, "chat/completions", body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["X-Headrace-Ignored"] == name


async def test_probabilities_and_the_tier_come_back_to_a_chat_client(wire_system: System) -> None:
    made = message("Hi")
    raw = frames(
        event("created", response=response()),
        event("output_item.added", output_index=0, item=made | {"content": []}),
        event("output_text.delta", output_index=0, item_id="msg_1", content_index=0, delta="Hi", logprobs=[TOKEN]),
        event("output_item.done", output_index=0, item=made),
        ended(made, service_tier="priority"),
    )
    wire_system.fake.play("probable", Answer(raw=raw))
    body = {"model": "responses/probable", "messages": USER, "logprobs": True}
    whole = (await post(wire_system, "chat/completions", body)).json()
    assert whole["choices"][0]["logprobs"] == {"content": [TOKEN], "refusal": None}
    assert whole["service_tier"] == "priority"
    answer = await post(wire_system, "messages", {"model": "responses/probable", "messages": USER, "max_tokens": 9})
    assert answer.json()["usage"]["service_tier"] == "priority"


async def test_probabilities_come_back_to_a_responses_client(wire_system: System) -> None:
    choice = {"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": [TOKEN]}, "finish_reason": "stop"}
    chunk = f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n"
    wire_system.fake.play("from-chat", Answer(raw=chunk.encode()))
    body: Body = {"model": "openai/from-chat", "input": "hi", "top_logprobs": 2}
    body["include"] = ["reasoning.encrypted_content", LOGPROBS, "file_search_call.results"]
    answer = await post(wire_system, "responses", body)
    assert answer.json()["output"][0]["content"][0]["logprobs"] == [TOKEN]
    made = sent(wire_system, "from-chat")
    assert (made["logprobs"], made["top_logprobs"]) == (True, 2)
    status = await wire_system.status(answer.headers["X-Stream-Id"])
    assert status["ignored"] == ["include.2"]
