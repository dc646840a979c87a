"""Frames of a WebSocket: what is refused before it takes memory."""

import json
from typing import Any

import pytest

from gateway.api.response_sockets.frames import BadFrame, parse_frame
from shared.schemas.json_bounds import MAX_VALUES

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "many members": ({str(number): 0 for number in range(MAX_VALUES + 10)}, "invalid_request", "message: has more"),
    "many values": ({"input": [0] * (MAX_VALUES + 10)}, "invalid_request", "message: has more"),
    "a long key": ({"idempotency_key": "k" * 256}, "invalid_request", "idempotency_key: must have 1 to 255"),
    "an empty key": ({"idempotency_key": ""}, "invalid_request", "idempotency_key: must have 1 to 255"),
    "a long id": ({"type": "response.resume", "response_id": "resp_" + "x" * 300_000}, "stream_not_found", ""),
}


@pytest.mark.parametrize(("members", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_a_frame_is_refused_before_it_takes_memory(members: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(BadFrame) as caught:
        parse_frame(json.dumps({"type": "response.create"} | members).encode())
    assert caught.value.error.code == code
    assert message in caught.value.error.message
