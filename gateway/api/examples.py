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
TICKET: Final[dict[str, dict[str, Any]]] = {"an_hour": {"life_s": 3600}, "to_cancel": {"may_cancel": True}}
