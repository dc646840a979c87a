"""Events of a stream, and their stored bytes.

An event is stored as ``<type> <json>``, e.g. ``token {"token":"The","token_index":0,"n":1}``. The JSON is also the
``data:`` of the native dialect, so the hot path renders without decoding. JSON escapes every control character, so no
token can break out of its SSE line.
"""

from typing import Any, ClassVar, Final

import msgspec
from msgspec import UNSET, UnsetType

from shared.errors import GenerationError
from shared.protocol.ledger import Cost

TOKEN: Final = b"token"
DONE: Final = b"done"
START: Final = b"start"


class Usage(msgspec.Struct, frozen=True):
    """Input and output tokens. ``estimated``: at least one of the two is an estimate. ``tokens_saved``: the part of
    the requested ``max_tokens`` that a cancel left unused.

    ``cached_tokens`` were read from the provider's cache and ``cache_write_tokens`` written to it; both are part of
    ``input_tokens``. ``reasoning_tokens`` are part of ``output_tokens``. Unset: the provider did not count them.
    """

    input_tokens: int
    output_tokens: int
    estimated: bool = False
    tokens_saved: int | UnsetType = UNSET
    cached_tokens: int | UnsetType = UNSET
    cache_write_tokens: int | UnsetType = UNSET
    reasoning_tokens: int | UnsetType = UNSET


class PartialUsage(msgspec.Struct, frozen=True):
    """Counts of a provider that has not counted both sides. The fields mean the same as those of :class:`Usage`.
    Unset: not counted."""

    input_tokens: int | UnsetType = UNSET
    output_tokens: int | UnsetType = UNSET
    cached_tokens: int | UnsetType = UNSET
    cache_write_tokens: int | UnsetType = UNSET
    reasoning_tokens: int | UnsetType = UNSET


class TargetUsage(msgspec.Struct, frozen=True):
    """Usage of one call of an answer to which several calls have contributed. ``cost``: None without a price."""

    provider: str
    model: str
    usage: Usage
    cost: Cost | None = None


class Event(msgspec.Struct, frozen=True):
    """Base of all events: the type's name, as stored and sent."""

    TYPE: ClassVar[bytes]


class Start(Event, frozen=True):
    """First event of an attempt, written with the provider's first output. ``reset`` is False as stored; it is
    rendered True for a client whose cursor belongs to another epoch. ``ignored``: paths of the request's fields that
    have no effect, because the provider does not accept them. ``usage``: the counts of the input, if the provider
    reported them before its first output."""

    TYPE = b"start"
    stream_id: str
    model: str
    provider: str
    attempt: int
    reset: bool = False
    ignored: list[str] | UnsetType = UNSET
    usage: PartialUsage | UnsetType = UNSET


class Token(Event, frozen=True):
    """Text of the answer. ``token_index`` is the ordinal of its first delta, ``n`` the number of deltas joined."""

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
    """Text of a model that refuses to answer."""

    TYPE = b"refusal"
    text: str
    index: int
    n: int = 1


class ToolCall(Event, frozen=True):
    """A fragment of a call's ``arguments``, ``n`` deltas joined; the first has ``id`` and ``name``. When the call is
    ``complete``, one more event has all of it; its ``arguments`` are the text of a JSON object. ``index`` numbers
    parallel calls from 0."""

    TYPE = b"tool_call"
    index: int
    arguments: str
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    complete: bool = False
    n: int = 1


