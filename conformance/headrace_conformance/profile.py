"""Interface between the checks and an API: a profile says how to start, read, resume and cancel a stream there."""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, NamedTuple

from headrace_conformance.client import Endpoint, Reading, Request
from headrace_conformance.sse import Event

#: What an API may lack; a profile gives the reason, and checks that need it do not apply.
Feature = Literal["cursor", "replay", "cancel", "idempotency", "reset", "foreign_cursor", "failure"]

FEATURES: Final[Mapping[Feature, str]] = {
    "cursor": "a reader can go on behind any event",
    "replay": "a stream that has ended can be read again",
    "cancel": "a client can end a stream for all readers",
    "idempotency": "a repeated request attaches to the stream of the first one",
    "reset": "the server can tell a reader to discard what it has",
    "foreign_cursor": "a client can send a cursor that is not of the stream",
    "failure": "readers are told that an answer failed",
}


@dataclass(frozen=True)
class Ask:
    """Request for one generated answer. ``key``: idempotency key, if the API has them."""

    model: str
    prompt: str
    key: str | None = None


@dataclass
class Stream:
    """One stream at the endpoint. ``state`` belongs to the profile."""

    id: str
    ask: Ask
    state: dict[str, Any] = field(default_factory=dict)


class Unit(NamedTuple):
    """The smallest thing that must neither be lost nor repeated. Reports show ``label``, never ``value``."""

    label: str
    value: str


class Foreign(NamedTuple):
    """A cursor that is not of the stream. ``kind``: garbage, future, or unknown (well formed, but never issued)."""

    kind: Literal["garbage", "future", "unknown"]
    cursor: str


class Profile(ABC):
    """One API. The methods that are not abstract have the behaviour of plain SSE with ``id:`` per event."""

    name: ClassVar[str]
    title: ClassVar[str]
    #: Where the API is described.
    reference: ClassVar[str]
    #: Reasons for missing features.
    lacks: ClassVar[Mapping[Feature, str]] = {}
    #: Statuses of an attach that mean: the stream has ended, and the reader has everything.
    nothing_left: ClassVar[frozenset[int]] = frozenset({204})
    #: Reason why an attach to a stream that does not exist may have such a status too; '' if that must be an error.
    unknown_is_empty: ClassVar[str] = ""

    #: Whether the profile writes the answers of the kit itself, instead of a provider behind the endpoint.
    makes_answers: ClassVar[bool] = False
    #: Content type of streams.
    media_type: ClassVar[str] = "text/event-stream"

    @abstractmethod
    async def create(self, endpoint: Endpoint, ask: Ask) -> tuple[Stream, Reading]:
        """Start a stream, and return it with the connection that reads it from the start. Events that were read to
        learn the stream's id stay in :attr:`Reading.events`. Raises :class:`Refused`."""

    @abstractmethod
    def attach(self, stream: Stream, cursor: str | None) -> Request:
        """Return the request that reads a stream behind a cursor; None: from the start."""

    async def open(self, endpoint: Endpoint, stream: Stream, cursor: str | None) -> Reading:
        """Open a connection that reads a stream behind a cursor; None: from the start."""
        return await endpoint.open(self.attach(stream, cursor))

    @abstractmethod
    def is_ending(self, event: Event) -> bool:
        """Return whether this event is the last one of its stream."""

    def cancel(self, stream: Stream) -> Request:
        """Return the request that ends a stream for all its readers."""
        raise NotImplementedError

    def cursor(self, event: Event) -> str | None:
        """Return the cursor of a client that has dispatched this event; None: as before it."""
        return event.last_event_id or None

    def units(self, event: Event) -> Sequence[Unit]:
        """Return the parts that the event adds to the stream. An event that belongs to the connection has none, such
        as a heartbeat. A server may group the same units into other events when it replays them."""
        return [Unit(event.id, f"{event.type} {event.data}")] if event.id is not None else []

    def text(self, event: Event) -> str:
        """Return the part of the answer's text that the event adds."""
        return ""

    def is_reset(self, event: Event) -> bool:
        """Return whether a client must discard everything that it had before this event."""
        return False

    def is_error(self, event: Event) -> bool:
        """Return whether the event reports a failure of the answer."""
        return False

    def is_heartbeat(self, event: Event) -> bool:
        """Return whether the event only keeps the connection open, or reports on the wait: it must not move the
        cursor."""
        return event.type in {"ping", "heartbeat", "keepalive", "keep-alive"}

    def unknown(self, stream: Stream) -> Stream:
        """Return a stream that does not exist, with an id of the same form."""
        return Stream(uuid.uuid4().hex, stream.ask, dict(stream.state))

    def foreign(self, cursors: Sequence[str]) -> Iterable[Foreign]:
        """Return cursors that the stream with these ones never had."""
        return []


class Refused(Exception):
    """The endpoint did not start a stream. ``body`` is not in the message, since reports must not have it."""

    def __init__(self, message: str, body: bytes = b"") -> None:
        super().__init__(message)
        self.body = body
