"""Builds a message of its wire events, as Anthropic's SDKs do."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

#: The member that a delta extends, by the delta's type.
_EXTENDED: Final = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
Body = dict[str, Any]


def whole_message(wire_events: Iterable[Body]) -> Body:
    """Return the message. Blocks come in the order of their indexes."""
    message: Body = {}
    inputs: dict[int, list[str]] = {}
    for event in wire_events:
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                message["content"].append(dict(event["content_block"]))
            case "content_block_delta":
                _change(message["content"][event["index"]], event["delta"], inputs.setdefault(event["index"], []))
            case "message_delta":
                message |= event["delta"]
                message |= {name: value for name, value in event.items() if name not in {"type", "delta", "usage"}}
                message["usage"] = {**message["usage"], **event["usage"]}
    for index, pieces in inputs.items():
        if whole := "".join(pieces):
            message["content"][index]["input"] = _parsed(whole)
    return message


def _change(block: Body, delta: Body, input_pieces: list[str]) -> None:
    kind = delta.get("type")
    if (name := _EXTENDED.get(str(kind))) is not None:
        block[name] = str(block.get(name) or "") + str(delta.get(name) or "")
    elif kind == "input_json_delta":
        input_pieces.append(str(delta.get("partial_json") or ""))
    elif kind == "citations_delta":
        before = block.get("citations")
        block["citations"] = [*(before if isinstance(before, list) else ()), delta.get("citation")]
    else:
        block |= {name: value for name, value in delta.items() if name != "type"}


def _parsed(text: str) -> Any:
    """Return the value of a JSON text. An input that was cut off is an empty object."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
