"""Events of a stream. Their fields have the names of the protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from headrace_client.statuses import Cost, TargetUsage, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. ``event_id`` is the cursor after this event, or None for one that no stream holds."""

    event_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued(Event):
    """The stream waits. ``position``: 1 is next; None is not known yet."""

    stream_id: str = ""
    position: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Event):
    """The reason for a silence. ``state``: ``queued``, ``taken`` (by a worker), ``model`` (it has said nothing yet)
    or ``worker_lost`` (another worker takes over). ``position``: in the queue. ``workers``: number of running
    workers. Both may be None. It holds until the next event of the same connection.
    """

    state: str = ""
    position: int | None = None
    workers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Event):
    """The provider and the model that answer.

    ``ignored``: fields of the request that have no effect. ``usage``: input tokens, if they are known already.
    """

    stream_id: str = ""
    provider: str = ""
    model: str = ""
    attempt: int = 1
    ignored: list[str] | None = None
    usage: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset(Start):
    """The answer begins again, because a worker was lost: discard all of it that is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Event):
    """A piece of the answer's text. ``n``: the number of the provider's pieces that it joins."""

    token: str = ""
    token_index: int = 0
    n: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning(Event):
    text: str = ""
    index: int = 0
    n: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal(Event):
    """A piece of the text in which a model refuses to answer."""

    text: str = ""
    index: int = 0
    n: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall(Event):
    """A piece of a tool call's ``arguments``; with ``complete``, the whole call, after its pieces."""

    index: int = 0
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    complete: bool = False
    n: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Json(Event):
    """A value of a JSON answer that is whole. ``path`` is empty for the whole answer."""

    path: list[str | int]
    value: Any
    complete: bool = True
    outside: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued(Event):
    """Another call goes on with the same text. Nothing is to be discarded."""

    provider: str = ""
    model: str = ""
    token_index: int = 0
    characters: int = 0
    ignored: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Error(Event):
    """The failure of the answer. ``Done`` follows. ``retryable``: the same request may succeed as a new one."""

    code: str = ""
    message: str = ""
    retryable: bool = False
    provider_code: str | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Event):
    """The end of the stream; always its last event. ``reason``: the cause, if it is not the provider's own.

    ``cost``: of all calls of the stream; None if it is not known.
    """

    finish_reason: str = "stop"
    reason: str | None = None
    usage: Usage | None = None
    usage_by_target: list[TargetUsage] | None = None
    cost: Cost | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Other(Event):
    """An event of a type that this version does not know, such as ``extra``. It may be ignored."""

    type: str
    data: Mapping[str, Any]


_BY_NAME: Final[dict[str, type[Event]]] = {
    "queued": Queued,
    "waiting": Waiting,
    "start": Start,
    "token": Token,
    "reasoning": Reasoning,
    "refusal": Refusal,
    "tool_call": ToolCall,
    "json": Json,
    "continued": Continued,
    "error": Error,
    "done": Done,
}
_FIELDS: Final = {
    kind: frozenset(field.name for field in fields(kind)) - {"event_id"} for kind in (*_BY_NAME.values(), Reset)
}


def event_of(name: str, event_id: str | None, data: Mapping[str, Any]) -> Event:
    """Return the event of a frame. Fields that this version does not know are left out."""
    kind = Reset if name == "start" and data.get("reset") else _BY_NAME.get(name)
    if kind is None:
        return Other(event_id=event_id, type=name, data=data)
    known: dict[str, Any] = {field: value for field, value in data.items() if field in _FIELDS[kind]}
    return kind(event_id=event_id, **known)
