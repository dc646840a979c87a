"""Interface of a provider: one method that turns a request into canonical deltas.

A provider yields lists of :data:`Delta`, one list per read, and then exactly one :class:`Finished`. An end without
it means that the upstream closed the connection early; the caller turns that into ``upstream_truncated``.
:class:`IgnoredFields` comes before the deltas, if at all; a later one replaces an earlier one. All failures are
raised as :class:`shared.errors.ProviderError`; no SDK's own exception leaves this package. Closing the iterator
closes the provider's connection.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, runtime_checkable

import msgspec

from shared.protocol import events
from shared.protocol.events import PartialUsage, Usage
from shared.schemas import ChatRequest
from workers.providers.endpoint import ApiKey

#: Detail of an answer without any output.
EMPTY_ANSWER: Final = "empty_answer"
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class TextDelta(msgspec.Struct, frozen=True):
    text: str


class ReasoningDelta(msgspec.Struct, frozen=True):
    text: str


class RefusalDelta(msgspec.Struct, frozen=True):
    text: str


class ToolCallDelta(msgspec.Struct, frozen=True):
    """``text``: a fragment of the arguments. ``id`` and ``name`` come once, with the first of a call."""

    index: int
    text: str
    id: str | None = None
    name: str | None = None


#: A complete ``ToolCall`` or ``Json`` follows the deltas that it is made of. An ``Extra`` keeps its place.
Delta = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | events.ToolCall | events.Json | events.Extra


@dataclass(frozen=True, slots=True)
class IgnoredFields:
    """Paths of fields of the request that have no effect, because the provider's server does not accept them."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """End of an answer. ``usage`` is as far as the provider counted it, None if not at all; the caller estimates the
    rest. ``detail`` qualifies ``reason``, for example ``refusal``."""

    reason: FinishReason
    usage: Usage | PartialUsage | None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderCursor:
    """A place in an answer that the provider stores. ``at``: the provider's number of the last event before it; None
    is the beginning."""

    response_id: str
    at: int | None


class StoredDeltas(list[Delta]):
    """Deltas of an answer that the provider stores, and the place behind them. An empty list says only where the
    answer is; it comes before the first output, as soon as the provider has named it."""

    def __init__(self, deltas: Iterable[Delta], cursor: ProviderCursor) -> None:
        super().__init__(deltas)
        self.cursor = cursor


@dataclass(frozen=True, slots=True)
class Replayed:
    """All deltas before the place from which an answer is resumed, for comparison with what was written."""

    deltas: list[Delta]


#: One item of an answer.
AnswerPart = list[Delta] | StoredDeltas | Replayed | Finished | IgnoredFields


@dataclass(frozen=True, slots=True)
class ModelList:
    """Models of one provider. ``open`` means that every other name is passed on too, because the provider returned no
    list. ``closed`` means that there are no others: a provider's own list may lack names that it accepts.
    ``created``: Unix seconds, of the models for which the provider names a date. ``responses``: patterns of the
    models that an OpenAI provider asks by Responses. ``problem``: code of the error for which there is no list."""

    models: tuple[str, ...]
    open: bool = False
    closed: bool = False
    created: Mapping[str, int] = field(default_factory=dict, compare=False)
    responses: tuple[str, ...] = ()
    problem: str = field(default="", compare=False)


class Sink(Protocol):
    """Receiver of deltas that need no task: :meth:`Provider.stream` does not yield those that it took."""

    @property
    def is_open(self) -> bool:
        """True while :meth:`take` may be called: never before the first deltas of an answer were yielded."""
        ...

    def take(self, deltas: list[Delta]) -> None: ...


class SinkError(Exception):
    """A failure of a sink. It is no failure of the provider, and is not mapped to one."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class Provider(Protocol):
    """One configured provider. ``family``: of its wire format, see :mod:`shared.schemas.original`. ``counts_tokens``:
    it supports requests with ``only_count``."""

    name: str
    family: str
    counts_tokens: bool

    async def list_models(self) -> ModelList:
        """Ask the provider for its models. Never raises: a provider without a list is ``open``."""
        ...

    async def probe(self, key: ApiKey | None = None) -> tuple[str, ...]:
        """Return the provider's own list of models, asked for with one of its keys. Raises :class:`ProviderError`."""
        ...

    def stream(
        self, request: ChatRequest, key: ApiKey | None = None, sink: Sink | None = None
    ) -> AsyncGenerator[AnswerPart, None]:
        """Return an async generator over one answer; no list is empty. ``request.model`` is the provider's own name.
        ``key``: one of the provider's; None means the first. ``sink``: may take deltas while it is open, between
        those that are yielded. The caller applies the idle timeouts."""
        ...

    async def aclose(self) -> None:
        """Close the client and its connections."""
        ...


@runtime_checkable
class StoringProvider(Protocol):
    """A provider that can store answers, so that a worker continues what another one lost. Where the configuration
    has ``background = true``, its :meth:`Provider.stream` yields :class:`StoredDeltas`."""

    def stores(self, request: ChatRequest) -> bool:
        """Return True if the provider is asked to store the answer, so that it can be resumed."""
        ...

    def resume(
        self, request: ChatRequest, key: ApiKey | None, cursor: ProviderCursor, sink: Sink | None = None
    ) -> AsyncGenerator[AnswerPart, None]:
        """Go on with a stored answer behind ``cursor``: yield :class:`Replayed`, unless that is the beginning, and
        then what :meth:`Provider.stream` would. Raises :class:`ProviderError` if the provider has the answer no more,
        or not the part behind the cursor. Never sends the request again."""
        ...

    async def cancel(self, response_id: str, key: ApiKey | None) -> None:
        """Stop a stored answer at the provider. Raises :class:`ProviderError`."""
        ...