class Extra(Event, frozen=True):
    """Provider-specific data at this place of the answer. Renderers of the same ``family`` merge it into their
    format; all others ignore it. It never repeats the text of another event.

    ``data`` of family ``anthropic`` has one of these forms:

    - ``block``, ``deltas``: a whole content block of another kind than text, thinking and tool_use, such as
      ``redacted_thinking``: its start and the deltas that change it.
    - ``in`` (``text`` or ``thinking``), ``delta``: a delta of the open block of that kind, such as
      ``signature_delta`` and ``citations_delta``. It opens a block if none of the kind is open.
    - ``in`` (``thinking``), ``ping``: the provider is still thinking. It may show no thinking for minutes.
    - ``open`` (``text`` or ``thinking``), ``block``: the text that follows begins a new block; ``block`` has its
      further members.
    - ``call`` (its id), ``block``: further members of the tool_use block that follows.
    - ``message``, ``usage``: further members of the message and of its usage.
    - ``stop``, ``end``: members of ``delta`` in ``message_delta``, such as ``stop_reason`` and ``stop_sequence``, and
      its further top-level members.

    ``data`` of family ``openai``:

    - ``chunk``, ``choice``, ``delta``, ``usage``: further members of these objects, such as ``system_fingerprint``,
      ``logprobs``, ``annotations`` and ``reasoning_details``.
    - ``each``: ``chunk``, ``choice`` and ``delta`` with members that are in every chunk from here until the next
      ``each``.
    - ``call`` (its index), ``members``: further members of a tool call, such as ``extra_content``.
    - ``finish_reason``: the server's own, if it is not one of ours.

    ``data`` of family ``responses``:

    - ``open`` (``message`` or ``reasoning``), ``item``: the text that follows begins a new item; ``item`` has its
      further members, such as ``id``.
    - ``part`` (``output_text``, ``refusal``, ``summary_text`` or ``reasoning_text``): the text that follows begins a
      new part of the item. ``joint``: the text begins with this separator, which the provider has not sent.
    - ``close``: further members of the item that ends, such as ``encrypted_content``.
    - ``annotation``: of the open text. ``logprobs``: of the text that follows.
    - ``call`` (its index), ``members``: further members of the item of a tool call, such as its ``id``.
    - ``at`` (the provider's number of an item) with ``added``, ``event`` or ``done``: an item of another kind, such
      as ``web_search_call``, and the events about it.
    - ``response``, ``usage``: further members of the response and of its usage.
    """

    TYPE = b"extra"
    family: str
    data: dict[str, Any]


class Continued(Event, frozen=True):
    """The provider broke off, and the answer goes on with the output of another call. ``provider`` and ``model``: its
    target. ``token_index``: ordinal of the next delta of text. ``characters``: length of the text before.
    ``ignored``: as in :class:`Start`, for this call."""

    TYPE = b"continued"
    provider: str
    model: str
    token_index: int
    characters: int
    ignored: list[str] | UnsetType = UNSET


class Json(Event, frozen=True):
    """A complete value of a JSON answer and its path: keys and indices from the top. The last event has the path
    ``[]`` and the whole value; ``outside`` counts the characters of the answer outside the JSON."""

    TYPE = b"json"
    path: list[str | int]
    value: Any
    complete: bool = True
    outside: int | UnsetType = UNSET


class Error(Event, frozen=True):
    """A failure; it comes before ``done``. ``provider_code`` and ``param``: the provider's own error code, if it is
    about the request, and the field that it names."""

    TYPE = b"error"
    code: str
    message: str
    retryable: bool
    provider_code: str | UnsetType = UNSET
    param: str | UnsetType = UNSET

    @classmethod
    def of(cls, error: GenerationError) -> "Error":
        return cls(error.code, error.message, error.retryable, error.provider_code or UNSET, error.param or UNSET)

    @classmethod
    def without_content(cls, error: GenerationError) -> "Error":
        """Return the error as operators see it: no name from the answer or the request is in it."""
        return cls(error.code, error.summary, error.retryable, error.provider_code or UNSET)


class Done(Event, frozen=True):
    """The last event. ``finish_reason``: stop, length, tool_calls, content_filter, cancelled or error; ``reason``
    explains it if it does not come from the provider. ``usage_by_target``: the parts of ``usage``, if the answer was
    continued, in the order of the calls. ``cost``: of all calls of the stream, also of those that the answer has
    nothing of; None if one of them had no price, their currencies differ, or no tokens were used."""

    TYPE = b"done"
    finish_reason: str
    reason: str | None
    usage: Usage | None
    usage_by_target: list[TargetUsage] | UnsetType = UNSET
    cost: Cost | None = None


TYPES: Final = (Start, Token, Reasoning, Refusal, ToolCall, Extra, Continued, Json, Error, Done)
_BY_TYPE: Final[dict[bytes, type[Event]]] = {kind.TYPE: kind for kind in TYPES}
_encoder: Final = msgspec.json.Encoder()
_decoders: Final = {name: msgspec.json.Decoder(kind) for name, kind in _BY_TYPE.items()}


def encode(event: Event) -> bytes:
    return event.TYPE + b" " + _encoder.encode(event)


def split(stored: bytes) -> tuple[bytes, bytes]:
    """Split stored bytes into (type, JSON), without decoding."""
    kind, _, data = stored.partition(b" ")
    return kind, data


def decode(stored: bytes) -> Event:
    """Decode stored bytes. Raises KeyError for a type of a later version and, for invalid JSON, msgspec's
    DecodeError, UnicodeDecodeError or RecursionError."""
    kind, data = split(stored)
    event: Event = _decoders[kind].decode(data)
    return event


def is_done(stored: bytes) -> bool:
    return stored.startswith(b"done ")


def is_start(stored: bytes) -> bool:
    return stored.startswith(b"start ")
