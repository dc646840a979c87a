"""The typed facts a stream consists of, and their bytes.

An event is stored as ``<type> <json>``, e.g. ``token {"token":"The","token_index":0,"n":1}``. The JSON is exactly
what the native dialect sends as ``data:``, so the hot path renders without decoding. JSON escapes every control
character, which is what keeps a token from breaking out of its SSE line.
"""

from typing import Any, ClassVar, Final

import msgspec
from msgspec import UNSET, UnsetType

TOKEN: Final = b"token"
DONE: Final = b"done"
START: Final = b"start"


class Usage(msgspec.Struct, frozen=True):
    """Tokens in and out. ``estimated`` where the provider did not say. ``tokens_saved``: what a cancel left of a
    ``max_tokens`` that was asked for."""

    input_tokens: int
    output_tokens: int
    estimated: bool = False
    tokens_saved: int | UnsetType = UNSET


class Event(msgspec.Struct, frozen=True):
    """What all events share: the name that is stored and sent."""

    TYPE: ClassVar[bytes]


class Start(Event, frozen=True):
    """First event of an attempt, written with the provider's first output. ``reset`` is False as stored; it is
    rendered True for a client whose cursor belongs to another epoch."""

    TYPE = b"start"
    stream_id: str
    model: str
    provider: str
    attempt: int
    reset: bool = False


class Token(Event, frozen=True):
    """``token_index`` is the ordinal of the first delta in it, ``n`` how many deltas were joined."""

    TYPE = b"token"
    token: str
    token_index: int
    n: int = 1


class Reasoning(Event, frozen=True):
    """Thinking text; counted apart from the answer's tokens."""

    TYPE = b"reasoning"
    text: str
    index: int
    n: int = 1


class Refusal(Event, frozen=True):
    """What a model says in place of an answer that it will not give."""

    TYPE = b"refusal"
    text: str
    index: int
    n: int = 1


class ToolCall(Event, frozen=True):
    """A fragment of a call's ``arguments``, ``n`` deltas joined; ``id`` and ``name`` come with the first of them.
    Once the call is ``complete``, all of it again in one event, whose ``arguments`` are the text of a JSON object.
    ``index`` tells parallel calls apart: 0, 1, 2 …"""

    TYPE = b"tool_call"
    index: int
    arguments: str
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    complete: bool = False
    n: int = 1


class Json(Event, frozen=True):
    """A value of a JSON answer that is whole, and where it stands: keys and indices from the top. The last one has
    the path ``[]`` and all of it; ``outside`` counts the characters of the answer that were none of the JSON's."""

    TYPE = b"json"
    path: list[str | int]
    value: Any
    complete: bool = True
    outside: int | UnsetType = UNSET


class Error(Event, frozen=True):
    """Comes before ``done`` on failure."""

    TYPE = b"error"
    code: str
    message: str
    retryable: bool


class Done(Event, frozen=True):
    """Always last. ``finish_reason``: stop, length, tool_calls, content_filter, cancelled or error; ``reason``
    says why where that is not the provider's own word."""

    TYPE = b"done"
    finish_reason: str
    reason: str | None
    usage: Usage | None


TYPES: Final = (Start, Token, Reasoning, Refusal, ToolCall, Json, Error, Done)
_BY_TYPE: Final[dict[bytes, type[Event]]] = {kind.TYPE: kind for kind in TYPES}
_encoder: Final = msgspec.json.Encoder()
_decoders: Final = {name: msgspec.json.Decoder(kind) for name, kind in _BY_TYPE.items()}


def encode(event: Event) -> bytes:
    return event.TYPE + b" " + _encoder.encode(event)


def split(stored: bytes) -> tuple[bytes, bytes]:
    """(type, JSON) of stored bytes, undecoded."""
    kind, _, data = stored.partition(b" ")
    return kind, data


def decode(stored: bytes) -> Event:
    """Raises KeyError for a type this version does not know and, for broken JSON, what msgspec has: DecodeError,
    UnicodeDecodeError, RecursionError."""
    kind, data = split(stored)
    event: Event = _decoders[kind].decode(data)
    return event


def is_done(stored: bytes) -> bool:
    return stored.startswith(b"done ")


def is_start(stored: bytes) -> bool:
    return stored.startswith(b"start ")
