"""Citations of a provider reach clients of the other dialects in their own form."""

import json
from typing import Any

import pytest

from gateway.dialects.ai_sdk.stream import UiMessageChunks
from gateway.dialects.anthropic.stream import MessageEvents, message
from gateway.dialects.openai_chat.stream import ChatCompletionChunks, completion
from gateway.dialects.openai_responses.response import ResponseInfo
from gateway.dialects.openai_responses.stream import ResponseEvents
from gateway.live.batch import Batch
from shared.our_citations import our_citation
from shared.protocol import events
from shared.protocol.events import Done, Event, Extra, Start, Token, Usage
from shared.protocol.ids import EventId
from shared.protocol.transcript import fold
from tests.fakes import Answer
from tests.system import System

WEB = {"type": "web_search_result_location", "url": "https://a.example", "title": "A", "encrypted_index": "e"}
FOUND = {"type": "search_result_location", "source": "https://b.example", "title": None}
PDF = {"type": "page_location", "document_title": "Paper", "cited_text": "x", "start_page_number": 1}
ANNOTATION = {"type": "url_citation", "url_citation": {"url": "https://c.example", "title": "C"}}
EXPECTED = [
    {"start_index": 6, "end_index": 11, "url": "https://a.example", "title": "A"},
    {"start_index": 6, "end_index": 11, "url": "https://b.example", "title": ""},
]


def cite(citation: dict[str, Any]) -> Extra:
    return Extra("anthropic", {"in": "text", "delta": {"type": "citations_delta", "citation": citation}})


def opened() -> Extra:
    return Extra("anthropic", {"open": "text", "block": {"citations": []}})


def answer(*, first: bool) -> list[Event]:
    """Return an answer whose second block is cited. ``first``: the citations come before its text."""
    text, cited = [Token("cited", 1)], [cite(WEB), cite(FOUND), cite(PDF)]
    block: list[Event] = [*cited, *text] if first else [*text, *cited]
    end = Done("stop", None, Usage(1, 3))
    return [Start("s", "m", "anthropic", 1), Token("plain ", 0), opened(), *block, opened(), Token(" end", 2), end]


def frames(renderer: Any, answered: list[Event]) -> list[dict[str, Any]]:
    stored = [(b"1-%d" % at, events.encode(event)) for at, event in enumerate(answered, 1)]
    rendered = renderer.render(Batch(stored, EventId(1, len(stored)))).decode()
    lines = [line.removeprefix("data: ") for line in rendered.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("first", [True, False])
def test_chat_completions_get_annotations(*, first: bool) -> None:
    chunks = frames(ChatCompletionChunks("s", include_usage=False), answer(first=first))
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    annotations = [a for delta in deltas for a in delta.get("annotations", ())]
    assert annotations == [{"type": "url_citation", "url_citation": page} for page in EXPECTED]
    assert "".join(delta.get("content", "") for delta in deltas) == "plain cited end"
    message = completion("s", fold(answer(first=first)))["choices"][0]["message"]
    assert message["annotations"] == annotations


@pytest.mark.parametrize("first", [True, False])
def test_responses_get_annotations(*, first: bool) -> None:
    seen = frames(ResponseEvents(ResponseInfo("s", "m", 0)), answer(first=first))
    added = [event["annotation"] for event in seen if event["type"] == "response.output_text.annotation.added"]
    assert added == [{"type": "url_citation", **page} for page in EXPECTED]
    (part,) = seen[-1]["response"]["output"][0]["content"]
    assert (part["text"], part["annotations"]) == ("plain cited end", added)


def test_ui_messages_get_sources_once() -> None:
    twice = [*answer(first=False)[:-1], cite(WEB), Extra("openai", {"delta": {"annotations": [ANNOTATION]}})]
    chunks = frames(UiMessageChunks("m"), twice)
    sources = [chunk for chunk in chunks if chunk["type"].startswith("source-")]
    assert [source.get("url") for source in sources if source["type"] == "source-url"] == [
        "https://a.example",
        "https://b.example",
        "https://c.example",
    ]
    (document,) = (source for source in sources if source["type"] == "source-document")
    assert (document["mediaType"], document["title"]) == ("application/pdf", "Paper")
    assert len({source["sourceId"] for source in sources}) == len(sources)


# --- an upstream of Responses


def annotated(**annotation: Any) -> Extra:
    return Extra("responses", {"annotation": annotation})


def answer_of_responses() -> list[Event]:
    """Return an answer with two cited messages, and a file that the second one cites."""
    first = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 3}
    second = {"type": "url_citation", "url": "https://b.example", "title": "B", "start_index": 1, "end_index": 2}
    opening = Extra("responses", {"open": "message", "item": {"id": "m"}})
    return [
        Start("s", "m", "up", 1),
        opening,
        Token("one", 0),
        annotated(**first),
        Extra("responses", {"close": {}}),
        opening,
        Token("two", 1),
        annotated(**second),
        annotated(type="file_citation", file_id="f", filename="notes.md", index=0),
        annotated(type="url_citation", url="javascript:alert(1)", title="x", start_index=0, end_index=1),
        Done("stop", None, Usage(1, 3)),
    ]


