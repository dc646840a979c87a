"""The stored form of a request: what was put in comes out, and no long text is stored twice."""

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.ai_sdk import request as ai_sdk
from gateway.dialects.anthropic import request as anthropic
from gateway.dialects.openai_chat import request as openai_chat
from gateway.dialects.openai_responses import request as openai_responses
from shared.schemas import ChatRequest, StoredRequest
from shared.schemas.chat import validate
from shared.schemas.stored_request import decode_request, encode_request

LONG = st.sampled_from(["word " * 20, "Zm9v" * 30, "ü" * 64])
TEXTS = LONG | st.text(max_size=5)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "$", "b"]), inner, max_size=4),
    max_leaves=20,
)


def stored_request(body: dict[str, Any], parameters: dict[str, Any], text: str) -> StoredRequest:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text}"}}
    fields = {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": text}, image]}],
        "provider_options": {"anthropic": parameters},
        "original": {"family": "anthropic", "body": body, "specific": ["a"]},
    }
    return validate(StoredRequest, fields)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4), st.dictionaries(st.sampled_from("a$"), JSON), LONG)
def test_a_stored_request_comes_back_with_the_order_of_its_members(
    body: dict[str, Any], options: dict[str, Any], text: str
) -> None:
    request = stored_request(body, options, text)
    read = decode_request(encode_request(request))
    assert read == request
    assert read.original is not None
    assert json.dumps(read.original.body) == json.dumps(body)


def test_a_text_of_both_forms_is_stored_once() -> None:
    text, data = "some words " * 1000, "QUJD" * 1000
    blocks = [{"type": "text", "text": text}, {"type": "image", "source": {"media_type": "image/png", "data": data}}]
    request = stored_request({"messages": [{"content": blocks}]}, {}, data)
    request = request.model_copy(update={"user": text})
    stored = encode_request(request)
    assert (stored.count(text.encode()), stored.count(data.encode())) == (1, 1)


@pytest.mark.parametrize(
    ("said", "plain", "streamed"),
    [
        (None, ("", "1"), ("fail", "1")),
        ("resume", ("resume", "1"), ("resume", "1")),
        ("restart", ("restart", "0"), ("restart", "0")),
        ("fail", ("fail", "0"), ("fail", "0")),
    ],
)
def test_each_dialect_says_what_follows_the_loss_of_a_worker(
    said: str | None, plain: tuple[str, str], streamed: tuple[str, str]
) -> None:
    """Clients that cannot take text back get no restarted answer, unless they ask for it."""
    own = {} if said is None else {"on_worker_lost": said}
    chat = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], **own}
    responses = {"model": "m", "input": "hi", **own}
    assert loss_of(ChatRequest.model_validate(chat)) == plain
    page = {"id": "c", "messages": [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "hi"}]}], **own}
    assert loss_of(ai_sdk.parse(json.dumps(page).encode(), "openai/m")[0]) == plain
    parse_responses = partial(openai_responses.parse, earlier=[])
    for body, parse in ((chat, openai_chat.parse), (chat, anthropic.parse), (responses, parse_responses)):
        for fields, expected in (({}, plain), ({"stream": True}, streamed)):
            parsed = parse(json.dumps(body | fields).encode())[0]
            assert loss_of(parsed) == expected
            assert "fails_unless_resumed" not in encode_request(parsed).decode()
    assert loss_of(parse_responses(json.dumps(responses | {"background": True}).encode())[0]) == streamed


def loss_of(request: ChatRequest) -> tuple[str, str]:
    fields = request.loss_fields
    return fields["on_worker_lost"], fields["may_resume"]
