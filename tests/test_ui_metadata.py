"""Signatures of a provider travel through the AI SDK's messages: out as ``providerMetadata``, and back to the
provider's request."""

import json
from collections.abc import Sequence
from typing import Any

from gateway.dialects.ai_sdk import request as ui_message_request
from gateway.dialects.ai_sdk.stream import UiMessageChunks
from gateway.live.batch import Batch
from shared.protocol import events
from shared.protocol.events import Done, Event, Extra, Reasoning, Start, Token, ToolCall
from shared.protocol.ids import EventId

START = Start("s", "m", "p", 1)
DONE = Done("tool_calls", None, None)
CALL = (ToolCall(0, "{}", "c1", "look"), ToolCall(0, "{}", "c1", "look", complete=True))


def rendered(*made: Event) -> list[dict[str, Any]]:
    batch = Batch([(b"1-1", events.encode(event)) for event in made], EventId(1, len(made)))
    return chunks_of(UiMessageChunks("m").render(batch))


def chunks_of(frames: bytes) -> list[dict[str, Any]]:
    return [json.loads(frame.removeprefix("data: ")) for frame in frames.decode().split("\n\n") if frame]


def page_of(chunks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts that a page has after these chunks. All calls are executed."""
    parts: list[dict[str, Any]] = []
    by_id: dict[str, dict[str, Any]] = {}
    for chunk in chunks:
        kind, _, step = chunk["type"].rpartition("-")
        if chunk["type"] == "start-step":
            parts.append({"type": "step-start"})
        elif step == "start" and kind in ("text", "reasoning"):
            by_id[chunk["id"]] = part = {"type": kind, "text": ""}
            parts.append(part)
        elif step == "delta" and kind in ("text", "reasoning"):
            by_id[chunk["id"]]["text"] += chunk["delta"]
        elif step == "end" and "providerMetadata" in chunk:
            by_id[chunk["id"]]["providerMetadata"] = chunk["providerMetadata"]
        elif chunk["type"] == "tool-input-available":
            made = {"type": f"tool-{chunk['toolName']}", "toolCallId": chunk["toolCallId"], "input": chunk["input"]}
            own = {"callProviderMetadata": chunk["providerMetadata"]} if "providerMetadata" in chunk else {}
            parts.append({**made, "state": "output-available", "output": "found", **own})
    return parts


def sent_back(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the assistant's message of the next request."""
    shown = {"id": "m", "role": "assistant", "parts": parts}
    asked = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    body = json.dumps({"id": "c", "model": "m", "messages": [asked, shown]}).encode()
    chat_request, _ = ui_message_request.parse(body, None)
    _, answer, result = chat_request.messages
    assert (answer.role, result.role) == ("assistant", "tool")
    return answer.model_dump(exclude_none=True)


def signature(text: str) -> Extra:
    return Extra("anthropic", {"in": "thinking", "delta": {"type": "signature_delta", "signature": text}})


def test_signed_and_redacted_thinking_goes_back_in_its_order() -> None:
    redacted = {"type": "redacted_thinking", "data": "secret"}
    chunks = rendered(
        START,
        *(Reasoning("let me", 0), Reasoning(" think", 1), signature("s1")),
        Extra("anthropic", {"block": redacted, "deltas": []}),
        *(Extra("anthropic", {"open": "thinking", "block": {}}), Reasoning("more", 2), signature("s2")),
        Token("I look.", 0),
        *CALL,
        DONE,
    )
    ends = [chunk.get("providerMetadata") for chunk in chunks if chunk["type"] == "reasoning-end"]
    own = ({"signature": "s1"}, {"redactedData": "secret"}, {"signature": "s2"})
    assert ends == [{"anthropic": members} for members in own]
    first, last = (
        {"type": "thinking", "thinking": text, "signature": signed}
        for text, signed in (("let me think", "s1"), ("more", "s2"))
    )
    message = sent_back(page_of(chunks))
    assert message["extra"] == {"anthropic": {"blocks": [first, redacted, last]}}
    assert message["content"] == [{"type": "text", "text": "I look."}]


def test_thinking_without_its_text_goes_back() -> None:
    message = sent_back(page_of(rendered(START, signature("s1"), *CALL, DONE)))
    assert message["extra"]["anthropic"]["blocks"] == [{"type": "thinking", "thinking": "", "signature": "s1"}]


def test_members_of_a_call_go_back() -> None:
    google = {"extra_content": {"google": {"thought_signature": "t1"}}}
    chunks = rendered(START, Extra("openai", {"call": 0, "members": google}), *CALL, DONE)
    (call,) = [chunk for chunk in chunks if chunk["type"] == "tool-input-available"]
    assert call["providerMetadata"] == {"google": {"thoughtSignature": "t1"}}
    assert sent_back(page_of(chunks))["tool_calls"][0]["extra"] == {"openai": google}

    caller = {"caller": {"type": "direct"}}
    chunks = rendered(START, Extra("anthropic", {"call": "c1", "block": caller}), *CALL, DONE)
    assert sent_back(page_of(chunks))["tool_calls"][0]["extra"] == {"anthropic": caller}


def test_reasoning_of_an_openai_compatible_server_goes_back() -> None:
    details = [{"type": "reasoning.encrypted", "data": "xyz", "index": 0}]
    extra = Extra("openai", {"delta": {"reasoning_details": details}})
    chunks = rendered(START, Reasoning("hm", 0), extra, Token("I look.", 0), *CALL, DONE)
    assert sent_back(page_of(chunks))["extra"] == {"openai": {"reasoning_details": details}}
    signed = {"extra_content": {"google": {"thought_signature": "t2"}}}
    chunks = rendered(START, Token("I look.", 0), Extra("openai", {"delta": signed}), *CALL, DONE)
    assert sent_back(page_of(chunks))["extra"] == {"openai": signed}


def test_a_replay_of_a_continued_message_has_its_metadata() -> None:
    google = {"extra_content": {"google": {"thought_signature": "t1"}}}
    parts = page_of(
        rendered(
            *(START, Reasoning("hm", 0), signature("s1"), Extra("openai", {"call": 0, "members": google})),
            *(*CALL, DONE),
        )
    )
    renderer = UiMessageChunks("m", parts)
    replayed = page_of(chunks_of(renderer.render(Batch([], EventId(1, 0)))))
    assert sent_back(replayed) == sent_back(parts)


def test_a_lost_attempt_leaves_no_metadata() -> None:
    renderer = UiMessageChunks("m")
    first = [START, Reasoning("a", 0), signature("old")]
    renderer.render(Batch([(b"1-1", events.encode(e)) for e in first], EventId(1, 3)))
    again = [START, Reasoning("b", 0), *CALL, DONE]
    frames = renderer.render(Batch([(b"2-1", events.encode(e)) for e in again], EventId(2, 5), reset=True))
    assert b"old" not in frames
