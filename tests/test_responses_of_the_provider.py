"""Conversations, prompts and responses that only the provider has reach an upstream of Responses, and no other."""

from typing import Any, Final

import pytest

from shared.denied_fields import denied_field
from shared.schemas.chat import StoredRequest, validate
from tests.fakes import Answer
from tests.responses_frames import ended, event, frames, response
from tests.system import System

FOREIGN: Final = "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b"
RESULT: Final = {"type": "function_call_output", "call_id": "c1", "output": "ok"}
USER: Final = {"role": "user", "content": "hi"}
Body = dict[str, Any]
#: Requests that need something of the provider's own, by the path that is refused elsewhere.
CASES: Final[dict[str, Body]] = {
    "conversation": {"input": [RESULT], "conversation": {"id": "conv_1"}},
    "prompt": {"prompt": {"id": "pmpt_1", "variables": {"city": "Bern"}}, "tool_choice": "required"},
    "previous_response_id": {"input": [RESULT], "previous_response_id": FOREIGN},
    "input.1.id": {"input": [USER, {"type": "item_reference", "id": "msg_68a1"}]},
    "input.1.type": {"input": [USER, {"type": "compaction_trigger"}]},
}


async def post(system: System, body: Body) -> Any:
    return await system.http.post(f"{system.url}/v1/responses", json=body)


def sent(system: System, model: str) -> Body:
    """Return the latest request for a model."""
    return [call.request for call in system.fake.calls if call.model == model][-1]


@pytest.mark.parametrize("path", CASES)
async def test_it_reaches_an_upstream_of_responses_unchanged(wire_system: System, path: str) -> None:
    model = f"has-{path}"
    wire_system.fake.play(model, Answer())
    answer = await post(wire_system, {"model": f"responses/{model}", **CASES[path]})
    assert answer.status_code == 200, answer.text
    assert "X-Headrace-Ignored" not in answer.headers
    assert sent(wire_system, model) == {**CASES[path], "model": model, "stream": True}


@pytest.mark.parametrize("path", CASES)
@pytest.mark.parametrize("policy", ["drop", "refuse"])
async def test_it_is_refused_for_other_providers(wire_system: System, path: str, policy: str) -> None:
    for provider in ("openai", "anthropic", "ollama", "demo"):
        body = {"model": f"{provider}/demo", **CASES[path], "unsupported_fields": policy}
        answer = await post(wire_system, body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, path)
        assert error["message"].startswith(f"{path}: ")
        assert "X-Stream-Id" not in answer.headers


async def test_a_fallback_of_another_family_is_left_out(wire_system: System) -> None:
    wire_system.fake.play("busy", Answer(status=500))
    wire_system.fake.play("spare", Answer())
    wire_system.fake.play("plain", Answer())
    body = {"model": "responses/busy", "fallbacks": ["openai/plain", "responses/spare"], **CASES["conversation"]}
    answer = await post(wire_system, body)
    assert answer.status_code == 200, answer.text
    assert sent(wire_system, "spare")["conversation"] == {"id": "conv_1"}
    assert not [call for call in wire_system.fake.calls if call.model == "plain"]


async def test_a_follow_up_keeps_the_response_of_the_provider_before_it(wire_system: System) -> None:
    wire_system.fake.play("chained", Answer(deltas=("a",)))
    body = {"model": "responses/chained", "input": "one", "previous_response_id": FOREIGN}
    first = (await post(wire_system, body)).json()
    assert first["previous_response_id"] == FOREIGN
    second = {"model": "responses/chained", "input": "two", "previous_response_id": first["id"]}
    answer = (await post(wire_system, second)).json()
    assert answer["previous_response_id"] == first["id"]
    made = sent(wire_system, "chained")
    assert made["previous_response_id"] == FOREIGN
    assert [item.get("role") for item in made["input"]] == ["user", "assistant", "user"]
    refused = await post(wire_system, second | {"model": "openai/chained"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "previous_response_id")


async def test_a_prompt_is_not_inherited_by_a_follow_up(wire_system: System) -> None:
    wire_system.fake.play("prompted", Answer(deltas=("a",)))
    first = (await post(wire_system, {"model": "responses/prompted", **CASES["prompt"]})).json()
    for provider in ("responses", "openai"):
        second = {"model": f"{provider}/prompted", "input": "two", "previous_response_id": first["id"]}
        answer = await post(wire_system, second)
        assert answer.status_code == 200, answer.text
        made = sent(wire_system, "prompted")
        assert "prompt" not in made
        turns = made["input" if provider == "responses" else "messages"]
        assert [turn["role"] for turn in turns] == ["assistant", "user"]
    listed = await wire_system.http.get(f"{wire_system.url}/v1/responses/{first['id']}/input_items")
    assert listed.json()["data"] == []


async def test_a_response_of_a_conversation_is_continued_by_the_conversation(wire_system: System) -> None:
    wire_system.fake.play("conversing", Answer(raw=frames(ended(conversation={"id": "conv_1"}))))
    body = {"model": "responses/conversing", "input": "hi", "conversation": "conv_1"}
    first = (await post(wire_system, body)).json()
    assert first["conversation"] == {"id": "conv_1"}
    second = {"model": "responses/conversing", "input": "more", "previous_response_id": first["id"]}
    for further, remedy in (({}, "set conversation instead"), ({"conversation": "conv_1"}, "remove one of them")):
        answer = await post(wire_system, {**second, **further})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "previous_response_id")
        assert remedy in answer.json()["error"]["message"]


async def test_a_compaction_reaches_the_client_and_goes_back(wire_system: System) -> None:
    item = {"type": "compaction", "id": "cmp_1", "encrypted_content": "ZW5j"}
    raw = frames(
        event("created", response=response()),
        event("output_item.added", output_index=0, item=item),
        event("output_item.done", output_index=0, item=item),
        ended(item),
    )
    wire_system.fake.play("compacts", Answer(raw=raw), Answer())
    body: Body = {"model": "responses/compacts", **CASES["input.1.type"]}
    (made,) = (await post(wire_system, body)).json()["output"]
    assert made["encrypted_content"] == "ZW5j"
    answer = await post(wire_system, {**body, "input": [made, USER]})
    assert answer.status_code == 200, answer.text
    assert sent(wire_system, "compacts")["input"] == [item, USER]


def test_an_operator_can_deny_it() -> None:
    """They belong to the provider's account, which all clients of the gateway share."""
    for path in ("conversation", "prompt", "previous_response_id"):
        original = {"family": "responses", "body": CASES[path]}
        request = validate(StoredRequest, {"model": "m", "messages": [USER], "original": original})
        assert denied_field(request, [path]) == path
