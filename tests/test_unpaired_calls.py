"""Calls without a result and results without a call end no conversation, and nothing of them is lost."""

from itertools import groupby
from typing import Any

import pytest

from shared.schemas.chat import StoredRequest
from tests.fakes import FakeProvider
from tests.fakes.answer import Answer
from tests.provider_client import Make, ask, collect, network, parts_of
from workers.providers.anthropic_messages import messages_of
from workers.providers.base import IgnoredFields
from workers.providers.substitutes import anthropic_tool_names
from workers.providers.unpaired_calls import NO_RESULT, paired

USER = {"role": "user", "content": "hi"}
LONG = "call_" + "x" * 60


def call(id: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}


def called(*ids: str) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [call(id) for id in ids]}


def result(id: str, content: str = "seen") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


HISTORIES: dict[str, list[dict[str, Any]]] = {
    "one of two": [USER, called("a", "b"), result("b"), USER],
    "none": [USER, called("a"), USER],
    "at the end": [USER, called("a", "b")],
    "before another call": [USER, called("a"), called("b"), result("b"), USER],
    "an orphan": [result("gone", "an old result"), USER],
    "a late one": [USER, called("a"), USER, result("a", "came late"), USER],
    "twice": [USER, called("a"), result("a"), result("a", "again"), USER],
}
each_history = pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)


@network
@each_history
async def test_each_provider_gets_every_call_and_every_result(
    fake: FakeProvider, make: Make, name: str, history: list[dict[str, Any]]
) -> None:
    parts = await parts_of(make(name), ask("echo", messages=history))
    assert not [part for part in parts if isinstance(part, IgnoredFields)]
    body = fake.calls[-1].request
    sent = str(body["input" if name == "responses" else "messages"])
    calls = sum(len(message.get("tool_calls") or ()) for message in history)
    assert sent.count("look") - sent.count("'tool_name': 'look'") == calls
    for message in history:
        assert str(message.get("content", "hi")) in sent
    if name == "anthropic":
        check_pairs(fake.calls[-1].request["messages"])


@each_history
def test_a_clients_own_messages_are_repaired_for_anthropic(history: list[dict[str, Any]]) -> None:
    body = ask("echo", messages=history)
    raw = messages_of(body.messages, anthropic_tool_names())
    check_pairs(paired(raw))
    assert paired(raw) == raw  # what is in order stays
    without = [message for message in raw if "tool_result" not in str(message)]
    check_pairs(paired(without))
    assert (NO_RESULT in str(paired(without))) == ("tool_use" in str(without))


def test_an_orphan_of_the_clients_own_becomes_text_after_the_results() -> None:
    use = {"type": "tool_use", "id": "a", "name": "look", "input": {}}
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    orphan = {"type": "tool_result", "tool_use_id": "gone", "content": [image]}
    answer = {"type": "tool_result", "tool_use_id": "a", "content": "seen"}
    raw = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [orphan, answer]}]
    content = paired(raw)[1]["content"]
    assert [block["type"] for block in content] == ["tool_result", "text", "image"]
    assert content[0] is answer


def check_pairs(messages: list[dict[str, Any]]) -> None:
    """Check the rules of Anthropic's API."""
    open_calls: list[str] = []
    for _, turn in groupby(messages, lambda message: message["role"]):
        contents = [message["content"] for message in turn if isinstance(message["content"], list)]
        blocks = [block for content in contents for block in content]
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        assert sorted(results) == sorted(open_calls), messages
        assert all(block["type"] == "tool_result" for block in blocks[: len(results)])
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
    assert not open_calls


REFUSALS = {
    "nine": (
        {"object": "error", "message": "Tool call id was c.1 but must be a-z, A-Z, 0-9, with a length of 9."},
        lambda id: len(id) == 9 and id.isalnum(),
    ),
    "forty": (
        {
            "error": {
                "message": "Invalid 'messages[1].tool_calls[0].id': string too long. Expected a string with maximum"
                " length 40, but got a string with length 65 instead.",
                "param": "messages[1].tool_calls[0].id",
                "code": "string_above_max_length",
            }
        },
        lambda id: len(id) <= 40,
    ),
}


@pytest.mark.parametrize(("refusal", "is_accepted"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("has_original", [True, False])
async def test_the_form_of_ids_is_learned_from_a_refusal(
    fake: FakeProvider, make: Make, refusal: dict[str, Any], is_accepted: Any, has_original: bool
) -> None:
    fake.play("ids", Answer(status=400, error_body=refusal), Answer())
    history = [USER, called("c.1", LONG), result("c.1"), result(LONG), USER]
    fields: dict[str, Any] = {"model": "ids", "messages": history}
    if has_original:
        fields["original"] = {"family": "openai", "body": {"messages": history}}
    provider = make("openai")
    for _ in range(2):
        assert not [p for p in await parts_of(provider, StoredRequest(**fields)) if isinstance(p, IgnoredFields)]
    refused, *learned = [call.request["messages"] for call in fake.calls]
    assert [call["id"] for call in refused[1]["tool_calls"]] == ["c.1", LONG]
    assert learned[0] == learned[1]  # remembered, and the same in every request
    made = [call["id"] for call in learned[0][1]["tool_calls"]]
    assert len(set(made)) == 2
    assert all(map(is_accepted, made))
    assert [message["tool_call_id"] for message in learned[0][2:4]] == made


async def test_a_refusal_of_something_else_leaves_the_ids(fake: FakeProvider, make: Make) -> None:
    error = {"error": {"message": "Unknown parameter: 'seed'. tool_calls have ids.", "param": "seed"}}
    fake.play("seed", Answer(status=400, error_body=error), Answer())
    await collect(make("openai"), ask("seed", messages=[USER, called(LONG), result(LONG)], seed=7))
    assert fake.calls[-1].request["messages"][1]["tool_calls"][0]["id"] == LONG
