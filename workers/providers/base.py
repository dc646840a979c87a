"""What a provider is: one method that turns a request into canonical deltas.

A provider yields any number of :data:`Delta`, in lists of what came together, and then exactly one
:class:`Finished`. Ending without it means that the upstream broke off; the caller turns that into
``upstream_truncated``. Everything that goes wrong is raised as :class:`shared.errors.ProviderError`; no SDK's own
exception leaves this package. Closing the iterator closes the provider's connection.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from shared.protocol import events
from shared.protocol.events import Usage
from shared.schemas import ChatRequest

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


#: A whole ``ToolCall`` or ``Json`` stands after the deltas it is made of.
Delta = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | events.ToolCall | events.Json


@dataclass(frozen=True, slots=True)
class Finished:
    """``usage`` is None where the provider did not say; the caller then estimates. ``detail`` says more than
    ``reason`` can, as ``refusal`` does."""

    reason: FinishReason
    usage: Usage | None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """The models a provider can be asked for. ``open`` means that any other name is passed on too, because the
    provider could not be asked for a list."""

    models: tuple[str, ...]
    open: bool = False


class Provider(Protocol):
    """``counts_tokens``: answers a request that is ``only_count``."""

    name: str
    counts_tokens: bool

    async def offer(self) -> Offer:
        """Ask the provider what it has. Never raises: a provider that cannot say is ``open``."""
        ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Finished, None]:
        """An async generator over one answer; no list is empty. ``request.model`` is the provider's own name. It
        waits for as long as the provider is silent: the caller has the patience."""
        ...

    async def aclose(self) -> None:
        """Close the client and its connections."""
        ...
