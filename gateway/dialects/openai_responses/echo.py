"""Attributes of a request that its response repeats, as OpenAI's does.

Small ones are stored with the stream. Instructions, tools and the form of the text can be large: they are read from
the stored request, and stored again only if that is in pieces, or is removed at the end of the stream.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

_SMALL: Final = (
    *("temperature", "top_p", "max_output_tokens", "parallel_tool_calls", "tool_choice", "reasoning", "store"),
    *("service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user", "max_tool_calls"),
    "top_logprobs",
)
_LARGE: Final = ("instructions", "tools", "text")
#: Values of the large attributes if the client sent none.
_UNSENT: Final[dict[str, Any]] = {"instructions": None, "tools": [], "text": {"format": {"type": "text"}}}
#: Bytes of a body whose request is certainly stored in one piece.
_IN_ONE_PIECE: Final = 96 * 1024
_MOST_STORED: Final = 64 * 1024
_MOST_SMALL: Final = 4096
Body = dict[str, Any]
#: Large attributes as JSON. None: unknown, because they are too large or the request is no longer stored.
Large = Mapping[str, msgspec.Raw] | None


def small_of(raw: Body) -> Body:
    """Return the small attributes. One of unusual size is left out."""
    found = {name: raw[name] for name in _SMALL if name in raw}
    return {"store": True, **{n: v for n, v in found.items() if len(msgspec.json.encode(v)) <= _MOST_SMALL}}


def large_of(raw: Body) -> dict[str, msgspec.Raw]:
    """Return the large attributes that the client sent."""
    found = {name: raw[name] for name in _LARGE if raw.get(name) is not None}
    if isinstance(text := found.get("text"), dict) and text.get("format") is None:
        found["text"] = _UNSENT["text"] | {name: value for name, value in text.items() if value is not None}
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in found.items()}


def is_read_from_request(body_bytes: int, *, is_kept: bool, continues: bool) -> bool:
    """Return True if the large attributes are read from the stored request. ``is_kept``: the request stays stored
    after the end. ``continues``: it has earlier messages too."""
    return is_kept and not continues and body_bytes <= _IN_ONE_PIECE


def storable(large: dict[str, msgspec.Raw]) -> Large:
    """Return the large attributes if they may be stored again."""
    return large if sum(len(bytes(value)) for value in large.values()) <= _MOST_STORED else None


def large_in(request: str | None) -> Large:
    """Return the large attributes of a stored request."""
    if request is None:
        return None
    original = msgspec.json.decode(request, type=_Request).original
    if original is None or original.family != "responses":
        return None
    return large_of({name: msgspec.json.decode(original.body[name]) for name in _LARGE if name in original.body})


def repeated(large: Large) -> Body:
    """Return the members of the response for the large attributes."""
    return {"tools": []} if large is None else {**_UNSENT, **large}


class _Original(msgspec.Struct):
    family: str = ""
    body: dict[str, msgspec.Raw] = {}


class _Request(msgspec.Struct):
    original: _Original | None = None
