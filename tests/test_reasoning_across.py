"""Reasoning of OpenAI's followers goes through a client of Messages or Responses and back to them unchanged."""

from typing import Any, Final

import pytest

from tests.fakes.answer import Answer, Call
from tests.system import System
from tests.test_chat_lossless import choice, frames

QUESTION: Final = {"role": "user", "content": "look"}
SCHEMA: Final = {"type": "object", "properties": {}}
FUNCTION: Final = {"name": "look", "arguments": "{}"}
GOOGLE: Final = {"google": {"thought_signature": "c2ln"}}
DETAILS: Final = [
    {"type": "reasoning.text", "format": "google-gemini-v1", "index": 0, "text": "let me", "signature": "abc"},
    {"type": "reasoning.encrypted", "index": 1, "data": "c2VhbGVk"},
]


def call(at: int, **members: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": at, "id": f"call_{at}", "type": "function", "function": FUNCTION, **members}]}


#: Deltas of an answer, the members of its message that go back, and those of its calls.
ANSWERS: Final[dict[str, tuple[list[dict[str, Any]], dict[str, Any], list[dict[str, Any]]]]] = {
    "reasoning_content": (
        [{"reasoning_content": "let "}, {"reasoning_content": "me"}, call(0)],
        {"reasoning_content": "let me"},
        [{}],
    ),
    "reasoning_details": (
        [{"reasoning_details": [DETAILS[0]]}, {"reasoning_details": [DETAILS[1]]}, call(0)],
        {"reasoning_details": DETAILS},
        [{}],
    ),
    "thought_signature": ([call(0, extra_content=GOOGLE), call(1)], {}, [{"extra_content": GOOGLE}, {}]),
    "all of it": (
        [{"reasoning_content": "let me"}, {"content": "A moment."}, call(0), call(1, extra_content=GOOGLE)],
        {"reasoning_content": "let me", "content": "A moment."},
        [{}, {"extra_content": GOOGLE}],
    ),
}


def last_call(system: System, model: str) -> Call:
    return [call for call in system.fake.calls if call.model == model][-1]


def answer_of(deltas: list[dict[str, Any]]) -> Answer:
    return Answer(raw=frames(*(choice(delta) for delta in deltas), choice({}, "tool_calls")))


def check(sent: dict[str, Any], members: dict[str, Any], calls: list[dict[str, Any]]) -> None:
    """Check the assistant's message that the provider got back."""
    (turn,) = [message for message in sent["messages"] if message["role"] == "assistant"]
    plain = turn.pop("tool_calls")
    expected = [
        {"id": f"call_{at}", "type": "function", "function": FUNCTION, **call} for at, call in enumerate(calls)
    ]
    assert plain == expected
    content = members.get("content", turn.pop("content", None))
    assert {name: value for name, value in turn.items() if name not in {"role", "content"}} == {
        name: value for name, value in members.items() if name != "content"
    }
    assert content in (None, "", members.get("content"), [{"type": "text", "text": members.get("content")}])


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_client_of_messages_sends_it_back(system: System, name: str) -> None:
    deltas, members, calls = ANSWERS[name]
    model = f"across-messages-{name}"
    system.fake.play(model, answer_of(deltas), Answer())
    system.fake.play(f"{model}-other", Answer())
    tool = {"name": "look", "input_schema": SCHEMA}
    body: dict[str, Any] = {"model": f"openai/{model}", "max_tokens": 99, "messages": [QUESTION], "tools": [tool]}
    url = f"{system.url}/v1/messages"
    content = (await system.http.post(url, json=body)).json()["content"]
    results = [{"type": "tool_result", "tool_use_id": f"call_{at}", "content": "a cat"} for at in range(len(calls))]
    body["messages"] = [QUESTION, {"role": "assistant", "content": content}, {"role": "user", "content": results}]
    assert (await system.http.post(url, json=body)).status_code == 200
    check(last_call(system, model).request, members, calls)

    # Anthropic gets the same history without what only the other family reads.
    answer = await system.http.post(url, json={**body, "model": f"anthropic/{model}-other"})
    assert answer.status_code == 200
    turn = last_call(system, f"{model}-other").request["messages"][1]["content"]
    kinds = ["text"] * ("content" in members) + ["tool_use"] * len(calls)
    assert [block["type"] for block in turn] == kinds
    assert "headrace1." not in str(last_call(system, f"{model}-other").request)


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_client_of_responses_sends_it_back(system: System, name: str) -> None:
    deltas, members, calls = ANSWERS[name]
    model = f"across-responses-{name}"
    system.fake.play(model, answer_of(deltas), Answer())
    system.fake.play(f"{model}-other", Answer())
    body: dict[str, Any] = {
        "model": f"openai/{model}",
        "input": [QUESTION],
        "tools": [{"type": "function", "name": "look", "parameters": SCHEMA}],
        "include": ["reasoning.encrypted_content"],
        "store": False,
    }
    url = f"{system.url}/v1/responses"
    output = (await system.http.post(url, json=body)).json()["output"]
    results = [{"type": "function_call_output", "call_id": f"call_{at}", "output": "cat"} for at in range(len(calls))]
    body["input"] = [QUESTION, *output, *results]
    assert (await system.http.post(url, json=body)).status_code == 200
    check(last_call(system, model).request, members, calls)
    answer = await system.http.post(url, json={**body, "model": f"anthropic/{model}-other"})
    assert answer.status_code == 200
    assert "headrace1." not in str(last_call(system, f"{model}-other").request)
