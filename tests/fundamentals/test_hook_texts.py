"""A hook that changes texts reaches every text that a provider gets."""

from typing import Any

import pytest

from shared.hooks import texts_of, with_texts
from shared.schemas import ChatRequest

SECRET = "ann@example.com"
REQUEST = ChatRequest.model_validate(
    {
        "model": "openai/a",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "mail",
                    "description": f"sends mail to {SECRET}",
                    "parameters": {"type": "object", "properties": {"to": {"type": "string", "description": SECRET}}},
                },
            }
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object", "description": f"for {SECRET}"}},
        },
    }
)


def test_texts_of_tools_and_of_the_response_format_are_shown_and_changed() -> None:
    assert sum(SECRET in text for text in texts_of(REQUEST)) == 3
    changed = with_texts(REQUEST, lambda text: text.replace(SECRET, "[address]"))
    assert changed is not None
    assert SECRET not in changed.model_dump_json()
    assert changed.messages == REQUEST.messages


def test_without_a_match_nothing_changes() -> None:
    assert with_texts(REQUEST, lambda text: text.replace("nothing", "")) is None


PARAMETERS = {
    "type": "object",
    "properties": {
        "extra": {"type": "string", "description": SECRET},
        "cache_control": {"type": "string", "description": SECRET},
        "kind": {"type": "object", "default": {"name": SECRET, "detail": [SECRET]}},
    },
}
CALL = {
    "id": "a",
    "type": "function",
    "function": {"name": "mail", "arguments": "{}"},
    "extra": {"openai": {"function": {"name": "mail", "arguments": SECRET}}},
}
#: Texts for the model at places where a hook might not look.
HIDDEN: dict[str, Any] = {
    "parameters of a tool": {"tools": [{"type": "function", "function": {"name": "mail", "parameters": PARAMETERS}}]},
    "schema of the answer": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": PARAMETERS}}
    },
    "reasoning for a provider": {
        "messages": [{"role": "assistant", "content": "a", "extra": {"openai": {"reasoning_content": SECRET}}}]
    },
    "call for a provider": {
        "messages": [
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "a", "content": "sent"},
        ]
    },
    "system prompt in options": {"provider_options": {"anthropic": {"system": f"write to {SECRET}"}}},
}


@pytest.mark.parametrize("place", HIDDEN)
def test_no_place_hides_a_text(place: str) -> None:
    body = {"model": "openai/a", "messages": [{"role": "user", "content": "hi"}], **HIDDEN[place]}
    request = ChatRequest.model_validate(body)
    assert SECRET in " ".join(texts_of(request))
    changed = with_texts(request, lambda text: text.replace(SECRET, "[address]"))
    assert changed is not None
    assert SECRET not in changed.model_dump_json()


def test_names_in_a_schema_are_shown() -> None:
    parameters = {"type": "object", "properties": {f"write to {SECRET}": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "mail", "parameters": parameters}}
    request = ChatRequest.model_validate(
        {"model": "openai/a", "messages": [{"role": "user", "content": "hi"}], "tools": [tool]}
    )
    assert f"write to {SECRET}" in texts_of(request)


def test_signed_data_that_nothing_changes_stays() -> None:
    extra = {"anthropic": {"blocks": [{"type": "thinking", "thinking": "well", "signature": "c2lnbmVk"}]}}
    messages = [{"role": "user", "content": SECRET}, {"role": "assistant", "content": "a", "extra": extra}]
    request = ChatRequest.model_validate({"model": "openai/a", "messages": messages})
    changed = with_texts(request, lambda text: text.replace(SECRET, "[address]"))
    assert changed is not None
    assert changed.messages[1] == request.messages[1]
