"""Example requests of the OpenAPI description. The demo provider answers every one, so each can be sent unchanged."""

from typing import Any, Final

_DEMO: Final = {"provider": "demo", "model": "demo"}


def _user(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


_WEATHER: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, now.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_CALL: Final = {"id": "call_1", "function": {"name": "get_weather", "arguments": '{"city":"Basel"}'}}
_PIXEL: Final = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
_SCENES: Final = {"type": "object", "properties": {"scenes": {"type": "array", "items": {"type": "string"}}}}

CHAT: Final[dict[str, dict[str, Any]]] = {
    "text": {**_DEMO, "messages": [_user("Count to 3")], "max_tokens": 20, "metadata": {"tab": "7"}},
    "image": {
        **_DEMO,
        "messages": [
            {"role": "system", "content": "Be brief."},
            _user([{"type": "text", "text": "Count to 3"}, {"type": "image_url", "image_url": {"url": _PIXEL}}]),
        ],
    },
    "tools": {**_DEMO, "messages": [_user("Do I need a coat?")], "tools": [_WEATHER], "tool_choice": "required"},
    "tool_result": {
        **_DEMO,
        "messages": [
            _user("Count to 3"),
            {"role": "assistant", "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "4 degrees, rain"},
        ],
        "tools": [_WEATHER],
    },
    "chat": {**_DEMO, "chat_id": "7", "messages": [_user("And then?")]},
    "json": {
        **_DEMO,
        "messages": [_user("Tell me a story")],
        "response_format": {"type": "json_schema", "json_schema": {"name": "story", "schema": _SCENES}},
    },
    "patience": {
        "model": "demo/demo",
        "messages": [_user("Count to 3")],
        "fallbacks": ["demo/demo"],
        "on_disconnect": "continue",
        "grace_s": 10,
        "on_worker_lost": "fail",
        "on_provider_lost": "continue",
    },
}
COMPLETION: Final[dict[str, Any]] = {"model": "demo/demo", "messages": [_user("Count to 3")]}
MESSAGE: Final[dict[str, Any]] = {**COMPLETION, "max_tokens": 100}
MESSAGE_COUNT: Final[dict[str, Any]] = COMPLETION
RESPONSE: Final[dict[str, Any]] = {"model": "demo/demo", "input": "Count to 3"}
UI_MESSAGE: Final[dict[str, Any]] = {
    "id": "weather",
    "model": "demo/demo",
    "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Count to 3"}]}],
}
RUN: Final[dict[str, Any]] = {
    "threadId": "weather",
    "runId": "7d1f0c52-6a0b-4b8e-9f53-2d7f6f1c3a10",
    "messages": [{"id": "m1", "role": "user", "content": "Count to 3"}],
    "tools": [],
    "context": [],
    "state": {},
    "forwardedProps": {"model": "demo/demo"},
}
_ID: Final = "3f8a1c0d5e7b9a2c4d6e8f0a1b3c5d7e90"
_TICKET: Final = "v1.signed"
_ACCEPTED: Final[dict[str, Any]] = {
    "stream_id": _ID,
    "chat_id": None,
    "history": None,
    "stream_url": f"/chat/stream/{_ID}?ticket={_TICKET}",
    "status_url": f"/chat/{_ID}",
    "expires_at": "2026-12-02T10:00:00+00:00",
}
_STATUS: Final[dict[str, Any]] = {
    "stream_id": _ID,
    "chat_id": None,
    "status": "completed",
    "position": None,
    "text": "1, 2, 3",
    "reasoning": "",
    "refusal": "",
    "tool_calls": [],
    "json": None,
    "finish_reason": "stop",
    "reason": None,
    "usage": {"input_tokens": 5, "output_tokens": 7, "estimated": False},
    "usage_by_target": [],
    "cost": {"amount": 0.00011, "currency": "USD"},
    "usage_final": None,
    "cost_final": None,
    "error": None,
    "model": "demo",
    "provider": "demo",
    "attempt": 1,
    "ignored": [],
    "metadata": {"tab": "7"},
    "last_event_id": "4-3",
    "created_at": "2026-11-30T10:00:00.000+00:00",
    "started_at": "2026-11-30T10:00:00.005+00:00",
    "ended_at": "2026-11-30T10:00:01.200+00:00",
}
#: By name in the description's components; the framework leaves null out of what routes have themselves.
ANSWERS: Final = {"accepted": {"value": _ACCEPTED}, "completed": {"value": _STATUS}}
EVENTS: Final = """\
id: 4-1
event: start
data: {"stream_id":"3f8a1c0d5e7b9a2c4d6e8f0a1b3c5d7e90","model":"demo","provider":"demo","attempt":1,"reset":false}

id: 4-2
event: token
data: {"token":"1, 2, 3","token_index":0,"n":1}

id: 4-3
event: done
data: {"finish_reason":"stop","reason":null,"usage":{"input_tokens":5,"output_tokens":7,"estimated":false}}

"""
TICKET: Final[dict[str, dict[str, Any]]] = {"an_hour": {"life_s": 3600}, "to_cancel": {"may_cancel": True}}