PLACED = [
    {"start_index": 0, "end_index": 3, "url": "https://a.example", "title": "A"},
    {"start_index": 4, "end_index": 5, "url": "https://b.example", "title": "B"},
]


def test_chat_completions_get_annotations_of_responses_at_their_places() -> None:
    chunks = frames(ChatCompletionChunks("s", include_usage=False), answer_of_responses())
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    annotations = [a for delta in deltas for a in delta.get("annotations", ())]
    assert annotations == [{"type": "url_citation", "url_citation": page} for page in PLACED]
    assert completion("s", fold(answer_of_responses()))["choices"][0]["message"]["annotations"] == annotations


def test_responses_keep_annotations_of_responses_once() -> None:
    seen = frames(ResponseEvents(ResponseInfo("s", "m", 0)), answer_of_responses())
    first, second = seen[-1]["response"]["output"]
    assert [a["type"] for a in first["content"][0]["annotations"]] == ["url_citation"]
    assert [a["type"] for a in second["content"][0]["annotations"]] == [
        "url_citation",
        "file_citation",
        "url_citation",
    ]


def test_ui_messages_get_sources_of_responses() -> None:
    chunks = frames(UiMessageChunks("m"), answer_of_responses())
    sources = [chunk for chunk in chunks if chunk["type"].startswith("source-")]
    assert [source.get("url") for source in sources] == ["https://a.example", "https://b.example", None]
    assert (sources[2]["title"], sources[2]["filename"]) == ("notes.md", "notes.md")


def test_messages_get_citations_of_responses() -> None:
    content = message("s", fold(answer_of_responses()))["content"]
    cited = [citation["url"] for block in content for citation in block["citations"]]
    assert cited == ["https://a.example", "https://b.example"]
    assert "".join(block["text"] for block in content) == "onetwo"


@pytest.mark.parametrize("first", [True, False])
def test_messages_get_citations_of_chat_completions(*, first: bool) -> None:
    text, cited = Token("x", 0), Extra("openai", {"delta": {"annotations": [ANNOTATION]}})
    both = [cited, text] if first else [text, cited]
    answered: list[Event] = [Start("s", "m", "openai", 1), *both, Done("stop", None, Usage(1, 1))]
    kinds = [frame["type"] for frame in frames(MessageEvents("s", prompt_tokens=1), answered)]
    assert kinds.count("content_block_start") == 1
    (block,) = message("s", fold(answered))["content"]
    assert (block["text"], [each["url"] for each in block["citations"]]) == ("x", ["https://c.example"])


async def test_citations_of_ours_are_not_sent_to_anthropic(wire_system: System) -> None:
    theirs = WEB | {"cited_text": "x"}
    block = {"type": "text", "text": "x", "citations": [our_citation({"url": "https://c.example", "title": "C"})]}
    turns = [{"role": "assistant", "content": [block]}]
    user = {"role": "user", "content": "hi"}
    body: dict[str, Any] = {"messages": [user, *turns, user], "max_tokens": 9, "unsupported_fields": "refuse"}
    for provider in ("anthropic", "openai", "responses"):
        wire_system.fake.play("recited", Answer())
        answer = await wire_system.http.post(
            f"{wire_system.url}/v1/messages", json=body | {"model": f"{provider}/recited"}
        )
        assert answer.status_code == 200, answer.text
        assert "encrypted_index" not in json.dumps(wire_system.fake.calls[-1].request)
    body["messages"][1]["content"] = [block | {"citations": [*block["citations"], theirs]}]
    await wire_system.http.post(f"{wire_system.url}/v1/messages", json=body | {"model": "anthropic/recited"})
    assert wire_system.fake.calls[-1].request["messages"][1]["content"][0]["citations"] == [theirs]


@pytest.mark.parametrize("citation", [{}, {"url": 5}, {"url": "javascript:alert(1)"}, {"source": "file:///etc"}])
def test_what_is_no_web_address_is_no_source(citation: dict[str, Any]) -> None:
    answered = [*answer(first=False)[:2], cite(citation), Done("stop", None, None)]
    assert "url_citation" not in str(frames(ChatCompletionChunks("s", include_usage=False), answered))
    assert "source-" not in str(frames(UiMessageChunks("m"), answered))
