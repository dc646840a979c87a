"""The stored form of a request: what was put in comes out, and no long text is stored twice."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.schemas import StoredRequest
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
